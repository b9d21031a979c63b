"""Flavours that no detector of the other tests makes, and documents as they should not be."""

from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from detectors_support import watermarked
from documents_support import KEY, Documents, first_pixels, stack
from event_model import pack_datum_page, pack_event_page
from ptychoseg_callbacks.documents import dropped

from ptychoseg_stream.errors import DatasetError


def test_event_pages_are_read_event_by_event() -> None:
    docs = Documents()
    page = pack_event_page(*(docs.event(watermarked(n)) for n in range(4)))
    frames = list(docs.finder.of("event_page", page))
    assert first_pixels(frames) == [0, 1, 2, 3]
    assert [(frame.index, frame.seq_num) for frame in frames] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert [frame.time for frame in frames] == [12.5] * 4
    assert (frames[0].run, frames[0].stream, frames[0].data_key) == ("run", "primary", "image")


def test_lists_as_json_leaves_them_get_their_dtype_back() -> None:
    docs = Documents()
    (frame,) = docs.finder.of("event", docs.event(watermarked(3).tolist()))
    assert frame.image is not None
    assert frame.image.dtype == np.uint16
    np.testing.assert_array_equal(frame.image, watermarked(3))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([[1, 2], [3]], "does not hold numbers"),
        ([[70000, 1], [1, 1]], "does not hold numbers"),
        (np.arange(5), "shape (5,)"),
        (7.0, "shape ()"),
        (np.ones((12, 16), complex), "complex128"),
        (np.full((12, 16), "a"), "<U1"),
        (dropped("no room", (12, 16)), "was dropped: no room"),
    ],
)
def test_value_that_is_no_image_is_a_frame_that_says_so(value: Any, says: str) -> None:
    docs = Documents()
    (frame,) = docs.finder.of("event", docs.event(value))
    assert frame.image is None
    assert says in frame.fault
    assert "image" in frame.fault
    assert (frame.index, frame.shape) == (0, (12, 16))
    (good,) = docs.finder.of("event", docs.event(watermarked(1)))
    assert good.index == 1


def test_dropped_stack_keeps_the_number_of_its_frames() -> None:
    docs = Documents({**KEY, "shape": [3, 12, 16]})
    frames = list(docs.finder.of("event", docs.event(dropped("no room", (3, 12, 16)))))
    assert [frame.index for frame in frames] == [0, 1, 2]


def test_resource_that_nobody_reads_is_answered_by_frames_that_name_its_spec() -> None:
    docs = Documents({**KEY, "external": "FILESTORE:", "shape": [2, 12, 16]})
    resource = docs.run.compose_resource(
        spec="AD_UNHEARD_OF", root="/data", resource_path="x", resource_kwargs={}
    )
    datum = resource.compose_datum(datum_kwargs={"point_number": 0})
    assert list(docs.finder.of("resource", resource.resource_doc)) == []
    assert list(docs.finder.of("datum", datum)) == []
    frames = list(docs.finder.of("event", docs.event(datum["datum_id"], filled=False)))
    assert [frame.index for frame in frames] == [0, 1]
    assert all(frame.image is None for frame in frames)
    assert "AD_UNHEARD_OF" in frames[0].fault
    assert "databroker.handlers" in frames[0].fault


class Counter:
    """A handler as a facility would install it; makes images of numbers, not of a file."""

    def __init__(self, path: str, base: int) -> None:
        self.base = base

    def __call__(self, offset: int) -> np.ndarray:
        return watermarked(self.base + offset)


def test_handler_is_asked_with_the_arguments_of_the_datum_and_lost_events_are_had_of_it() -> None:
    docs = Documents({**KEY, "external": "FILESTORE:"}, handlers={"COUNTER": Counter})
    resource = docs.run.compose_resource(
        spec="COUNTER", root="/", resource_path="", resource_kwargs={"base": 40}
    )
    assert list(docs.finder.of("resource", resource.resource_doc)) == []
    frames: list[Any] = []
    for offset in (3, 1, 4, 1, 5):
        datum = resource.compose_datum(datum_kwargs={"offset": offset})
        assert list(docs.finder.of("datum", datum)) == []
        event = docs.event(datum["datum_id"], filled=False)
        if offset != 4:
            frames += docs.finder.of("event", event)
    assert first_pixels(frames) == [43, 41, 44, 41, 45]
    assert [frame.refilled for frame in frames] == ["", "", "file", "", ""]


def test_page_of_datums_may_come_before_all_events() -> None:
    docs = Documents({**KEY, "external": "FILESTORE:"}, handlers={"COUNTER": Counter})
    resource = docs.run.compose_resource(
        spec="COUNTER", root="/", resource_path="", resource_kwargs={"base": 0}
    )
    datums = [resource.compose_datum(datum_kwargs={"offset": n}) for n in range(5)]
    assert list(docs.finder.of("resource", resource.resource_doc)) == []
    assert list(docs.finder.of("datum_page", pack_datum_page(*datums))) == []
    events = [docs.event(datum["datum_id"], filled=False) for datum in datums]
    frames = list(docs.finder.of("event_page", pack_event_page(*events)))
    assert first_pixels(frames) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("shape", "dtype", "found"),
    [
        ([104, 104], "array", True),
        ([5, 104, 104], "array", True),
        ([None, None], "array", True),
        ([1000], "array", False),
        ([2, 1000], "array", False),
        ([104, 104, 3], "array", False),
        ([], "number", False),
        ([104, 104], "string", False),
    ],
)
def test_only_keys_that_look_like_images_are_taken(shape: Any, dtype: str, found: bool) -> None:
    docs = Documents({"source": "test", "dtype": dtype, "shape": shape})
    assert len(list(docs.finder.of("event", docs.event(watermarked(0))))) == int(found)


def test_long_datum_is_read_in_blocks_as_frames_are_taken(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["frames"] = stack(20)
    docs = Documents()
    datum = docs.datum(tmp_path / "f.h5", 0, 10**12)
    frames = docs.finder.of("stream_datum", datum, arrived=7.0)
    taken = list(islice(frames, 20))
    assert first_pixels(taken) == list(range(20))
    assert {frame.image.base.shape[0] for frame in taken if frame.image is not None} == {16, 4}
    assert taken[0].time == 7.0
    with pytest.raises(DatasetError, match=r"frame 20 is not there.*max_gap"):
        list(frames)
    rest = {**datum, "indices": {"start": 20, "stop": 22}, "seq_nums": {"start": 21, "stop": 23}}
    frames = docs.finder.of("stream_datum", rest)  # not there either, and nothing before them
    assert [(f.index, f.seq_num, f.attempt) for f in frames] == [(20, 21, 0), (21, 22, 0)]
    docs.finder.close()


def test_grid_of_images_in_one_event_is_a_series_of_frames() -> None:
    docs = Documents({**KEY, "shape": [2, 3, 12, 16]})
    for value in (stack(6).reshape(2, 3, 12, 16), stack(6).reshape(2, 3, 12, 16).tolist()):
        frames = list(docs.finder.of("event", docs.event(value)))
        assert first_pixels(frames) == list(range(6))
        assert {frame.shape for frame in frames} == {(12, 16)}
    assert frames[-1].index == 11


@pytest.mark.parametrize(("shape", "per"), [((8, 2, 12, 16), 2), ((16, 12, 16), 2)])
def test_several_frames_per_event_are_rows_or_a_dimension_of_the_file(
    tmp_path: Path, shape: tuple[int, ...], per: int
) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["frames"] = stack(16).reshape(shape)
    docs = Documents({**KEY, "shape": [per, 12, 16], "external": "STREAM:"})
    frames = list(docs.finder.of("stream_datum", docs.datum(tmp_path / "f.h5", 3, 6)))
    assert first_pixels(frames) == list(range(12))
    assert [frame.seq_num for frame in frames] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.refilled for frame in frames] == ["file"] * 6 + [""] * 6
    docs.finder.close()


def test_frame_of_a_file_says_which_row_of_what_it_is_even_if_it_cannot_be_read(
    tmp_path: Path,
) -> None:
    """Only where row i of the file is frame i: frames of a second file do not claim that."""
    for name in ("one.h5", "two.h5"):
        with h5py.File(tmp_path / name, "w", libver="latest") as file:
            file["frames"] = stack(3)
    docs = Documents(block=2)
    origins = [
        frame.origin
        for frame in docs.finder.of("stream_datum", docs.datum(tmp_path / "one.h5", 0, 5))
    ]
    assert origins == [f"{tmp_path / 'one.h5'}:/frames"] * 5  # the last two are not there
    second = docs.finder.of("stream_datum", docs.datum(tmp_path / "two.h5", 0, 3))
    assert [(frame.index, frame.origin) for frame in second] == [(5, ""), (6, ""), (7, "")]


def test_frames_of_a_missing_file_say_where_it_should_be(tmp_path: Path) -> None:
    docs = Documents()
    (frame,) = docs.finder.of("stream_datum", docs.datum(tmp_path / "gone.h5", 0, 1))
    assert frame.image is None
    assert frame.origin == f"{tmp_path / 'gone.h5'}:/frames"


def test_frame_of_an_event_has_no_origin() -> None:
    docs = Documents()
    (frame,) = docs.finder.of("event", docs.event(watermarked(3)))
    assert frame.origin == ""


def test_stream_datum_whose_resource_was_missed_is_told_once_and_its_frames_are_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    docs = Documents()
    frames: list[Any] = []
    for start in (0, 2):
        datum = docs.datum(tmp_path / "f.h5", start, start + 2)
        frames += docs.finder.of("stream_datum", {**datum, "stream_resource": "unheard of"})
    assert [(frame.index, frame.image) for frame in frames] == [(n, None) for n in range(4)]
    assert all("unheard of was missed" in frame.fault for frame in frames)
    assert caplog.text.count("unheard of was missed") == 1


def test_compressed_frames_of_a_detector_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("frames", data=stack(3), **hdf5plugin.Bitshuffle(cname="lz4"))
    docs = Documents()
    frames = list(docs.finder.of("stream_datum", docs.datum(tmp_path / "f.h5", 0, 3)))
    assert first_pixels(frames) == [0, 1, 2]
    docs.finder.close()


def test_folder_is_looked_for_where_it_is_mounted_here(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    with h5py.File(tmp_path / "here" / "f.h5", "w") as file:
        file["frames"] = stack(2)
    docs = Documents(root_map={"/detector/share": str(tmp_path / "here")})
    frames = docs.finder.of("stream_datum", docs.datum(Path("/detector/share/f.h5"), 0, 2))
    assert first_pixels(frames) == [0, 1]
    docs.finder.close()
