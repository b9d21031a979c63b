"""Flavours that no detector of the other tests makes, and files as they are found."""

import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from callbacks_support import watermarked
from event_model import compose_run, pack_event_page
from ptychoseg_callbacks.documents import dropped
from ptychoseg_callbacks.frames import FinderOptions, FrameFinder
from ptychoseg_callbacks.readers import SwmrReader, local_path

from ptychoseg_stream.errors import DatasetError

KEY = {"source": "test", "dtype": "array", "shape": [12, 16], "dtype_numpy": "<u2"}


class Documents:
    """One run with one stream, its images under the key `image`."""

    def __init__(self, key: dict[str, Any] | None = None, **options: Any) -> None:
        self.run = compose_run(uid="run")
        self.keys = {"image": key or KEY}
        self.stream = self.run.compose_descriptor(name="primary", data_keys=self.keys)
        self.finder = FrameFinder(self.run.start_doc, FinderOptions(read_timeout=0.02, **options))
        assert list(self.finder.of("descriptor", self.stream.descriptor_doc)) == []

    def event(self, value: Any, filled: bool = True) -> dict[str, Any]:
        return dict(
            self.stream.compose_event(
                data={"image": value},
                timestamps={"image": 12.5},
                filled={"image": filled},
                validate=False,
            )
        )

    def datum(self, path: Path, start: int, stop: int, **parameters: Any) -> Any:
        bundle = self.run.compose_stream_resource(
            mimetype="application/x-hdf5",
            uri=path.as_uri(),
            data_key="image",
            parameters={"dataset": "/frames", **parameters},
        )
        assert list(self.finder.of("stream_resource", bundle.stream_resource_doc)) == []
        return bundle.compose_stream_datum(
            indices={"start": start, "stop": stop},
            seq_nums={"start": start + 1, "stop": stop + 1},
            descriptor=self.stream.descriptor_doc,
        )


def stack(frames: int) -> np.ndarray:
    return np.stack([watermarked(n) for n in range(frames)])


def first_pixels(frames: Any) -> list[int]:
    return [int(frame.image[0, 0]) for frame in frames]


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


def test_resource_and_datum_are_answered_by_frames_that_name_them() -> None:
    docs = Documents({**KEY, "external": "FILESTORE:", "shape": [2, 12, 16]})
    resource = docs.run.compose_resource(
        spec="AD_TIFF", root="/data", resource_path="x", resource_kwargs={}
    )
    datum = resource.compose_datum(datum_kwargs={"point_number": 0})
    assert list(docs.finder.of("resource", resource.resource_doc)) == []
    assert list(docs.finder.of("datum", datum)) == []
    frames = list(docs.finder.of("event", docs.event(datum["datum_id"], filled=False)))
    assert [frame.index for frame in frames] == [0, 1]
    assert all(frame.image is None for frame in frames)
    assert "AD_TIFF" in frames[0].fault
    assert "not supported yet" in frames[0].fault


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
    frames = docs.finder.of("stream_datum", docs.datum(tmp_path / "f.h5", 0, 10**12), arrived=7.0)
    taken = list(islice(frames, 22))
    assert first_pixels(taken[:20]) == list(range(20))
    assert {frame.image.base.shape[0] for frame in taken[:20] if frame.image is not None} == {16, 4}
    assert [frame.image is None for frame in taken[20:]] == [True, True]
    assert taken[0].time == 7.0
    docs.finder.close()


@pytest.mark.parametrize(("shape", "per"), [((8, 2, 12, 16), 2), ((16, 12, 16), 2)])
def test_several_frames_per_event_are_rows_or_a_dimension_of_the_file(
    tmp_path: Path, shape: tuple[int, ...], per: int
) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["frames"] = stack(16).reshape(shape)
    docs = Documents({**KEY, "shape": [per, 12, 16], "external": "STREAM:"})
    frames = list(docs.finder.of("stream_datum", docs.datum(tmp_path / "f.h5", 3, 6)))
    assert first_pixels(frames) == [6, 7, 8, 9, 10, 11]
    assert [frame.seq_num for frame in frames] == [4, 4, 5, 5, 6, 6]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4, 5]
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


def test_stream_datum_whose_resource_was_missed_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    docs = Documents()
    datum = {**docs.datum(tmp_path / "f.h5", 0, 1), "stream_resource": "unheard of"}
    assert list(docs.finder.of("stream_datum", datum)) == []
    assert list(docs.finder.of("stream_datum", datum)) == []
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


def test_uris_become_paths() -> None:
    root_map = {"/a": "/x", "/a/b/": "/y/"}
    assert local_path("file://localhost/a/c%20d.h5", root_map) == "/x/c d.h5"
    assert local_path("file:///a/b/c.h5", root_map) == "/y/c.h5"
    assert local_path("file://some.host/ab/c.h5", root_map) == "/ab/c.h5"
    assert local_path("/a/plain 100%25.h5", root_map) == "/x/plain 100%25.h5"
    with pytest.raises(DatasetError, match="only file://"):
        local_path("http://host/a.h5", root_map)


_WRITER = """
import sys, h5py, numpy
file = h5py.File(sys.argv[1], "w", libver="latest")
data = file.create_dataset("frames", (0, 12, 16), "u2", maxshape=(None, 12, 16), chunks=(1, 12, 16))
file.swmr_mode = True
for line in sys.stdin:
    data.resize(len(data) + 1, axis=0)
    data[-1] = len(data) - 1
    data.flush()
    print("written", flush=True)
"""


def test_file_that_another_process_is_writing_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "growing.h5"
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None

        def write() -> None:
            print("one more", file=writer.stdin, flush=True)

        reader = SwmrReader(str(path), "/frames", timeout=20.0)
        write()
        assert first(reader.read(0, 1)) == [0]
        writer.stdout.readline()
        later = threading.Timer(0.1, write)
        later.start()
        assert first(reader.read(0, 2)) == [0, 1]  # announced before it was written
        later.join()
        reader.close()
        writer.stdin.close()


def first(frames: np.ndarray) -> list[int]:
    return frames[:, 0, 0].tolist()


def test_missing_file_costs_one_timeout_and_is_found_when_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "late.h5"
    slept: list[float] = []
    reader = SwmrReader(str(path), "frames", timeout=0.2, sleep=slept.append)
    for _ in range(3):
        with pytest.raises(DatasetError, match=r"late\.h5:frames.*root_map"):
            reader.read(0, 1)
        assert sum(slept) == pytest.approx(0.2)
    with h5py.File(path, "w") as file:
        file["frames"] = stack(2)
    assert first(reader.read(0, 2)) == [0, 1]
    assert first(reader.read(1, 5)) == [1]
    assert sum(slept) == pytest.approx(0.4)  # patient again
    reader.close()


@pytest.mark.parametrize("content", ["group", "image", "text"])
def test_dataset_that_is_no_stack_of_images_is_refused_by_name(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "odd.h5"
    if content == "text":
        path.write_text("not HDF5")
    else:
        with h5py.File(path, "w") as file:
            if content == "group":
                file.create_group("frames")
            else:
                file["frames"] = watermarked(0)
    reader = SwmrReader(str(path), "frames", timeout=0.01)
    with pytest.raises(DatasetError, match=r"odd\.h5:frames"):
        reader.read(0, 1)
    reader.close()
