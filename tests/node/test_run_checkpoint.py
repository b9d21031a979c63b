"""A run that another node, or another process, goes on with."""

import dataclasses
import os
import subprocess
import sys
import threading
from collections import deque
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from beams import QUICK, frames_of
from eventful import EVENTFUL, checkpoint_after, eventful_frames, leaving_frames, relayed
from go_on import digest_of
from node_support import OPTIONS, contents, labelled, node_of

from ptychoseg_stream.errors import CheckpointError
from ptychoseg_stream.node.checkpoint import Owner, pack, unpack
from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.run import RunLabeller
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.node.trainer import BackgroundTrainer, InlineTrainer

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def frames():
    return eventful_frames()


@pytest.fixture(scope="module")
def undisturbed(frames):
    return labelled(frames, EVENTFUL)


@pytest.fixture(scope="module")
def checkpoint(frames):
    """After 30 frames of the eventful run."""
    return checkpoint_after(30, frames)


def test_much_happens_in_the_run_that_is_gone_on_with(undisturbed):
    actions = {a.action for m in undisturbed for a in m.alarms}
    assert {"restart", "no beam", "note"} <= actions
    assert {m.source for m in undisturbed} == {"none", "teacher", "fused"}
    assert {m.verdict for m in undisturbed} == {"none", "annulus", "no beam"}
    assert len([s for m in undisturbed for s in m.stages]) >= 5
    assert [m.status for m in undisturbed].count("lost") == 1


# --- nothing is different -------------------------------------------------------------------------


def test_chain_of_nodes_that_each_label_one_frame_makes_the_same_masks(frames, undisturbed):
    assert contents(relayed(frames)) == contents(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 13, 17, 21, 29, 33, 35, 41, 45, 49, 60])
def test_node_that_opens_with_a_checkpoint_goes_on_as_if_nothing_was(frames, undisturbed, count):
    node = node_of(EVENTFUL)
    node.open("run", checkpoint_after(count, frames))
    assert contents(node.process(frames[count:])) == contents(undisturbed[count:])
    node.close("run")


@pytest.mark.slow
def test_run_whose_beam_leaves_its_window_is_gone_on_with():
    frames = leaving_frames()
    expected = labelled(frames, EVENTFUL)
    assert "window" in [a.monitor for m in expected for a in m.alarms]
    assert contents(relayed(frames)) == contents(expected)


@pytest.mark.slow
def test_process_of_its_own_goes_on_with_the_run(frames, undisturbed, checkpoint, tmp_path):
    path = tmp_path / "checkpoint"
    path.write_bytes(checkpoint)
    places = os.pathsep.join([str(HERE), str(HERE.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, str(HERE / "go_on.py"), str(path), "30"],
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert done.stdout == digest_of(undisturbed[30:])


def test_checkpoint_changes_nothing_and_is_the_same_again(frames, undisturbed):
    node = node_of(EVENTFUL)
    node.open("run")
    masks = []
    for frame in frames[:14]:
        masks += node.process([frame])
        assert node.checkpoint("run") == node.checkpoint("run")
    assert contents(masks) == contents(undisturbed[:14])


def test_progress_is_that_of_the_checkpoint(frames, checkpoint):
    node = node_of(EVENTFUL)
    node.open("run", checkpoint)
    assert node.progress().stage >= 2
    assert not node.progress().training
    assert node.progress().iou > 0


# --- the whole graph ------------------------------------------------------------------------------


def parts_of(what):
    """Names and values of what an object holds; what is worked out again is left out."""
    if isinstance(what, (list, tuple, deque)):
        return dict(enumerate(what))
    if isinstance(what, dict):
        return what
    names = [f.name for f in dataclasses.fields(what)] if dataclasses.is_dataclass(what) else []
    names += [n for n in getattr(what, "__dict__", {}) if n not in names]
    kind = type(what)
    again = [n for n in names if isinstance(getattr(kind, n, None), cached_property)]
    return {n: getattr(what, n) for n in names if n not in again and n != "net"}


def check_same(one, other, pairs, place="state"):
    """The same types, values and bits; what is one object here is one object there."""
    assert type(one) is type(other), place
    if one is None or isinstance(one, (bool, int, float, str, np.generic)):
        assert one == other or (one != one and other != other), place
        return
    if id(one) in pairs:
        assert pairs[id(one)] is other, place
        return
    pairs[id(one)] = other
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), place
        assert one.tobytes() == other.tobytes(), place
        if one.flags.c_contiguous or one.flags.f_contiguous:
            assert one.flags.f_contiguous == other.flags.f_contiguous, place
        assert other.flags.writeable, place
        return
    assert getattr(one, "maxlen", None) == getattr(other, "maxlen", None), place
    mine, its = parts_of(one), parts_of(other)
    assert list(mine) == list(its), place
    for name, value in mine.items():
        check_same(value, its[name], pairs, f"{place}.{name}")


@pytest.mark.parametrize("count", [0, 2, 16, 40])
def test_whole_memory_of_a_run_comes_back(frames, count):
    trainer = InlineTrainer(EVENTFUL.student)
    run = RunLabeller(EVENTFUL, trainer, MemoryStore(), "run")
    run.label(frames[:count])
    before = [run.state, trainer.state()]
    data = pack(run.state, trainer.state(), Owner("run", EVENTFUL))
    check_same(before, list(unpack(data, Owner("run", EVENTFUL))), {})


def test_all_that_a_run_remembers_is_in_its_state():
    given = {"_options", "trainer", "_store", "_uid", "_user"}
    run = RunLabeller(EVENTFUL, InlineTrainer(QUICK), MemoryStore(), "run")
    assert set(vars(run)) == given | {"state"}
    known = {"_options", "_on_step", "_promotion", "_lock"}
    assert set(vars(run.trainer)) == known | {
        "_stage",
        "_serving",
        "_outcomes",
        "_pending",
        "_progress",
    }


def test_attribute_that_nobody_declared_cannot_be_forgotten(frames):
    run = RunLabeller(EVENTFUL, InlineTrainer(QUICK), MemoryStore(), "run")
    run.state.tracker._wobble = 1.0
    with pytest.raises(CheckpointError, match=r"BeamTracker: annotate _wobble in the class"):
        pack(run.state, run.trainer.state(), Owner("run", EVENTFUL))


def test_class_that_is_not_listed_cannot_be_written(frames):
    run = RunLabeller(EVENTFUL, InlineTrainer(QUICK), MemoryStore(), "run")
    run.state.alarms.append(Path("here"))
    with pytest.raises(CheckpointError, match=r"run run .* RunState.alarms is a list"):
        pack(run.state, run.trainer.state(), Owner("run", EVENTFUL))


# --- learning under way ---------------------------------------------------------------------------


class Held(BackgroundTrainer):
    """Learns in the background, once it is let."""

    def __init__(self, options):
        super().__init__(options)
        self.let = threading.Event()

    def _learn(self, stage, cancelled):
        self.let.wait(60)
        super()._learn(stage, cancelled)


@pytest.fixture
def held(scan):
    """A checkpoint after five frames: two stages were submitted, none has ended."""
    trainer = Held(OPTIONS.student)
    node = Node(OPTIONS, lambda: trainer, MemoryStore())
    node.open("run")
    masks = node.process(frames_of(scan.frames[:5]))
    checkpoint = node.checkpoint("run")
    assert len(trainer.state().pending) == 2
    assert {m.source for m in masks} == {"teacher"}
    trainer.let.set()
    node.close("run")
    return checkpoint


@pytest.fixture(scope="module")
def inline_hashes(scan):
    masks = labelled(frames_of(scan.frames[:9]))
    return [s.student_hash for m in masks for s in m.stages]


def test_stages_that_were_pending_are_learned_again_and_give_the_same_students(
    held, scan, inline_hashes
):
    node = node_of()
    node.open("run", held)
    masks = node.process(frames_of(scan.frames[:9])[5:])
    assert [s.student_hash for m in masks for s in m.stages] == inline_hashes
    assert [len(m.stages) for m in masks] == [2, 0, 1, 0]
    assert masks[0].student_hash == inline_hashes[1]


def test_background_trainer_goes_on_with_what_was_pending(held, scan, inline_hashes):
    trainer = BackgroundTrainer(OPTIONS.student)
    node = Node(OPTIONS, lambda: trainer, MemoryStore())
    node.open("run", held)
    for _ in range(6000):
        if not trainer.state().pending:
            break
        threading.Event().wait(0.01)
    ended = node.checkpoint("run")  # the stages have ended, no frame has seen a student
    node.close("run")
    other = node_of()
    other.open("run", ended)
    (mask,) = other.process(frames_of(scan.frames[:6])[5:])
    assert [s.student_hash for s in mask.stages] == inline_hashes[:2]
    assert mask.student_hash == inline_hashes[1]
    assert trainer.state().stage == 2


def test_trainer_that_cannot_go_on_is_named(scan):
    class Forgetful:
        def submit(self, stage):
            pass

        def collect(self):
            return []

        def progress(self):
            return None

        def close(self):
            pass

    node = Node(OPTIONS, Forgetful, MemoryStore())
    node.open("run")
    with pytest.raises(CheckpointError, match="Forgetful"):
        node.checkpoint("run")


def test_lost_cache_does_no_harm(frames, undisturbed, checkpoint):
    node = node_of(EVENTFUL, MemoryStore())  # which has neither centroids nor students
    node.open("run", checkpoint)
    (mask,) = node.process(frames[30:31])
    assert mask.student_hash == undisturbed[30].student_hash != ""
    assert mask.centroids_hash == undisturbed[30].centroids_hash
