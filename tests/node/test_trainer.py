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
from ptychoseg_stream.science.promotion import CheckSet
from ptychoseg_stream.science.refine import learn_stage

ENDLESS = replace(QUICK, first_steps=1_000_000)
"""A stage that no test lives to see the end of."""


def example_of(seed) -> Example:
    ring = annulus((64, 64), (32, 31), 8, 18)
    frame = np.random.default_rng(seed).poisson(np.where(ring, 60, 0.1)).astype(np.uint16)
    prepared = prepare(frame)
    geometry = Geometry(32, 31, 18)
    return Example(prepared.counts[0], float(prepared.plateau[0]), ring, geometry, PrepareOptions())


GOOD = [example_of(seed) for seed in range(3)]
CHECK = CheckSet.of([example_of(seed) for seed in (10, 11)])
STAGES = [Stage(GOOD[: n + 1], CHECK, tuple(range(n + 1)), "teacher") for n in range(3)]

NAN = np.full((64, 64), np.nan, np.float32)
INVERTED = [replace(e, ring=~e.ring) for e in GOOD]
SABOTAGED = {
    "labels inverted": Stage(INVERTED, CHECK),
    "labels inverted, those of the check too": Stage(
        INVERTED, replace(CHECK, anchors=~CHECK.anchors)
    ),
    "labels inverted, no other check": Stage(INVERTED),
    "a NaN frame": Stage([*GOOD[:2], replace(GOOD[2], counts=NAN)], CHECK),
    "a NaN pixel": Stage([*GOOD[:2], replace(GOOD[2], counts=np.where(GOOD[2].ring, NAN, 1))]),
    "a NaN frame to check": Stage(GOOD, replace(CHECK, inputs=CHECK.inputs * np.float32(np.nan))),
    "frames of two sizes": Stage([GOOD[0], replace(GOOD[1], counts=NAN[:16])]),
    "no frame": Stage([]),
}


def until(condition, seconds=60.0):
    """Wait for what another thread does; the limit only ends a test that fails."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def ended(trainer, count):
    """Wait for so many stages to end; return their outcomes."""
    outcomes = []

    def all_there():
        outcomes.extend(trainer.collect())
        return len(outcomes) >= count

    until(all_there)
    return outcomes


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
        (outcome,) = trainer.collect()
        assert outcome.record.reason == ""
        students.append(outcome.student)
    return students


def test_inline_student_is_there_when_submit_returns_and_is_given_out_once(inline_students):
    trainer = InlineTrainer(QUICK)
    assert trainer.collect() == []
    trainer.submit(STAGES[0])
    (outcome,) = trainer.collect()
    assert outcome.student.hash == inline_students[0].hash
    assert trainer.collect() == []


def test_record_of_a_stage_says_what_went_in_and_how_it_ended(inline_students):
    trainer = InlineTrainer(QUICK)
    for stage in STAGES:
        trainer.submit(stage)
    outcomes = trainer.collect()
    records = [o.record for o in outcomes]
    hashes = [s.hash for s in inline_students]
    assert [r.stage for r in records] == [0, 1, 2]
    assert [r.frames for r in records] == [(0,), (0, 1), (0, 1, 2)]
    assert [r.student_hash for r in records] == hashes
    assert [r.parent_hash for r in records] == ["", *hashes[:2]]
    assert {r.centroids_hash for r in records} == {"teacher"}
    for record in records:
        assert (record.promoted, record.reason) == (True, "")
        assert record.rounds == QUICK.rounds == 1
        assert 0 <= record.delta < 0.5
        assert record.converged == (record.delta < QUICK.epsilon)
        assert record.iou_to_anchor > 0.9
        assert abs(record.area_change) < 0.1


def test_progress_is_told_after_every_step():
    told = []
    trainer = InlineTrainer(QUICK, told.append)
    assert trainer.progress() == Progress()
    trainer.submit(STAGES[0])
    trainer.submit(STAGES[1])
    steps = [p for p in told if p.training]
    assert [(p.stage, p.round, p.step, p.steps) for p in steps] == [
        *((0, 0, i + 1, 6) for i in range(6)),
        *((0, 1, i + 1, 2) for i in range(2)),
        *((1, 0, i + 1, 3) for i in range(3)),
        *((1, 1, i + 1, 2) for i in range(2)),
    ]
    assert [p.stage for p in told if not p.training] == [0, 1]  # once at the end of each
    assert trainer.progress() == told[-1]
    assert all(np.isfinite([p.loss, p.iou]).all() for p in told)


def test_background_students_are_those_of_the_inline_trainer(background, inline_students):
    trainer = background()
    for stage, expected in zip(STAGES, inline_students, strict=True):
        trainer.submit(stage)
        (outcome,) = ended(trainer, 1)
        assert outcome.student.hash == expected.hash
        assert outcome.student.revision == expected.revision
    assert trainer.collect() == []


def test_stages_submitted_at_once_are_learned_in_order(background, inline_students):
    trainer = background()
    for stage in STAGES:
        trainer.submit(stage)
    hashes = [o.student.hash for o in ended(trainer, 3)]
    assert hashes == [s.hash for s in inline_students]


def test_submit_returns_before_the_stage_is_learned(background):
    trainer = background(ENDLESS)
    trainer.submit(STAGES[0])
    until(lambda: trainer.progress().training)
    assert trainer.collect() == []
    assert trainer.progress().step < ENDLESS.first_steps


def test_close_ends_the_thread_in_the_middle_of_a_stage(background):
    trainer = background(ENDLESS)
    for stage in STAGES:
        trainer.submit(stage)
    until(lambda: trainer.progress().step >= 2)
    trainer.close()
    assert "ptychoseg-trainer" not in [t.name for t in threading.enumerate()]
    assert trainer.collect() == []
    assert not trainer.progress().training
    trainer.close()  # twice does no harm


def test_close_without_a_stage_does_no_harm(background):
    trainer = background()
    trainer.close()
    assert not trainer.progress().training
    assert trainer.collect() == []


# --- sabotage -------------------------------------------------------------------------------------


def trained(kind, background, stages, options=QUICK):
    """Outcomes of stages given one after the other, and the progress after each."""
    trainer = InlineTrainer(options) if kind == "inline" else background(options)
    outcomes, told = [], []
    for stage in stages:
        trainer.submit(stage)
        outcomes += ended(trainer, 1)
        until(lambda: not trainer.progress().training)
        told.append(trainer.progress())
    return outcomes, told


def assert_refused_and_forgotten(outcomes, first, third):
    """The second stage is refused; the third begins from the student of the first."""
    good, bad, after = outcomes
    assert good.student.hash == first.student.hash
    assert bad.student is None
    assert not bad.record.promoted
    assert bad.record.reason
    assert "\n" not in bad.record.reason
    assert [o.record.stage for o in outcomes] == [0, 1, 2]
    assert bad.record.parent_hash == after.record.parent_hash == first.student.hash
    assert after.student.hash == third.student.hash


LONGER = replace(QUICK, steps=20, rounds=0)
"""Long enough for a lie to be learned."""


@pytest.fixture(scope="module")
def undisturbed():
    """The student of stage 0, and what stage 2 makes of it, whatever becomes of stage 1."""
    *_, first = learn_stage(None, STAGES[0].examples, LONGER, 0)
    *_, third = learn_stage(first.student, STAGES[2].examples, LONGER, 2)
    return first, third


@pytest.mark.parametrize("kind", ["inline", "background"])
@pytest.mark.parametrize("sabotage", SABOTAGED)
def test_sabotaged_stage_is_refused_and_the_next_builds_on_the_student_before(
    sabotage, kind, background, undisturbed
):
    stages = [STAGES[0], SABOTAGED[sabotage], STAGES[2]]
    outcomes, told = trained(kind, background, stages, LONGER)
    assert_refused_and_forgotten(outcomes, *undisturbed)
    assert [bool(p.fault) for p in told] == [False, True, False]
    assert told[1].fault == outcomes[1].record.reason
    assert (told[1].stage, told[1].training) == (1, False)
    assert told[1].line().startswith("stage 1 refused, the student before it serves: ")


@pytest.mark.parametrize("kind", ["inline", "background"])
def test_thousandfold_learning_rate_is_refused_and_the_teacher_serves_on(kind, background):
    wild = replace(QUICK, learning_rate=1000 * QUICK.learning_rate, first_steps=20, steps=20)
    outcomes, told = trained(kind, background, STAGES, wild)
    assert [o.student for o in outcomes] == [None] * 3
    assert [o.record.stage for o in outcomes] == [0, 1, 2]
    assert all(o.record.reason and o.record.parent_hash == "" for o in outcomes)
    assert all(p.fault and not p.training for p in told)


@pytest.mark.parametrize("kind", ["inline", "background"])
def test_stage_can_be_made_again_from_what_its_record_says(kind, background, inline_students):
    """For `ptychoseg reproduce`: the same parent, examples, options and number, the same hash."""
    outcomes, _ = trained(kind, background, STAGES)
    students = {"": None} | {o.student.hash: o.student for o in outcomes}
    for outcome, stage in zip(outcomes, STAGES, strict=True):
        record = outcome.record
        parent = students[record.parent_hash]
        *_, again = learn_stage(parent, stage.examples, QUICK, record.stage)
        assert again.student.hash == record.student_hash
        assert (again.rounds, again.converged) == (record.rounds, record.converged)


def test_progress_says_in_one_line_where_learning_is():
    assert Progress().line() == "not yet"
    learning = Progress(2, 7, 20, 0.1212, 0.934, True)
    assert learning.line() == "stage 2, step 7/20, loss 0.121, IoU 0.934"
    assert "stage 2, round 1, step 7/20" in replace(learning, round=1).line()
    refused = replace(learning, training=False, fault="the ring is gone")
    assert refused.line() == "stage 2 refused, the student before it serves: the ring is gone"


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
    until(lambda: trainer.progress().step > 0 and not trainer.progress().training)
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
    until(lambda: node.progress().step > 0 and not node.progress().training)
    (mask,) = node.process(frames_of(scan.frames[:2], "b")[1:])
    assert mask.student_revision == 0
    node.close("b")
