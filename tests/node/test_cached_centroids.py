"""Which centroids a run uses: those that were cached when it began, however often it begins."""

from dataclasses import replace

import numpy as np
import pytest
from beams import frames_of
from node_support import OPTIONS, contents, labelled, node_of

from ptychoseg_stream.node.store import FolderStore, MemoryStore
from ptychoseg_stream.science.som import Centroids

LATE = replace(OPTIONS, fit_on=3, stages=(4,))


@pytest.fixture(scope="module")
def frames(scan):
    return frames_of(scan.frames[:7])


@pytest.fixture(scope="module")
def undisturbed(frames):
    return contents(labelled(frames, LATE))


@pytest.mark.parametrize("dead_after", [1, 3, 4, 6])
def test_a_run_that_is_labelled_again_does_not_find_what_it_has_fitted_itself(
    frames, undisturbed, tmp_path, dead_after
):
    first = node_of(LATE, FolderStore(tmp_path))
    first.open("run")
    opening = first.checkpoint("run")
    first.process(frames[:dead_after])  # and then its process dies
    second = node_of(LATE, FolderStore(tmp_path))
    second.open("run", opening)
    again = second.process(frames)
    assert contents(again) == undisturbed
    assert [mask.status for mask in again[:4]] == ["refused"] * 3 + ["ok"]


def test_a_checkpoint_before_the_fit_does_not_find_what_was_fitted_afterwards(
    frames, undisturbed, tmp_path
):
    first = node_of(LATE, FolderStore(tmp_path))
    first.open("run")
    first.process(frames[:2])
    checkpoint = first.checkpoint("run")
    first.process(frames[2:])
    second = node_of(LATE, FolderStore(tmp_path))
    second.open("run", checkpoint)
    assert contents(second.process(frames[2:])) == undisturbed[2:]


def test_a_run_goes_on_with_what_another_run_had_left_in_memory(scan, strong):
    store = MemoryStore()
    labelled(frames_of(scan.frames[:2]), store=store)
    frames = frames_of(strong.frames[:5])
    first = node_of(store=store)
    first.open("run")
    opening = first.checkpoint("run")
    expected = first.process(frames)
    second = node_of()  # with a memory of its own
    second.open("run", opening)
    assert contents(second.process(frames)) == contents(expected)
    assert {mask.centroids_hash for mask in expected} == {Centroids.fit(scan.frames[0]).hash}


def test_a_run_finds_those_of_its_own_frame_size_and_options(scan, tmp_path):
    store = FolderStore(tmp_path)
    labelled(frames_of(scan.frames[:1]), store=store)
    smaller = [np.ascontiguousarray(frame[2:-2, 2:-2]) for frame in scan.frames[:1]]
    labelled(frames_of(smaller), store=store)
    assert [known.shape for known in store.known(OPTIONS)] == [smaller[0].shape, (104, 104)]
    assert store.known(LATE) == ()
    again = labelled(frames_of(scan.frames[1:2]), store=store)
    assert again[0].centroids_hash == Centroids.fit(scan.frames[0]).hash
