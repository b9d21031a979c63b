"""Documents that are lost on the way: their frames are had from elsewhere, or booked as lost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bluesky.run_engine import RunEngine
from detectors_support import (
    FLAVOURS,
    IN_FILES,
    DatumDetector,
    Documents,
    InlineDetector,
    StreamDetector,
)
from ptychoseg_callbacks.frames.finder import FrameFinder
from ptychoseg_callbacks.frames.options import FinderOptions
from scans_support import MemoryStore, fly, found, numbers, recorded, step, without

from ptychoseg_stream.errors import DatasetError

IN_STREAMS = [name for name in IN_FILES if name.startswith("stream")]
IN_DATUMS = [name for name in IN_FILES if name.startswith("datum")]


def points_of(documents: Documents) -> Iterator[list[int]]:
    """Yield the places, in the list of documents, of those of one point after the other."""
    place: list[int] = []
    for n, (name, _) in enumerate(documents):
        if name in ("datum", "stream_datum", "event"):
            place.append(n)
        if name == "event":
            yield place
            place = []


def without_points(documents: Documents, *points: int) -> Documents:
    lost = [n for k, place in enumerate(points_of(documents)) if k in points for n in place]
    return [item for n, item in enumerate(documents) if n not in lost]


def refilled(frames: Any) -> list[str]:
    return [frame.refilled for frame in frames]


@pytest.mark.parametrize("points", [[0], [2], [1, 3, 4], [5], [4, 5], [0, 1, 2, 3, 4, 5]])
@pytest.mark.parametrize("flavour", IN_FILES)
def test_points_that_were_never_received_are_read_from_the_file(
    RE: RunEngine, tmp_path: Path, flavour: str, points: list[int]
) -> None:
    documents = recorded(RE, step(FLAVOURS[flavour](tmp_path), 6))
    frames, announced = found(without_points(documents, *points))
    per_event = len(frames) // 6
    assert len(frames) == announced == 6 * per_event
    assert [frame.seq_num for frame in frames] == [1 + n // per_event for n in range(len(frames))]
    if len(points) == 6:  # nothing says which file is meant
        assert all("never received" in frame.fault for frame in frames)
        return
    assert numbers(frames) == list(range(6 * per_event))
    assert refilled(frames) == [
        "file" if point in points else "" for point in range(6) for _ in range(per_event)
    ]


@pytest.mark.parametrize("points", [[0], [1, 3, 4], [4, 5], [0, 1, 2, 3, 4, 5]])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_points_without_a_file_come_from_the_store_or_are_booked_as_lost(
    RE: RunEngine, tmp_path: Path, flavour: str, points: list[int]
) -> None:
    documents = recorded(RE, step(FLAVOURS[flavour](tmp_path), 6))
    whole, _ = found(documents)
    left, away = without_points(documents, *points), {str(tmp_path): str(tmp_path / "nowhere")}
    lost, announced = found(left, root_map=away)
    assert len(lost) == announced == len(whole)
    per_event = len(lost) // 6
    for n, frame in enumerate(lost):
        if n // per_event in points:
            assert frame.image is None
            assert frame.fault.startswith("never received")
            assert frame.refilled == ""
    had, _ = found(left, MemoryStore(documents, whole), root_map=away)
    assert numbers(had) == numbers(whole)
    assert {frame.refilled for frame in had if frame.index // per_event in points} == {"tiled"}


@pytest.mark.parametrize("flavour", IN_STREAMS)
def test_indices_that_jump_betray_points_that_were_taken_again_and_lost(
    RE: RunEngine, tmp_path: Path, flavour: str
) -> None:
    plan = step(FLAVOURS[flavour](tmp_path), 6, checkpoint_every=3, pause_at=[5])
    documents = recorded(RE, plan)  # 1 2 3 4 5 4 5 6
    whole, _ = found(documents)
    per_event = len(whole) // 8
    for lost in ([5], [5, 6], [4, 5], [3, 4, 5], [6], [7], [6, 7]):
        frames, announced = found(without_points(documents, *lost))
        assert numbers(frames) == numbers(whole), lost
        assert announced == len(frames) == 8 * per_event, lost
        assert refilled(frames)[::per_event] == [
            "file" if point in lost else "" for point in range(8)
        ]


def test_scan_that_flies_is_whole_when_documents_are_lost(RE: RunEngine, tmp_path: Path) -> None:
    documents = recorded(RE, fly(StreamDetector(tmp_path, per_event=2), [3, 2, 4, 1]))
    datums = [n for n, (name, _) in enumerate(documents) if name == "stream_datum"]
    for lost in ([0], [1], [1, 2], [3], [0, 2, 3]):
        left = [item for n, item in enumerate(documents) if n not in [datums[k] for k in lost]]
        frames, announced = found(left)
        assert numbers(frames) == list(range(20)), lost
        assert announced == 20


@pytest.mark.parametrize("flavour", IN_DATUMS)
def test_datum_that_is_missed_is_found_by_its_number(
    RE: RunEngine, tmp_path: Path, flavour: str
) -> None:
    documents = recorded(RE, step(FLAVOURS[flavour](tmp_path), 4))
    datums = [doc for name, doc in documents if name == "datum"]
    for lost in ([1], [1, 2], [3]):
        left = without(documents, lambda _, doc, lost=lost: doc in [datums[k] for k in lost])
        frames, _ = found(left)
        assert numbers(frames) == list(range(len(frames))), lost
        assert set(refilled(frames)) == {""}
    frames, announced = found(without(documents, lambda _, doc: doc in datums))
    assert announced == len(frames)
    assert all("was missed" in frame.fault for frame in frames)


@pytest.mark.parametrize("flavour", IN_FILES)
def test_resource_that_is_missed_is_asked_for_once(
    RE: RunEngine, tmp_path: Path, flavour: str, caplog: pytest.LogCaptureFixture
) -> None:
    documents = recorded(RE, step(FLAVOURS[flavour](tmp_path), 4))
    whole, _ = found(documents)
    left = without(documents, lambda name, _: "resource" in name)
    store = MemoryStore(documents)
    frames, announced = found(left, store)
    assert numbers(frames) == numbers(whole)
    assert announced == len(whole)
    assert store.asked_for_notes == 1
    frames, announced = found(left)
    assert announced == len(frames) == len(whole)
    assert all("was missed" in frame.fault for frame in frames)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_descriptor_that_is_missed_is_asked_for_or_its_frames_are_booked_as_lost(
    RE: RunEngine, tmp_path: Path, flavour: str, caplog: pytest.LogCaptureFixture
) -> None:
    documents = recorded(RE, step(FLAVOURS[flavour](tmp_path), 4))
    whole, _ = found(documents)
    left = without(documents, lambda name, _: name == "descriptor")
    store = MemoryStore(documents)
    frames, announced = found(left, store)
    assert numbers(frames) == numbers(whole)
    assert announced == len(whole)
    assert store.asked_for_notes == 1
    frames, announced = found(left)
    assert announced == len(frames) == 4  # how many images an event has, nobody said
    assert all("never received" in frame.fault for frame in frames)
    assert caplog.text.count("descriptor") == 1


def test_run_of_which_only_its_ends_came_is_had_from_the_store(
    RE: RunEngine, tmp_path: Path
) -> None:
    documents = recorded(RE, step(InlineDetector(), 4))
    whole, _ = found(documents)
    frames, announced = found([documents[0], documents[-1]], MemoryStore(documents, whole))
    assert numbers(frames) == numbers(whole)
    assert announced == 4


def test_tail_in_a_shared_file_is_not_guessed_while_the_other_stream_lacks_points(
    RE: RunEngine, tmp_path: Path
) -> None:
    documents = recorded(RE, step(DatumDetector(tmp_path), 3, dark_at=[2]))  # 0 1 d d 2
    frames, announced = found(without_points(documents, 2, 3, 4))
    assert numbers(frames) == [0, 1, -1]
    assert announced == 3
    frames, _ = found(without_points(documents, 4))
    assert numbers(frames) == [0, 1, 4]


@pytest.mark.parametrize("flavour", IN_FILES)
def test_frames_of_a_stream_that_nobody_described_are_not_taken_for_ours(
    RE: RunEngine, tmp_path: Path, flavour: str
) -> None:
    documents = recorded(RE, step(FLAVOURS[flavour](tmp_path), 4, dark_at=[0, 2]))
    right = numbers(found(documents)[0])
    left = without(documents, lambda name, doc: name == "descriptor" and doc["name"] == "dark")
    last = next(n for n in reversed(range(len(left))) if left[n][0] == "event")
    for documents in (left, left[: last - 1] + left[-1:]):
        frames, announced = found(documents)
        assert announced == len(right)
        for here, there in zip(numbers(frames), right, strict=True):
            assert here in (-1, there)


def test_jump_that_cannot_be_is_refused_and_books_nothing(RE: RunEngine, tmp_path: Path) -> None:
    documents = recorded(RE, step(InlineDetector(), 3))
    finder = FrameFinder(documents[0][1], FinderOptions(max_gap=50))
    events = [doc for name, doc in documents if name == "event"]
    for name, doc in documents[:2]:
        assert list(finder.of(name, doc)) == []
    assert numbers(list(finder.of("event", events[0]))) == [0]
    for seq_num in (53, 10**12, 0, -1, 2.5, None, True, "2", 10**30):
        with pytest.raises(DatasetError, match="seq_num"):
            list(finder.of("event", {**events[1], "seq_num": seq_num}))
    assert numbers(list(finder.of("event", events[1]))) == [1]
    assert numbers(list(finder.of("event", {**events[2], "seq_num": 52}))) == [-1] * 49 + [2]


@pytest.mark.parametrize(
    "indices",
    [
        {"start": 10**12, "stop": 10**12 + 1},
        {"start": -1, "stop": 3},
        {"start": 5, "stop": 3},
        {"start": 0},
        {"start": 0.5, "stop": 3},
        {"start": None, "stop": None},
        [0, 3],
        None,
        {"start": 0, "stop": 10**12},
        {"start": 0, "stop": 1 << 62},
    ],
)
def test_indices_that_cannot_be_are_refused_and_the_next_ones_found(
    RE: RunEngine, tmp_path: Path, indices: Any
) -> None:
    documents = recorded(RE, fly(StreamDetector(tmp_path), [2, 2]))
    finder = FrameFinder(documents[0][1], FinderOptions(read_timeout=0.01))
    frames: list[Any] = []
    for name, doc in documents:
        if name == "stream_datum" and not frames:
            with pytest.raises(DatasetError):
                frames += finder.of(name, {**doc, "indices": indices})
        frames += finder.of(name, doc)
    finder.close()
    assert sorted(set(numbers(frames))) in ([0, 1, 2, 3], [-1, 0, 1, 2, 3])
    assert numbers(frames)[-2:] == [2, 3]


def test_stop_document_that_counts_what_cannot_be_books_nothing(
    RE: RunEngine, caplog: pytest.LogCaptureFixture
) -> None:
    documents = recorded(RE, step(InlineDetector(), 2))
    name, stop = documents.pop()
    for counts in (None, {}, 5, {"primary": -1}, {"primary": "2"}, {"primary": None}):
        frames, announced = found([*documents, (name, {**stop, "num_events": counts})])
        assert (len(frames), announced) == (2, -1)
    frames, announced = found([*documents, (name, {**stop, "num_events": {"primary": 10**12}})])
    assert (len(frames), announced) == (2, 10**12)  # the account says that this is not so
    assert "max_gap" in caplog.text
