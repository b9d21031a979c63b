"""The HDF5 and the memory sink."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sinks_support import account_of, indices_in, mask_of, masks_of, read_file, run_info

from ptychoseg_stream.errors import StoreError
from ptychoseg_stream.node.ports import Sink
from ptychoseg_stream.science.frame import legend
from ptychoseg_stream.sinks.hdf5 import HDF5Sink
from ptychoseg_stream.sinks.memory import MemorySink
from ptychoseg_stream.sinks.rows import COLUMNS


@pytest.fixture
def sink(tmp_path):
    return HDF5Sink(tmp_path / "masks")


def test_a_file_has_masks_columns_and_documents(sink, tmp_path):
    sink.open(run_info())
    refused = mask_of(33, status="refused", reason="empty")
    sink.write("raw-1", masks_of(range(33)))
    sink.write("raw-1", [refused])
    sink.close("raw-1", account_of(34, written=33, refused={"empty": 1}))
    assert sink.drain(30)
    assert sink.stored("raw-1") == 34
    path = sink.address("raw-1")
    content = read_file(path)
    assert Path(path) == tmp_path / "masks" / f"{json.loads(content['start'])['uid']}.h5"
    assert content["mask"].shape == (34, 6, 8)
    assert content["mask"].dtype == np.uint8
    assert indices_in(content["mask"]) == list(range(34))
    assert set(COLUMNS) < set(content)
    assert content["status"] == ["ok"] * 33 + ["refused"]
    assert content["centroids_hash"] == ["c0ffee"] * 34
    assert content["seq_num"] == list(range(1, 35))
    assert json.loads(content["class_codes"]) == legend()
    assert content["raw_run"] == "raw-1"
    stop = json.loads(content["stop"])
    assert stop["num_events"] == {"primary": 34}
    assert stop["account"]["refused"] == {"empty": 1}


def test_rows_are_on_disk_while_the_run_is_open(sink):
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(3)))
    assert indices_in(read_file(sink.address("raw-1"))["mask"]) == [0, 1, 2]
    assert sink.stored("raw-1") == 3
    assert not sink.settled("raw-1")
    sink.close("raw-1", account_of(3))
    assert sink.settled("raw-1")


def test_holes_are_lost_rows_and_repeats_stay_out(sink):
    sink.open(run_info())
    for indices in ([1], [3, 2], [5]):
        sink.write("raw-1", masks_of(indices))
    sink.close("raw-1", account_of(5))
    content = read_file(sink.address("raw-1"))
    assert indices_in(content["mask"]) == [-1, 1, -1, 3, -1, 5]
    assert content["raw_index"] == list(range(6))
    assert content["status"] == ["lost", "ok", "lost", "ok", "lost", "ok"]
    assert content["reason"][0] == "frame was never announced"


def test_a_disk_that_takes_nothing_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        HDF5Sink(tmp_path / "file" / "masks").open(run_info())


def test_runs_may_be_interleaved_or_empty(sink):
    for uid in ("a", "b", "c"):
        sink.open(run_info(uid))
    for index in range(10):
        for uid in ("a", "b"):
            sink.write(uid, [mask_of(index, uid)])
    for uid in ("a", "b", "c"):
        sink.close(uid, account_of(10))
    assert sink.drain(30)
    for uid in ("a", "b"):
        assert indices_in(read_file(sink.address(uid))["mask"]) == list(range(10))
    assert "mask" not in read_file(sink.address("c"))


def test_class_maps_of_other_sources_and_large_frames_are_stored(tmp_path):
    sink = HDF5Sink(tmp_path, arrays=("mask", "student"))
    student = np.full((512, 512), 2, np.uint8)
    sink.open(run_info())
    sink.write("raw-1", [mask_of(0, shape=(512, 512), alternatives={"student": student})])
    sink.write("raw-1", [mask_of(1, shape=(512, 512))])
    sink.shutdown()
    content = read_file(sink.address("raw-1"))
    assert indices_in(content["mask"]) == [0, 1]
    assert np.array_equal(content["student"][0], student)
    assert (content["student"][1] == 255).all()


def test_a_run_that_was_not_opened_is_an_error_that_names_it(sink):
    with pytest.raises(StoreError, match="nowhere"):
        sink.write("nowhere", [mask_of(0)])
    assert sink.address("nowhere") == ""


def test_memory_keeps_rows_and_accounts():
    memory: Sink = (sink := MemorySink())
    memory.open(run_info())
    memory.write("raw-1", masks_of(range(3)))
    memory.write("raw-1", [replace(mask_of(3), alternatives={"student": mask_of(9).classes})])
    memory.close("raw-1", account_of(4))
    assert memory.drain(0.0)
    assert memory.stored("raw-1") == 4
    assert sink.accounts["raw-1"].received == 4
    assert indices_in(sink.stack("raw-1")) == [0, 1, 2, 3]
    assert indices_in(sink.stack("raw-1", "teacher")) == [0, 1, 2, 3]
    with pytest.raises(StoreError, match="without 'student'"):
        sink.stack("raw-1", "student")
    with pytest.raises(StoreError, match="raw-1 is not open"):
        memory.write("raw-1", [mask_of(4)])
    memory.open(run_info())
    assert memory.stored("raw-1") == 0
