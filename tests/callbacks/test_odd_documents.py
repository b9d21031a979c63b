"""Documents as they should not be: refused or lost, and the next one is read."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from detectors_support import watermarked
from documents_support import KEY, Documents, first_pixels, stack
from event_model import pack_event_page
from ptychoseg_callbacks.documents import dropped
from ptychoseg_callbacks.frames.finder import FinderOptions

from ptychoseg_stream.errors import DatasetError


def test_values_that_are_no_documents_are_refused_and_the_next_one_is_read(tmp_path: Path) -> None:
    """Each wrong document raises one kind of error at most, and leaves the finder as it was."""
    docs = Documents()
    good = docs.event(watermarked(0))
    wrong: list[tuple[str, Any]] = [
        (name, doc)
        for name in ("descriptor", "event", "event_page", "resource", "datum", "datum_page")
        for doc in ({}, None, 5, "text", [], {"uid": []}, {"descriptor": {}}, {"data": 5})
    ]
    wrong += [
        ("stream_resource", {"uid": {}}),
        ("stream_datum", {**docs.datum(tmp_path / "f.h5", 0, 1), "seq_nums": 5}),
        ("event", {**good, "data": {}}),
        ("event", {**good, "data": None}),
        ("event", {**good, "descriptor": ["a"]}),
        ("event_page", {**good, "seq_num": [1, 2], "uid": ["a"], "time": []}),
        ("datum", {"datum_id": 5, "resource": "a", "datum_kwargs": {}}),
        ("datum", {"datum_id": "a/0", "resource": "a", "datum_kwargs": 5}),
        ("descriptor", {**docs.stream.descriptor_doc, "uid": "other", "data_keys": 5}),
        ("unheard of", {}),
    ]
    for name, doc in wrong:
        with suppress(DatasetError):
            assert list(docs.finder.of(name, doc)) == [], (name, doc)
    (frame,) = docs.finder.of("event", good)
    assert (frame.index, frame.fault, first_pixels([frame])) == (0, "", [0])


@pytest.mark.parametrize(
    "shape",
    [
        [10**9, 10**9],
        [10**12, 12, 16],
        [-3, 12, 16],
        [12.5, "b"],
        "12",
        {"a": 1},
        None,
        [2**31] * 40,
        [None, None],
    ],
)
def test_shape_that_cannot_be_is_not_believed(shape: Any) -> None:
    docs = Documents({**KEY, "shape": shape}, data_keys=("image",))
    (lost,) = docs.finder.of("event", docs.event("datum/0"))
    assert lost.shape[0] * lost.shape[1] <= 12 * 16  # a row of it is made of that
    (frame,) = docs.finder.of("event", docs.event(watermarked(1)))
    assert (frame.index, frame.shape, first_pixels([frame])) == (1, (12, 16), [1])


@pytest.mark.parametrize(
    "dtype", ["O", "V8", "i4,f8", "(9999999,)i4", "garbage", 5, ["<u2"], "<M8[s]"]
)
def test_dtype_that_is_no_number_is_not_believed(dtype: Any) -> None:
    docs = Documents({**KEY, "dtype_numpy": dtype})
    (frame,) = docs.finder.of("event", docs.event(watermarked(3).tolist()))
    assert first_pixels([frame]) == [3]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.zeros((0, 16), np.uint16), "0 x 16 px"),
        (np.zeros((200, 200), np.uint16), "max_pixels"),
        (np.zeros((0, 12, 16), np.uint16), "0 images"),
        (dropped("no room", (10**12, 12, 16)), "no room"),
    ],
)
def test_image_of_a_size_that_is_not_taken_is_one_lost_frame(value: Any, says: str) -> None:
    docs = Documents(max_pixels=12 * 16)
    (frame,) = docs.finder.of("event", docs.event(value))
    assert frame.image is None
    assert says in frame.fault


def test_wrong_time_costs_no_frame() -> None:
    docs = Documents()
    for stamps in ({"image": float("nan")}, {"image": "noon"}, {"image": None}, None, {}):
        event = {**docs.event(watermarked(0)), "timestamps": stamps, "time": "noon"}
        (frame,) = docs.finder.of("event", event, arrived=3.0)
        assert frame.time == 3.0


def test_malformed_event_costs_none_of_the_others_of_its_page() -> None:
    docs = Documents()
    page = dict(pack_event_page(*(docs.event(watermarked(n)) for n in range(4))))
    page["seq_num"] = [1, None, 3, 4]
    frames: list[Any] = []
    with pytest.raises(DatasetError, match="seq_num"):
        frames += (frame for frame in docs.finder.of("event_page", page))
    assert [frame.image is None for frame in frames] == [False, True, False, False]
    assert "never received" in frames[1].fault


def test_column_of_a_page_that_was_dropped_whole_has_a_row_for_each_event() -> None:
    docs = Documents()
    page = dict(pack_event_page(*(docs.event(watermarked(n)) for n in range(3))))
    page["data"] = {"image": dropped("no room", (3, 12, 16))}
    frames = list(docs.finder.of("event_page", page))
    assert [frame.fault for frame in frames] == ["data key image was dropped: no room"] * 3


def test_open_files_are_few_however_many_resources_a_run_has(tmp_path: Path) -> None:
    docs = Documents()
    for n in range(30):
        with h5py.File(tmp_path / f"{n}.h5", "w", libver="latest") as file:
            file["frames"] = stack(1) + np.uint16(n)
        datum = docs.datum(tmp_path / f"{n}.h5", 0, 1)
        datum["seq_nums"] = {"start": n + 1, "stop": n + 2}
        (frame,) = docs.finder.of("stream_datum", datum)
        assert (frame.index, first_pixels([frame])) == (n, [n])
    here = [link for link in Path("/proc/self/fd").iterdir() if str(tmp_path) in _target(link)]
    assert len(here) <= 8
    docs.finder.close()


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""  # closed meanwhile


@pytest.mark.parametrize(("name", "value"), [("block", 0), ("max_gap", 0), ("refill_timeout", -1)])
def test_option_that_cannot_work_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}"):
        FinderOptions(**{name: value})
