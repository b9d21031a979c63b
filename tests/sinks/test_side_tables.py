"""Alarms and stages: streams of their own in Tiled, groups in a file, each told once."""

import math

import numpy as np
import pytest
from event_model import DocumentNames, schema_validators
from sinks_support import (
    account_of,
    alarm_of,
    mask_of,
    masks_of,
    read_file,
    read_table,
    run_info,
    stage_of,
    until,
)

from ptychoseg_stream.science.records import NAN
from ptychoseg_stream.sinks.derived import Derived, column_keys
from ptychoseg_stream.sinks.hdf5 import HDF5Sink
from ptychoseg_stream.sinks.rows import Row, table
from ptychoseg_stream.sinks.side_tables import SIDE_TABLES, Notebook


def rows_of(*masks) -> list[Row]:
    return [Row(mask, 5.0) for mask in masks]


def stored(root, options, sink, name, run="raw-1"):
    return root[options.container][sink.derived_uid(run)][name].base["internal"].read()


def test_an_alarm_that_comes_again_is_entered_once_even_with_nan():
    notebook = Notebook()
    notebook.take(rows_of(mask_of(3, alarms=(alarm_of(3), alarm_of(3)))))
    notebook.take(rows_of(mask_of(3, alarms=(alarm_of(3, expected=float("nan")),))))
    notebook.take(rows_of(mask_of(4, alarms=(alarm_of(3), alarm_of(3, monitor="shift")))))
    assert [entry.record.monitor for entry in notebook.pages["alarms"]] == ["plateau", "shift"]
    assert [entry.frame for entry in notebook.pages["alarms"]] == [3, 4]
    assert notebook.pages["stages"] == []


def test_an_alarm_that_was_measured_again_is_the_same_alarm():
    notebook = Notebook()
    again = alarm_of(3, value=np.nextafter(alarm_of(3).value, 1), score=-7.000000001)
    notebook.take(rows_of(mask_of(3, alarms=(alarm_of(3),)), mask_of(3, alarms=(again,))))
    notebook.take(rows_of(mask_of(4, alarms=(alarm_of(3, action="restart"),))))
    first, second = (entry.record for entry in notebook.pages["alarms"])
    assert first == alarm_of(3)
    assert second.action == "restart"


def test_the_table_beside_the_masks_tells_alarms_in_words():
    two = (alarm_of(1), alarm_of(1, text="frame 1: no beam"))
    columns = table(rows_of(mask_of(0), mask_of(1, alarms=two)), ("mask",)).to_pydict()
    assert columns["alarm"] == ["", "frame 1: the dose fell; frame 1: no beam"]


@pytest.mark.parametrize("name", list(SIDE_TABLES))
def test_descriptors_of_side_tables_are_valid(name):
    derived = Derived.of(run_info(), lambda: 10.0)
    descriptor = derived.descriptor(name, column_keys(SIDE_TABLES[name]))
    schema_validators[DocumentNames.descriptor].validate(descriptor)
    assert descriptor["name"] == name


def test_a_run_without_alarms_and_stages_has_no_tables_of_them(root, options, sink):
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(3)))
    sink.close("raw-1", account_of(3))
    assert sink.drain(30)
    run = root[options.container][sink.derived_uid("raw-1")]
    assert list(run) == ["primary"]
    assert run.stop["num_events"] == {"primary": 3}


def test_alarms_and_stages_are_streams_with_a_row_each(root, options, sink):
    sink.open(run_info())
    sink.write("raw-1", [mask_of(0, stages=(stage_of(0),)), mask_of(1)])
    assert sink.drain(30)
    assert stored(root, options, sink, "stages").frames.tolist() == ["0"]  # while it runs
    sink.write("raw-1", [mask_of(2, alarms=(alarm_of(1), alarm_of(2, action="restart")))])
    sink.write("raw-1", [mask_of(3, stages=(stage_of(1), stage_of(2, promoted=False)))])
    sink.close("raw-1", account_of(4))
    assert sink.drain(30)
    run = root[options.container][sink.derived_uid("raw-1")]
    assert set(run) == {"primary", "alarms", "stages"}
    assert run.stop["num_events"] == {"primary": 4, "alarms": 2, "stages": 3}
    assert len(run.descriptors) == 3
    alarms = stored(root, options, sink, "alarms")
    assert alarms.seq_num.tolist() == [1, 2]
    assert alarms.raw_index.tolist() == [1, 2]
    assert alarms.monitor.tolist() == ["plateau"] * 2
    assert alarms.value.tolist() == [41.5] * 2
    assert all(map(math.isnan, alarms.expected))
    assert alarms.score.tolist() == [9.25] * 2
    assert alarms.action.tolist() == ["note", "restart"]
    assert alarms.text.tolist()[1] == "frame 2: the dose fell"
    assert alarms.ts_text.tolist() == [1002.0] * 2
    assert (alarms.time > 1e9).all()
    stages = stored(root, options, sink, "stages")
    assert stages.raw_index.tolist() == [0, 3, 3]
    assert stages.stage.tolist() == [0, 1, 2]
    assert stages.frames.tolist() == ["0", "0 5", "0 5 10"]
    assert math.isnan(stages.delta[0])
    assert stages.delta.tolist()[1:] == [0.004, 0.004]
    assert stages.converged.tolist() == [False, True, True]
    assert stages.promoted.tolist() == [True, True, False]
    assert stages.parent_hash.tolist() == ["", "student-0", "student-1"]


def test_a_side_table_reads_as_xarray(root, options, sink):
    sink.open(run_info())
    sink.write("raw-1", [mask_of(0, alarms=(alarm_of(0), alarm_of(0, monitor="spikes")))])
    sink.close("raw-1", account_of(1))
    assert sink.drain(30)
    dataset = root[options.container][sink.derived_uid("raw-1")]["alarms"].read()
    assert dict(dataset.sizes) == {"time": 2}
    assert dataset["monitor"].values.tolist() == ["plateau", "spikes"]


def test_a_row_that_comes_again_does_not_double_its_alarm_and_loses_no_new_one(root, options, sink):
    sink.open(run_info())
    first = mask_of(0, alarms=(alarm_of(0),))
    sink.write("raw-1", [first, mask_of(1), first])
    assert sink.drain(30)
    sink.write("raw-1", [first, mask_of(1, alarms=(alarm_of(1),), stages=(stage_of(0),))])
    sink.close("raw-1", account_of(2))
    assert sink.drain(30)
    assert stored(root, options, sink, "alarms").raw_index.tolist() == [0, 1]
    assert stored(root, options, sink, "stages").stage.tolist() == [0]
    assert stored(root, options, sink, "primary").raw_index.tolist() == [0, 1]


def test_side_rows_are_stored_once_when_the_answer_of_a_request_is_lost(
    root, options, make_sink, lossy
):
    sink = make_sink(options, lossy(lambda request: request.method in ("PATCH", "POST")))
    sink.open(run_info())
    for index in range(3):
        alarms = (alarm_of(index), alarm_of(index, monitor="shift"))
        sink.write("raw-1", [mask_of(index, alarms=alarms, stages=(stage_of(index),))])
        assert sink.drain(30)
    sink.close("raw-1", account_of(3))
    assert until(lambda: sink.address("raw-1").startswith("http"))
    assert stored(root, options, sink, "alarms").raw_index.tolist() == [0, 0, 1, 1, 2, 2]
    assert stored(root, options, sink, "alarms").seq_num.tolist() == list(range(1, 7))
    assert stored(root, options, sink, "stages").stage.tolist() == [0, 1, 2]
    assert stored(root, options, sink, "primary").raw_index.tolist() == [0, 1, 2]


def test_a_file_has_alarms_and_stages(tmp_path):
    sink = HDF5Sink(tmp_path)
    sink.open(run_info())
    sink.write("raw-1", [mask_of(0, alarms=(alarm_of(0),)), mask_of(1)])
    late = mask_of(2, alarms=(alarm_of(2),), stages=(stage_of(0, area_change=NAN),))
    sink.write("raw-1", [late, late])
    sink.close("raw-1", account_of(3))
    path = sink.address("raw-1")
    alarms = read_table(path, "alarms")
    assert alarms["raw_index"] == [0, 2]
    assert alarms["seq_num"] == [1, 2]
    assert alarms["text"] == ["frame 0: the dose fell", "frame 2: the dose fell"]
    assert all(map(math.isnan, alarms["expected"]))
    stages = read_table(path, "stages")
    assert stages["frames"] == ["0"]
    assert stages["promoted"] == [True]
    assert math.isnan(stages["area_change"][0])
    assert '"alarms": 2, "stages": 1' in read_file(path)["stop"]


def test_a_file_without_alarms_has_no_group_of_them(tmp_path):
    sink = HDF5Sink(tmp_path)
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(2)))
    sink.close("raw-1", account_of(2))
    sink.shutdown()
    assert read_table(sink.address("raw-1"), "alarms") == {}
