"""Rows, documents and options: no server, no disk."""

from dataclasses import replace

import numpy as np
import pytest
from event_model import DocumentNames, schema_validators
from pydantic import TypeAdapter
from sinks_support import account_of, mask_of, run_info

from ptychoseg_stream.errors import ProfileError
from ptychoseg_stream.science.frame import ClassCode
from ptychoseg_stream.sinks.arrays import stack
from ptychoseg_stream.sinks.derived import STREAM, Derived, array_keys, column_keys
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.rows import (
    COLUMNS,
    Intake,
    Row,
    fitted,
    run_shape,
    table,
    table_schema,
)


def taken(intake: Intake, *indices: int) -> list[tuple[int, str]]:
    rows = [row for index in indices for row in intake.take(Row(mask_of(index), 5.0))]
    return [(row.mask.frame.index, row.mask.status) for row in rows]


def test_intake_fills_holes_and_refuses_repeats():
    intake = Intake()
    assert taken(intake, 0, 3) == [(0, "ok"), (1, "lost"), (2, "lost"), (3, "ok")]
    assert taken(intake, 3, 1) == []
    assert taken(intake, 4) == [(4, "ok")]
    assert (intake.next, intake.repeated) == (5, 2)


def test_intake_of_a_resumed_run_begins_anywhere_and_says_nothing_of_rows_that_are_stored():
    intake = Intake(resumed=True)
    assert taken(intake, 7, 9) == [(7, "ok"), (8, "lost"), (9, "ok")]
    again = Intake(stored=9, resumed=True)
    assert taken(again, 7, 8) == []
    assert again.repeated == 0
    assert taken(again, 9, 9) == [(9, "ok")]
    assert again.repeated == 1


def test_a_hole_of_a_million_rows_is_made_row_by_row():
    far = replace(mask_of(0), frame=replace(mask_of(0).frame, index=1_000_000))
    rows = Intake().take(Row(far, 0.0))
    assert next(rows).mask.frame.index == 0
    assert next(rows).mask.classes.nbytes == 0


def test_the_table_has_a_timestamp_for_every_data_key():
    rows = [Row(mask_of(0), 5.0), Row(mask_of(1), 6.0)]
    columns = table(rows, ("mask", "student")).to_pydict()
    assert list(columns) == table_schema(("mask", "student")).names
    assert columns["time"] == [5.0, 6.0]
    assert columns["seq_num"] == [1, 2]
    for name in (*COLUMNS, "mask", "student"):
        assert columns[f"ts_{name}"] == [1000.0, 1001.0]


def test_a_frame_without_a_time_is_stamped_with_that_of_its_mask():
    mask = mask_of(0)
    mask = replace(mask, frame=replace(mask.frame, time=0.0))
    assert table([Row(mask, 5.0)], ("mask",))["ts_mask"].to_pylist() == [5.0]


def test_the_size_of_a_run_is_that_of_the_first_mask_or_else_what_was_promised():
    nothing = np.empty((0, 0), np.uint8)
    promised = replace(mask_of(0), classes=nothing)
    unknown = replace(promised, frame=replace(promised.frame, shape=(0, 0)))
    assert run_shape([Row(unknown, 0.0)]) is None
    assert run_shape([Row(unknown, 0.0), Row(promised, 0.0)]) == (6, 8)
    assert run_shape([Row(promised, 0.0), Row(mask_of(1, shape=(2, 2)), 0.0)]) == (2, 2)


def test_a_class_map_that_is_missing_is_all_invalid():
    row = fitted(Row(mask_of(1), 0.0), (6, 8))
    assert (stack([row], "student", (6, 8)) == ClassCode.INVALID).all()
    assert np.array_equal(stack([row], "teacher", (6, 8))[0], row.mask.classes)


def test_documents_are_valid_whatever_the_raw_start_holds():
    info = run_info(
        sample=["a", None, {"b.c": np.float32("nan")}],
        plan_name=None,
        scan_id=np.int64(3),
        data_session=5,
    )
    hostile = {
        "none": None,
        "a.b/c": np.arange(3),
        "inf": float("inf"),
        "big": 2**70,
        "object": object,
        7: {"key": "my-secret"},
    }
    derived = Derived.of(replace(info, processing=hostile), lambda: 10.0, secret="my-secret")
    start = derived.start()
    keys = array_keys(("mask",), (6, 8)) | column_keys(COLUMNS)
    descriptor = derived.descriptor(STREAM, keys)
    stop = derived.stop(account_of(3, exit_status="strange"), {STREAM: 3}, 12.0, filled=1)
    for name, document in (("start", start), ("descriptor", descriptor), ("stop", stop)):
        schema_validators[DocumentNames[name]].validate(document)
    assert start["processing"]["a_b_c"] == [0, 1, 2]
    assert "none" not in start["processing"]
    assert start["raw_scan_id"] == 3
    assert "my-secret" not in repr((start, descriptor, stop))
    assert stop["exit_status"] == "fail"
    assert descriptor["time"] == start["time"] == 10.0
    assert derived.descriptor(STREAM, keys) == descriptor


@pytest.mark.parametrize(
    ("bad", "hint"),
    [
        ({"uri": "http://host?api_key=abc"}, "TILED_API_KEY"),
        ({"uri": "http://me:abc@host"}, "TILED_API_KEY"),
        ({"container": "/"}, "container is empty"),
        ({"arrays": ("teacher",)}, "name 'mask'"),
        ({"arrays": ("mask", "other")}, "name 'mask'"),
        ({"arrays": ("mask", "mask")}, "each once"),
        ({"batch_rows": 0}, "batch_rows is 0"),
        ({"batch_seconds": 0.0}, "batch_seconds is 0.0"),
        ({"retry_wait": -1.0}, "retry_wait is -1.0"),
        ({"retry_longest": 0.1}, "retry_longest is 0.1"),
        ({"refused_wait": 0.0}, "refused_wait is 0.0"),
        ({"queue_bytes": -1}, "queue_bytes is -1"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(bad, hint):
    with pytest.raises(ProfileError, match=hint) as error:
        TiledOptions(**bad)
    assert "abc" not in str(error.value)


def test_options_can_be_read_from_a_profile():
    adapter = TypeAdapter(TiledOptions)
    options = adapter.validate_python({"batch_rows": 4, "arrays": ["mask", "student"]})
    assert options == TiledOptions(batch_rows=4, arrays=("mask", "student"))
    assert TiledOptions().arrays == ("mask", "valid_bits")
