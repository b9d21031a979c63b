import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from beams import QUICK, annulus, frames_of

from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.node.trainer import BackgroundTrainer, InlineTrainer, Stage
from ptychoseg_stream.node.vitals import Progress
from ptychoseg_stream.science.augment import Example
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.geometry import Geometry
from ptychoseg_stream.science.prepare import prepare

ENDLESS = replace(QUICK, first_steps=1_000_000)
"""A stage that no test lives to see the end of."""


def example_of(seed) -> Example:
    ring = annulus((64, 64), (32, 31), 8, 18)
    frame = np.random.default_rng(seed).poisson(np.where(ring, 60, 0.1)).astype(np.uint16)
    prepared = prepare(frame)
    geometry = Geometry(32, 31, 18)
    return Example(prepared.counts[0], float(prepared.plateau[0]), ring, geometry, PrepareOptions())


GOOD = [example_of(seed) for seed in range(3)]
BROKEN = replace(GOOD[0], counts=np.full((64, 64), np.nan, np.float32), plateau=1.0)
STAGES = [Stage(GOOD[: n + 1]) for n in range(3)]


def until(condition, seconds=60.0):
    """Wait for what another thread does; the limit only ends a test that fails."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


@pytest.fixture
def background():
    """Makes background trainers that end with the test."""
    made = []

    def make(options=QUICK, on_step=None):
        made.append(BackgroundTrainer(options, on_step))
        return made[-1]

    yield make
    for trainer in made:
        trainer.close()


@pytest.fixture(scope="module")
def inline_students():
    trainer = InlineTrainer(QUICK)
    students = []
    for stage in STAGES:
        trainer.submit(stage)
        students.append(trainer.collect())
    return students


def test_inline_student_is_there_when_submit_returns_and_is_given_out_once(inline_students):
    trainer = InlineTrainer(QUICK)
    assert trainer.collect() is None
    trainer.submit(STAGES[0])
    assert trainer.collect().hash == inline_students[0].hash
    assert trainer.collect() is None


def test_progress_is_told_after_every_step():
    told = []
    trainer = InlineTrainer(QUICK, told.append)
    assert trainer.progress() == Progress()
    trainer.submit(STAGES[0])
    trainer.submit(STAGES[1])
    steps = [p for p in told if p.training]
    assert [(p.stage, p.step) for p in steps] == [(0, i + 1) for i in range(6)] + [
        (1, i + 1) for i in range(3)
    ]
    assert [p.stage for p in told if not p.training] == [0, 1]  # once at the end of each
    assert trainer.progress() == told[-1]
    assert all(np.isfinite([p.loss, p.iou]).all() for p in told)


def test_background_students_are_those_of_the_inline_trainer(background, inline_students):
    trainer = background()
    for stage, expected in zip(STAGES, inline_students, strict=True):
        trainer.submit(stage)
        found = []
        until(lambda found=found: found.append(trainer.collect()) or found[-1] is not None)
        assert found[-1].hash == expected.hash
        assert found[-1].revision == expected.revision
    assert trainer.collect() is None


def test_stages_submitted_at_once_are_learned_in_order(background, inline_students):
    trainer = background()
    for stage in STAGES:
        trainer.submit(stage)
    seen = []
    until(lambda: seen.append(trainer.collect()) or (seen[-1] and seen[-1].revision == 2))
    assert seen[-1].hash == inline_students[2].hash
    revisions = [s.revision for s in seen if s]
    assert revisions == sorted(set(revisions))


def test_submit_returns_before_the_stage_is_learned(background):
    trainer = background(ENDLESS)
    trainer.submit(STAGES[0])
    until(lambda: trainer.progress().training)
    assert trainer.collect() is None
    assert trainer.progress().step < ENDLESS.first_steps


def test_close_ends_the_thread_in_the_middle_of_a_stage(background):
    trainer = background(ENDLESS)
    for stage in STAGES:
        trainer.submit(stage)
    until(lambda: trainer.progress().step >= 2)
    trainer.close()
    assert "ptychoseg-trainer" not in [t.name for t in threading.enumerate()]
    assert trainer.collect() is None
    assert not trainer.progress().training
    trainer.close()  # twice does no harm


def test_close_without_a_stage_does_no_harm(background):
    trainer = background()
    trainer.close()
    assert not trainer.progress().training
    assert trainer.collect() is None


@pytest.mark.parametrize("kind", ["inline", "background"])
def test_stage_that_fails_is_reported_and_the_next_one_builds_on_the_last_good_student(
    kind, background
):
    def hash_after(stages):
        trainer = InlineTrainer(QUICK) if kind == "inline" else background()
        faults, students = [], []
        for stage in stages:
            before = trainer.progress()
            trainer.submit(stage)
            until(lambda b=before: trainer.progress() != b and not trainer.progress().training)
            faults.append(trainer.progress().fault)
            students.append(trainer.collect())
        return faults, students

    faults, students = hash_after([STAGES[0], Stage([BROKEN]), STAGES[1]])
    assert faults[0] == faults[2] == ""
    assert "stage 1, step 1: the loss is not finite" in faults[1]
    assert students[1] is None
    _, undisturbed = hash_after([STAGES[0], STAGES[1]])
    assert students[2].hash == undisturbed[1].hash


# --- in a node ------------------------------------------------------------------------------------

OPTIONS = NodeOptions(stages=(0,), also=("teacher", "student", "fused"), student=QUICK)


def test_no_frame_waits_for_training(background, scan):
    trainer = background(ENDLESS)
    node = Node(OPTIONS, lambda: trainer, MemoryStore())
    node.open("run")
    masks = node.process(frames_of(scan.frames[:4]))
    until(lambda: trainer.progress().step >= 1)
    masks += node.process(frames_of(scan.frames[:8])[4:])
    assert trainer.progress().training  # the stage will never end, and yet:
    assert [m.status for m in masks] == ["ok"] * 8
    assert {m.source for m in masks} == {"teacher"}
    assert {m.student_revision for m in masks} == {-1}
    node.close("run")
    assert not node.progress().training

    alone = Node(replace(OPTIONS, stages=()), lambda: InlineTrainer(QUICK), MemoryStore())
    alone.open("run")
    expected = alone.process(frames_of(scan.frames[:8]))
    assert [m.classes.tobytes() for m in masks] == [m.classes.tobytes() for m in expected]


def test_finished_student_is_swapped_in_between_two_frames(background, scan):
    inline = Node(OPTIONS, lambda: InlineTrainer(QUICK), MemoryStore())
    inline.open("run")
    expected = inline.process(frames_of(scan.frames[:3]))

    trainer = background()
    node = Node(OPTIONS, lambda: trainer, MemoryStore())
    node.open("run")
    frames = frames_of(scan.frames[:3])
    node.process(frames[:1])
    until(lambda: trainer.progress().step == QUICK.first_steps)
    until(lambda: not trainer.progress().training)
    (second,) = node.process(frames[1:2])
    (third,) = node.process(frames[2:])
    assert (second.student_revision, second.student_hash) == (0, expected[1].student_hash)
    assert third.student_hash == expected[2].student_hash
    for found, wanted in ((second, expected[1]), (third, expected[2])):
        assert found.alternatives["student"].tobytes() == wanted.alternatives["student"].tobytes()
    node.close("run")


def test_closing_a_run_drops_its_unfinished_stage_and_leaves_other_runs_alone(background, scan):
    trainers = iter([background(ENDLESS), background(QUICK)])
    node = Node(OPTIONS, lambda: next(trainers), MemoryStore())
    node.open("a")
    node.open("b")
    node.process(frames_of(scan.frames[:1], "a"))
    node.process(frames_of(scan.frames[:1], "b"))
    node.close("a")
    until(lambda: node.progress().step == QUICK.first_steps and not node.progress().training)
    (mask,) = node.process(frames_of(scan.frames[:2], "b")[1:])
    assert mask.student_revision == 0
    node.close("b")
