"""A row of a stored run made again: it must come out the same, and must tell if it does not."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beams import QUICK, annulus
from stored_runs import LENIENT, Stored, profile_of, stored

from ptychoseg_stream.errors import CentroidsError, DatasetError
from ptychoseg_stream.evaluation.reproduce import Comparison, Recipe, reproduce
from ptychoseg_stream.node.store import FolderStore
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.sinks.arrays import ARRAYS


def recipe(
    run: Stored, folder: Path, *, students: bool = True, centroids: bool = True, **more: Any
) -> Recipe:
    """As the store in `folder` has it, without students or centroids if they are not wanted."""
    store = FolderStore(folder / "cache")

    def student(student_hash: str) -> Any:
        try:
            return store.find_student(student_hash).student if students else None
        except CentroidsError:
            return None

    used = next(mask.centroids_hash for mask in run.masks if mask.centroids_hash)
    kept = store.centroids_of(used) if centroids else None
    return Recipe(more.pop("options", profile_of(folder).node), kept, student, **more)


def again(run: Stored, row: int, made_of: Recipe, frames: Any = None) -> Comparison:
    with run.open() as recorded:
        return reproduce(recorded, row, run.frames if frames is None else frames, made_of)


@pytest.fixture(scope="module")
def frames(strong):
    """Twelve frames; one is all NaN, one is dark."""
    images = [f.astype(np.float32) for f in strong.frames[:12]]
    images[2] = np.full((104, 104), np.nan, np.float32)
    images[3] = np.zeros((104, 104), np.float32)
    return images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def run(folder, frames) -> Stored:
    """Frames 2 and 3 are refused, 5 is lost; students learn at 0, 4 and 6."""
    return stored(folder, frames, lost=(5,))


# --- the same again -------------------------------------------------------------------------------


@pytest.mark.parametrize("students", [True, False], ids=["kept", "learned again"])
@pytest.mark.parametrize("row", [0, 1, 3, 4, 11])
def test_all_arrays_of_a_row_come_out_the_same_bit_by_bit(run, folder, row, students):
    found = again(run, row, recipe(run, folder, students=students))
    assert found.identical
    assert found.differing == dict.fromkeys(ARRAYS, 0)
    assert found.notes == ()
    assert found.pixels == 104 * 104
    assert found.source == run.masks[row].source
    assert found.student_hash == run.masks[row].student_hash
    assert found.learned_again == (found.student_hash != "" and not students)


def test_centroids_that_are_not_kept_are_fitted_anew_where_they_were_fitted(run, folder):
    found = again(run, 8, recipe(run, folder, students=False, centroids=False))
    assert found.identical
    assert found.notes == ()


def test_a_lost_frame_is_not_looked_at_though_it_is_in_the_file_now(run, folder, frames):
    other = [*frames]
    other[5] = frames[0] * 7
    assert again(run, 11, recipe(run, folder, students=False), other).identical


def test_frames_after_the_row_are_not_needed(run, folder, frames):
    assert again(run, 6, recipe(run, folder), frames[:7]).identical


def test_each_frame_is_told(run, folder, frames):
    told: list[int] = []
    with run.open() as recorded:
        reproduce(recorded, 3, frames, recipe(run, folder), told.append)
    assert told == [0, 1, 2, 3]


@pytest.mark.parametrize("students", [True, False], ids=["kept", "learned again"])
def test_run_whose_students_learned_beside_the_stream_comes_out_the_same(
    tmp_path, strong, students
):
    """Three stages are learned before the first student is taken over: it is the third."""
    profile = replace(profile_of(tmp_path, stages=(0, 1, 2)), trainer="background")

    def before(index: int, node: Any) -> None:
        if index == 6:
            while node.progress().stage < 2 or node.progress().training:
                time.sleep(0.01)  # pytest's timeout ends a test that fails here

    frames = strong.frames[:9]
    run = stored(tmp_path, frames, profile, before=before)
    revisions = [mask.student_revision for mask in run.masks]
    assert revisions[-3:] == [2, 2, 2]
    assert revisions[0] == -1  # the first frame did not wait
    made_of = recipe(run, tmp_path, students=students, options=profile.node)
    for row in (0, 6, 8):
        found = again(run, row, made_of)
        assert found.identical
        assert found.notes == ()


def test_frames_refused_before_there_were_centroids_are_refused_again(tmp_path, strong):
    """The centroids that are kept now could label them."""
    profile = profile_of(tmp_path, fit_on=2)
    run = stored(tmp_path, strong.frames[:8], profile)
    assert [mask.status for mask in run.masks[:3]] == ["refused", "refused", "ok"]
    for row in (1, 7):
        assert again(run, row, recipe(run, tmp_path, options=profile.node)).identical


def test_centroids_of_an_earlier_run_are_taken_from_its_cache(tmp_path, scan, strong):
    stored(tmp_path, scan.frames[:1])
    run = stored(tmp_path, strong.frames[:6])
    made_of = recipe(run, tmp_path)
    assert again(run, 5, made_of).identical
    without = again(run, 5, replace(made_of, centroids=None))
    assert not without.identical
    assert without.notes[0].startswith("the centroids fitted on frame 0 are ")
    assert "--cache" in without.notes[0]


def test_users_pixel_mask_is_part_of_the_recipe(tmp_path, strong):
    user = np.zeros((104, 104), np.uint8)
    user[45:60, 40:62] = 1
    np.save(tmp_path / "bad.npy", user)
    profile = replace(profile_of(tmp_path), pixel_mask=str(tmp_path / "bad.npy"))
    run = stored(tmp_path, strong.frames[:5], profile)
    made_of = recipe(run, tmp_path, user=user != 0)
    assert again(run, 4, made_of).identical
    without = again(run, 4, replace(made_of, user=None))
    assert without.differing["valid_bits"] >= 15 * 22


def rings(*large: bool) -> list[Any]:
    """Frames of a small ring, or a large one."""
    small, wide = (annulus((64, 64), (32, 32), a, b) for a, b in ((6, 12), (8, 14)))
    rng = np.random.default_rng(0)
    means = (np.where(wide if is_large else small, 80.0, 0.2) for is_large in large)
    return [rng.poisson(mean).astype(np.uint16) for mean in means]


def test_ladder_that_begins_anew_after_an_alarm_does_so_again(tmp_path):
    profile = profile_of(tmp_path, stages=(0, 2))
    frames = rings(*[False] * 8, *[True] * 8)
    run = stored(tmp_path, frames, profile)
    actions = [alarm.action for mask in run.masks for alarm in mask.alarms]
    assert "restart" in actions
    assert [r.stage for mask in run.masks for r in mask.stages] == [0, 1, 2, 3]
    made_of = recipe(run, tmp_path, students=False, options=profile.node)
    for row in (12, 15):
        found = again(run, row, made_of)
        assert found.identical
        assert found.notes == ()


def test_window_that_follows_the_beam_of_large_frames_does_so_again(tmp_path):
    rng = np.random.default_rng(0)
    rings = (annulus((300, 300), (80 + y, 90), 8, 18) for y in (0, 0, 0, 0, 14, 28, 42, 56))
    frames = [rng.poisson(np.where(ring, 60.0, 0.2)).astype(np.uint16) for ring in rings]
    profile = profile_of(tmp_path, stages=(0, 2))
    run = stored(tmp_path, frames, profile)
    assert "window" in [alarm.monitor for mask in run.masks for alarm in mask.alarms]
    found = again(run, 7, recipe(run, tmp_path, students=False, options=profile.node))
    assert found.identical
    assert found.notes == ()


def test_student_after_one_that_was_refused_is_learned_again(tmp_path, strong):
    """It begins from the one before the refused one. Whether one is refused is up to the seed."""
    picky = replace(LENIENT, max_loss=0.0)
    for seed in range(5):
        folder = tmp_path / str(seed)
        learning = {"stages": (0, 1, 2, 3), "student": replace(QUICK, seed=seed)}
        profile = profile_of(folder, promotion=picky, **learning)
        run = stored(folder, strong.frames[:5], profile)
        promoted = [r.promoted for mask in run.masks for r in mask.stages]
        if promoted[-1] and not all(promoted):
            break
    assert promoted[-1]
    assert not all(promoted)
    found = again(run, 4, recipe(run, folder, students=False, options=profile.node))
    assert found.identical
    assert found.learned_again


def test_frame_of_another_size_does_not_disturb_the_others(tmp_path, strong):
    """No file can hold it: another one stands in its place."""
    frames = [*strong.frames[:6]]
    frames[2] = frames[2][:90]
    run = stored(tmp_path, frames)
    assert run.masks[2].reason.startswith("another size")
    assert again(run, 5, recipe(run, tmp_path), strong.frames).identical


# --- not the same ---------------------------------------------------------------------------------


def test_other_frames_are_told_from_those_of_the_run(run, folder, frames):
    other = [*frames]
    other[1] = frames[1][::-1]
    found = again(run, 4, recipe(run, folder), other)
    assert not found.identical
    assert 0 < found.differing["mask"] < found.pixels
    assert found.notes[-1].startswith("row 1 is the first that differs: ")
    assert again(run, 0, recipe(run, folder), other).identical


def test_student_that_comes_out_otherwise_is_named(run, folder, frames):
    other = [frames[0] * 3, *frames[1:]]
    found = again(run, 1, recipe(run, folder, students=False), other)
    (came_out,) = (note for note in found.notes if "came out as" in note)
    assert came_out.startswith(f"student {run.masks[1].student_hash[:16]} came out as ")
    assert not found.identical


@pytest.mark.parametrize(
    ("options", "says"),
    [({"stages": (0,)}, "was not made again: these frames lead to 1 stages up to row 4"),
     ({"promotion": replace(LENIENT, min_iou=1.0)}, "was not made again: what was learned in")],
)  # fmt: skip
def test_student_that_cannot_be_learned_again_is_named(run, folder, frames, options, says):
    made_of = recipe(run, folder, students=False)
    made_of = replace(made_of, options=replace(made_of.options, **options))
    found = again(run, 4, made_of)
    assert not found.identical
    assert any(says in note for note in found.notes)


def test_other_options_are_noticed(run, folder):
    made_of = recipe(run, folder)
    brighter = replace(made_of.options, prepare=PrepareOptions(pedestal=5))
    assert not again(run, 1, replace(made_of, options=brighter)).identical


def test_row_that_is_refused_now_is_told_with_the_reason(run, folder, frames):
    other = [frames[0], np.full_like(frames[0], np.nan)]
    found = again(run, 1, recipe(run, folder), other)
    assert found.source == "none"
    assert found.differing["mask"] == found.pixels
    (note,) = found.notes
    assert note.startswith("row 1 is the first that differs: status refused, it was ok (")
    assert "NaN" in note


def test_array_of_another_version_is_named_not_passed_over(run, folder, frames):
    with run.open() as recorded:
        newer = replace(recorded, arrays=(*recorded.arrays, "colours"))
        found = reproduce(newer, 0, frames, recipe(run, folder))
    assert found.notes == ("array colours is of another version and was not compared",)


def test_student_of_other_options_serves_as_it_is_kept(run, folder):
    """The weights decide, not the options that it was learned with."""
    made_of = recipe(run, folder)
    other = replace(made_of.options, student=replace(QUICK, seed=9, steps=1))
    assert again(run, 6, replace(made_of, options=other)).identical


# --- what cannot be done --------------------------------------------------------------------------


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(DatasetError) as caught:
        call()
    return str(caught.value)


def test_row_that_is_not_there_or_was_lost_is_refused(run, folder):
    made_of = recipe(run, folder)
    message = "there is no row 12: the run has 12, counted from 0"
    assert refused(lambda: again(run, 12, made_of)) == message
    lost = refused(lambda: again(run, 5, made_of))
    assert lost.startswith("row 5 is of a frame that was lost (the writer stopped)")


def test_too_few_frames_or_frames_of_another_size_are_refused(run, folder, frames):
    made_of = recipe(run, folder)
    few = refused(lambda: again(run, 6, made_of, frames[:6]))
    assert few.startswith("row 6 needs the frames 0 to 6, these are 6; ")
    assert "--frames" in few
    small = refused(lambda: again(run, 0, made_of, [frames[0][:50]]))
    assert small.startswith("the frames are (50, 104), the masks (104, 104): ")
