"""The arrays of a run: class maps, valid bits, confidence; in Tiled, in a file, in memory."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sinks_support import account_of, bits_of, mask_of, masks_of, read_file, run_info

from ptychoseg_stream.errors import StoreError
from ptychoseg_stream.science.frame import ClassCode, ValidBit, bit_legend, legend
from ptychoseg_stream.sinks.arrays import ARRAYS, nbytes, stack
from ptychoseg_stream.sinks.derived import array_keys
from ptychoseg_stream.sinks.hdf5 import HDF5Sink
from ptychoseg_stream.sinks.memory import MemorySink
from ptychoseg_stream.sinks.rows import Row, fitted, lost_row, table

ALL = ("mask", "valid_bits", "confidence", "student")
SURE = np.full((6, 8), 250, np.uint8)


def full_mask(index: int, **more):
    return mask_of(index, valid_bits=bits_of(index), confidence=SURE, **more)


def lost():
    return mask_of(1, classes=np.empty((0, 0), np.uint8), source="none", status="lost")


def test_a_frame_of_which_nothing_is_known_is_never_all_good():
    row = fitted(Row(lost(), 0.0), (6, 8))
    assert (stack([row], "valid_bits", (6, 8)) == ValidBit.GAP).all()
    assert (stack([row], "confidence", (6, 8)) == 0).all()
    assert (stack([row], "mask", (6, 8)) == ClassCode.INVALID).all()
    assert table([row], ("mask",))["invalid_pixels"].to_pylist() == [48]


def test_bits_and_confidence_keep_their_values_and_types():
    block = stack([Row(full_mask(3), 0.0)], "valid_bits", (6, 8))
    assert block.dtype == np.uint16
    assert np.array_equal(block[0], bits_of(3))
    assert stack([Row(full_mask(3), 0.0)], "confidence", (6, 8)).dtype == np.uint8


def test_bits_of_another_size_are_no_bits():
    odd = mask_of(0, valid_bits=np.zeros((3, 3), np.uint16))
    row = fitted(Row(odd, 0.0), (6, 8))
    assert (stack([row], "valid_bits", (6, 8)) == ValidBit.GAP).all()
    assert table([row], ("mask",))["invalid_pixels"].to_pylist() == [48]
    assert np.array_equal(row.mask.classes, odd.classes)


def test_the_table_counts_pixels_that_must_not_be_used_and_those_hit_by_cosmics():
    columns = table([Row(full_mask(0), 0.0)], ("mask",)).to_pydict()
    assert columns["invalid_pixels"] == [9]
    assert columns["cosmic_pixels"] == [1]


def test_the_size_of_a_mask_is_that_of_all_its_arrays():
    assert nbytes(mask_of(0)) == 48
    assert nbytes(full_mask(0)) == 48 * 4
    assert nbytes(full_mask(0, alternatives={"student": SURE})) == 48 * 5


def test_data_keys_name_the_type_of_each_array():
    keys = array_keys(ALL, (6, 8))
    types = {name: key["dtype_numpy"] for name, key in keys.items()}
    assert types == {"mask": "|u1", "valid_bits": "<u2", "confidence": "|u1", "student": "|u1"}


def test_tiled_stores_them_side_by_side_each_with_its_legend(root, options, make_sink):
    sink = make_sink(replace(options, arrays=ALL))
    sink.open(run_info())
    sink.write("raw-1", [full_mask(index) for index in range(20)])
    assert sink.drain(30)
    sink.write("raw-1", [mask_of(20), full_mask(22)])  # one without bits, one never announced
    sink.close("raw-1", account_of(23))
    assert sink.drain(30)
    stream = root[options.container][sink.derived_uid("raw-1")]["primary"]
    bits, confidence = stream.base["valid_bits"], stream.base["confidence"]
    assert {name: stream.base[name].dtype.str for name in ALL} == {
        "mask": "|u1",
        "valid_bits": "<u2",
        "confidence": "|u1",
        "student": "|u1",
    }
    wanted = [bits_of(index) for index in range(20)] + [np.ones((6, 8))] * 2 + [bits_of(22)]
    assert np.array_equal(bits.read(), wanted)
    assert confidence.read()[:, 0, 0].tolist() == [250] * 20 + [0, 0, 250]
    assert stream.base["mask"].metadata["class_codes"] == legend()
    assert bits.metadata["bit_legend"] == bit_legend()
    assert "class_codes" not in bits.metadata
    assert "coin" in confidence.metadata["meaning"]
    assert bits.metadata["dtype_numpy"] == "<u2"
    dataset = stream.read()
    assert dict(dataset.sizes) == {"time": 23, "y": 6, "x": 8}
    assert dataset["valid_bits"].dtype == np.uint16
    assert dataset["invalid_pixels"].values.tolist() == [9] * 20 + [48, 48, 9]
    start = root[options.container][sink.derived_uid("raw-1")].start
    assert start["bit_legend"] == bit_legend()


def test_a_file_stores_them_and_holes_are_gaps(tmp_path):
    sink = HDF5Sink(tmp_path, arrays=("mask", "valid_bits", "confidence"))
    sink.open(run_info())
    sink.write("raw-1", [full_mask(0), full_mask(2)])
    sink.close("raw-1", account_of(2))
    sink.shutdown()
    content = read_file(sink.address("raw-1"))
    assert content["valid_bits"].dtype == np.uint16
    assert np.array_equal(content["valid_bits"], [bits_of(0), np.ones((6, 8)), bits_of(2)])
    assert content["confidence"][:, 0, 0].tolist() == [250, 0, 250]
    assert content["invalid_pixels"] == [9, 48, 9]
    assert json.loads(content["bit_legend"]) == bit_legend()


def test_bits_that_wait_for_the_server_count_against_the_queue(options, make_sink):
    sink = make_sink(replace(options, queue_bytes=48 * 10, batch_seconds=60.0))
    sink.open(run_info())
    for index in range(2):
        sink.write("raw-1", masks_of([2 * index, 2 * index + 1], valid_bits=bits_of(0)))
    assert "too slow" in " ".join(sink._runs["raw-1"].told)
    sink.close("raw-1", account_of(4))
    assert sink.drain(30)


def test_memory_gives_bits_and_confidence_like_tiled():
    sink = MemorySink()
    sink.open(run_info())
    sink.write("raw-1", [full_mask(0), mask_of(1)])
    bits = sink.stack("raw-1", "valid_bits")
    assert bits.dtype == np.uint16
    assert np.array_equal(bits, [bits_of(0), np.ones((6, 8))])
    assert sink.stack("raw-1", "confidence")[:, 0, 0].tolist() == [250, 0]
    with pytest.raises(StoreError, match="no array 'colour': ask for one of mask, "):
        sink.stack("raw-1", "colour")
    assert set(ARRAYS) >= set(ALL)


def test_a_frame_that_was_never_announced_has_no_bits():
    row = fitted(lost_row(mask_of(0).frame, 1, 2.0), (6, 8))
    assert row.mask.valid_bits is None
    assert table([row], ("mask",))["cosmic_pixels"].to_pylist() == [0]


def test_the_volume_for_viewers_is_signed_and_below_zero_where_there_is_no_class(
    root, options, make_sink
):
    sink = make_sink(replace(options, arrays=("mask", "class_volume")))
    sink.open(run_info())
    sink.write("raw-1", [*masks_of([0]), lost(), *masks_of([2])])
    sink.close("raw-1", account_of(3, written=2, lost=1))
    assert sink.drain(30)
    stream = root[options.container][sink.derived_uid("raw-1")]["primary"].base
    volume, mask = stream["class_volume"].read(), stream["mask"].read()
    assert volume.dtype == np.int8
    assert (volume[1] == -1).all()
    assert np.array_equal(volume[[0, 2]], mask[[0, 2]].astype(np.int8))
    assert stream["class_volume"].metadata["class_codes"]["-1"] == "invalid"
