"""Real scans with each way of carrying images: the right image is found for each index."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky.run_engine import RunEngine
from detectors_support import FLAVOURS, IN_FILES, DatumDetector, StreamDetector, watermarked
from scans_support import MemoryStore, fly, found, numbers, recorded, step


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_each_image_of_a_scan_is_found_as_it_was_taken(
    RE: RunEngine, tmp_path: Path, flavour: str
) -> None:
    documents = recorded(RE, step(FLAVOURS[flavour](tmp_path), 5))
    frames, announced = found(documents)
    per_event = len(frames) // 5
    assert numbers(frames) == list(range(5 * per_event))
    assert announced == len(frames)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert [frame.seq_num for frame in frames] == [1 + n // per_event for n in range(len(frames))]
    assert {(frame.attempt, frame.refilled, frame.fault) for frame in frames} == {(0, "", "")}
    for n, frame in enumerate(frames):  # neither flipped nor transposed
        np.testing.assert_array_equal(frame.image, watermarked(n))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_points_that_are_taken_again_are_marked_and_the_earlier_ones_kept(
    RE: RunEngine, tmp_path: Path, flavour: str
) -> None:
    plan = step(FLAVOURS[flavour](tmp_path), 8, checkpoint_every=3, pause_at=[5, 7])
    frames, announced = found(recorded(RE, plan))
    per_event = len(frames) // 11
    assert announced == len(frames) == 11 * per_event
    assert numbers(frames) == list(range(len(frames)))
    firsts = frames[::per_event]
    assert [frame.seq_num for frame in firsts] == [1, 2, 3, 4, 5, 4, 5, 6, 7, 7, 8]
    assert [frame.attempt for frame in firsts] == [0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0]
    assert [frame.attempt for frame in frames[per_event - 1 :: per_event]] == [
        frame.attempt for frame in firsts
    ]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_dark_frames_in_the_same_file_are_left_out(
    RE: RunEngine, tmp_path: Path, flavour: str
) -> None:
    plan = step(FLAVOURS[flavour](tmp_path), 4, dark_at=[0, 2])
    documents = recorded(RE, plan)
    frames, announced = found(documents)
    per_event = len(frames) // 4
    events = [2, 3, 6, 7]  # 0, 1 and 4, 5 are dark
    wanted = [event * per_event + n for event in events for n in range(per_event)]
    assert numbers(frames) == wanted
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert announced == len(frames)
    dark, announced = found(documents, streams=("dark",))
    events = [0, 1, 4, 5]
    assert numbers(dark) == [event * per_event + n for event in events for n in range(per_event)]
    assert announced == len(dark)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_images_labelled_before_are_neither_read_nor_converted(
    RE: RunEngine, tmp_path: Path, flavour: str
) -> None:
    documents = recorded(RE, step(FLAVOURS[flavour](tmp_path), 4))
    frames, announced = found(documents, skip_before=10**9)
    assert announced == len(frames) >= 4
    assert {frame.fault for frame in frames} == {"labelled before"}
    assert all(frame.image is None for frame in frames)
    known = 2 if len(frames) == 4 else 5
    frames, _ = found(documents, skip_before=known)
    assert numbers(frames) == [-1] * known + list(range(known, len(frames)))


def test_files_of_frames_labelled_before_need_not_be_there(RE: RunEngine, tmp_path: Path) -> None:
    documents = recorded(RE, step(StreamDetector(tmp_path), 3))
    for path in tmp_path.iterdir():
        path.unlink()
    frames, _ = found(documents, skip_before=3)
    assert {frame.fault for frame in frames} == {"labelled before"}


@pytest.mark.parametrize(("per_event", "tiff"), [(1, False), (3, False), (2, True)])
def test_scans_that_fly_announce_what_they_took(
    RE: RunEngine, tmp_path: Path, per_event: int, tiff: bool
) -> None:
    detector = StreamDetector(tmp_path, per_event=per_event, tiff=tiff)
    documents = recorded(RE, fly(detector, [3, 1, 4]))
    assert not any(name == "event" for name, _ in documents)
    frames, announced = found(documents)
    assert numbers(frames) == list(range(8 * per_event))
    assert announced == 8 * per_event
    assert [frame.seq_num for frame in frames] == [1 + n // per_event for n in range(len(frames))]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_of_two_detectors_the_one_that_was_asked_for_is_found(
    RE: RunEngine, tmp_path: Path, flavour: str
) -> None:
    one, two = FLAVOURS[flavour](tmp_path), FLAVOURS[flavour](tmp_path)
    two.name, two.count = "other", 100

    @bpp.stage_decorator([one, two])
    @bpp.run_decorator()
    def plan() -> Iterator[Any]:
        for _ in range(3):
            yield from bps.trigger_and_read([one, two])

    documents = recorded(RE, plan())
    for key, first in (("det_image", 0), ("other_image", 100)):
        frames, announced = found(documents, data_keys=(key,))
        assert numbers(frames) == [first + n for n in range(len(frames))]
        assert announced == len(frames) >= 3


def test_a_run_that_ends_right_after_it_went_back_is_not_counted(
    RE: RunEngine, tmp_path: Path
) -> None:
    """Its stop document counts fewer events than were taken, and no frame is invented."""
    documents = recorded(RE, step(DatumDetector(tmp_path), 6))
    name, stop = documents[-1]
    documents[-1] = (name, {**stop, "num_events": {"primary": 4}})
    frames, announced = found(documents)
    assert numbers(frames) == list(range(6))
    assert announced == -1


@pytest.mark.parametrize("flavour", IN_FILES)
def test_images_of_files_that_are_not_here_come_from_the_store(
    RE: RunEngine, tmp_path: Path, flavour: str
) -> None:
    documents = recorded(RE, step(FLAVOURS[flavour](tmp_path), 3))
    frames, _ = found(documents)
    away = {str(tmp_path): str(tmp_path / "not mounted")}
    lost, announced = found(documents, root_map=away)
    assert {frame.image is None for frame in lost} == {True}
    assert len(lost) == announced == len(frames)
    had, _ = found(documents, MemoryStore(documents, frames), root_map=away)
    assert numbers(had) == numbers(frames)
    assert {frame.refilled for frame in had} == {"tiled"}
