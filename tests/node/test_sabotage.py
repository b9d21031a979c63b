"""A stage that was learned wrongly never reaches the stream.

Each kind of sabotage hits stage 1 of three. What is served, by an inline and by a background
trainer, is compared with what the student of that stage would have served: without the guard it
would have harmed.
"""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from beams import QUICK, frames_of, ring_iou
from node_support import OPTIONS

from ptychoseg_stream.errors import LearningError
from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.node.trainer import BackgroundTrainer, InlineTrainer
from ptychoseg_stream.science.promotion import CheckSet, PromotionOptions
from ptychoseg_stream.science.refine import Learned, learn_stage, mean_iou

pytestmark = pytest.mark.slow

LONGER = replace(QUICK, first_steps=20, steps=60, learning_rate=0.02, batch=4, patch=48, rounds=0)
"""Long and fast enough for a lie to be learned."""
SERVED = replace(OPTIONS, stages=(0, 4, 8), also=("student",), student=LONGER)
SABOTAGED = 1
FRAMES = 14
NAN = np.float32(np.nan)
KINDS = ("labels inverted", "learning rate x 1000", "a NaN frame")
TRAINERS = {"inline": InlineTrainer, "background": BackgroundTrainer}


def spoiled(stage, kind):
    """Return what the second stage learns instead."""
    if kind == "labels inverted":
        lies = [replace(e, ring=~e.ring, mean=None) for e in stage.examples]
        return replace(stage, examples=lies)
    if kind == "a NaN frame":
        broken = replace(stage.examples[-1], counts=stage.examples[-1].counts * NAN)
        return replace(stage, examples=[*stage.examples[:-1], broken])
    return stage


def rate(kind):
    factor = 1000 if kind == "learning rate x 1000" else 1
    return replace(LONGER, learning_rate=factor * LONGER.learning_rate)


def saboteur(base, kind, ended, promotion=None):
    """Make a trainer whose stage 1 goes wrong; `ended` is told of every stage that is over."""

    class Saboteur(base):
        stages = ()

        def submit(self, stage):
            stage = spoiled(stage, kind) if len(self.stages) == SABOTAGED else stage
            self.stages = (*self.stages, stage)
            super().submit(stage)

        def _learn(self, stage, cancelled):
            wrong = len(self.stages) > SABOTAGED and stage is self.stages[SABOTAGED]
            self._options = rate(kind) if wrong else LONGER
            super()._learn(stage, cancelled)
            ended.release()

    return Saboteur(LONGER, promotion=promotion)


def served(scan, trainer, ended):
    """Label a run; after each frame that was staged, wait for its stage to end."""
    store = MemoryStore()
    node = Node(SERVED, lambda: trainer, store)
    node.open("run")
    masks = []
    for frame in frames_of(scan.frames[:FRAMES]):
        masks += node.process([frame])
        if frame.index in SERVED.stages:
            assert ended.acquire(timeout=60)
    node.close("run")
    return masks, store


@pytest.fixture(scope="module", params=TRAINERS)
def base(request):
    return TRAINERS[request.param]


@pytest.fixture(scope="module", params=KINDS)
def run(request, base, scan):
    """Masks of a sabotaged run, its store, and the stages as they were learned."""
    ended = threading.Semaphore(0)
    trainer = saboteur(base, request.param, ended)
    masks, store = served(scan, trainer, ended)
    return request.param, masks, store, trainer.stages


@pytest.fixture(scope="module")
def bad_student(run):
    """What the sabotaged stage makes, learned once more; None if it makes nothing."""
    kind, _, store, stages = run
    first = next(s.student for s in store.students.values() if s.student.revision == 0)
    try:
        *_, learned = learn_stage(first, stages[SABOTAGED].examples, rate(kind), SABOTAGED)
    except LearningError:
        return None
    assert isinstance(learned, Learned)
    return learned.student


def records_of(masks):
    return [s for m in masks for s in m.stages]


def test_sabotaged_student_would_have_harmed(run, bad_student, scan):
    """Else the other tests would prove nothing."""
    kind, masks, store, stages = run
    if kind == "a NaN frame":
        assert bad_student is None  # learning ends before it begins
        assert np.isnan(stages[SABOTAGED].examples[-1].counts).all()
        return
    check = CheckSet.of(stages[2].examples)
    good = store.students[masks[-1].student_hash].student
    right, wrong = (
        mean_iou(s.predict(check.inputs) > 0.5, check.anchors) for s in (good, bad_student)
    )
    assert right > 0.9
    if kind == "labels inverted":
        assert wrong < 0.3
    else:  # chance decides how bad the masks are, but weights run away
        assert wrong < right - 0.02
        assert max(np.abs(v).max() for v in bad_student.weights.values()) > 20


def test_sabotaged_student_never_serves(run, bad_student):
    _, masks, store, _ = run
    good = {"", *(s.student_hash for s in records_of(masks) if s.promoted)}
    assert {m.student_hash for m in masks} <= good
    assert {m.student_revision for m in masks} <= {-1, 0, 2}
    assert set(store.students) == good - {""}  # nor is it kept
    if bad_student is not None:
        assert bad_student.hash not in {m.student_hash for m in masks}


def test_masks_are_as_good_as_ever(run, scan):
    _, masks, _, _ = run
    found = [ring_iou(m.classes, scan.truth[m.frame.index]) for m in masks]
    assert {m.status for m in masks} == {"ok"}
    assert min(found) > 0.9
    assert np.mean(found[4:]) > 0.94
    students = [m.alternatives["student"] for m in masks if m.student_revision >= 0]
    truth = [scan.truth[m.frame.index] for m in masks if m.student_revision >= 0]
    assert min(ring_iou(a, t) for a, t in zip(students, truth, strict=True)) > 0.85


def test_refusal_is_told_with_its_reason(run, bad_student):
    kind, masks, _, _ = run
    records = records_of(masks)
    assert [s.stage for s in records] == [0, 1, 2]
    refused = records[SABOTAGED]
    assert not refused.promoted
    assert refused.reason
    assert "\n" not in refused.reason
    assert refused.frames == (0, 4)
    if bad_student is None:
        assert "not finite" in refused.reason
        assert refused.student_hash == ""
    else:
        assert refused.student_hash == bad_student.hash
    if kind == "labels inverted":
        assert any(word in refused.reason for word in ("ring", "area", "IoU"))


def test_next_good_stage_is_promoted_and_builds_on_the_last_good_student(run):
    _, masks, _, stages = run
    first, refused, third = records_of(masks)
    assert first.promoted
    assert third.promoted
    assert refused.parent_hash == third.parent_hash == first.student_hash
    assert masks[-1].student_hash == third.student_hash
    assert len(stages) == 3


@pytest.mark.parametrize("kind", KINDS[:2])
def test_without_the_guard_the_stream_would_have_been_harmed(kind, scan):
    """The same run with a guard that lets all pass."""
    anything = PromotionOptions(
        min_iou=0, max_area_change=1e9, max_loss=1, min_bright_iou=0, max_cover=1, max_weight=1e9
    )
    ended = threading.Semaphore(0)
    trainer = saboteur(InlineTrainer, kind, ended, anything)
    masks, _ = served(scan, trainer, ended)
    harmed = [m for m in masks if m.student_revision == SABOTAGED]
    assert [m.frame.index for m in harmed] == list(range(4, 8))
    found = [ring_iou(m.alternatives["student"], scan.truth[m.frame.index]) for m in harmed]
    before = ring_iou(masks[3].alternatives["student"], scan.truth[3])
    assert np.mean(found) < (0.3 if kind == "labels inverted" else before - 0.01)


def test_stage_that_never_ends_changes_nothing(scan):
    """A trainer that hangs: masks go on, by the student before."""
    ended = threading.Semaphore(0)
    blocked = threading.Event()

    class Hanging(BackgroundTrainer):
        def _learn(self, stage, cancelled):
            if len(stage.examples) > 1:
                blocked.set()
                while not cancelled():
                    time.sleep(0.002)
                return
            super()._learn(stage, cancelled)
            ended.release()

    node = Node(SERVED, lambda: Hanging(LONGER), MemoryStore())
    node.open("run")
    frames = frames_of(scan.frames[:FRAMES])
    masks = node.process(frames[:1])
    assert ended.acquire(timeout=60)
    masks += node.process(frames[1:5])
    assert blocked.wait(60)
    masks += node.process(frames[5:])
    node.close("run")
    assert {m.student_revision for m in masks[1:]} == {0}
    assert [s.stage for s in records_of(masks)] == [0]
    assert min(ring_iou(m.classes, scan.truth[m.frame.index]) for m in masks) > 0.9
