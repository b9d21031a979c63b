"""Frames that come too fast take a cheaper path, and do no harm to those after them."""

from dataclasses import replace

import numpy as np
import pytest
from beams import frames_of, ring_iou
from node_support import ALL, OPTIONS, contents, labelled, node_of

from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.node.trainer import InlineTrainer
from ptychoseg_stream.science.frame import ClassCode
from ptychoseg_stream.sim import GoldBalls, simulate

BURST = range(12, 24)
OPEN = replace(OPTIONS, also=ALL, confidence=True)


def marked(frames, burst=BURST):
    return [replace(frame, teacher_only=frame.index in burst) for frame in frames]


@pytest.fixture(scope="module")
def long():
    return simulate(GoldBalls(n_frames=34, strong=True, drift=(3.0, -2.0)))


@pytest.fixture(scope="module")
def full(long):
    return labelled(frames_of(long.frames), OPEN)


@pytest.fixture(scope="module")
def rushed(long):
    return labelled(marked(frames_of(long.frames)), OPEN)


def test_teacher_serves_frames_of_the_burst_and_no_student_is_named(rushed, long):
    alone = labelled(frames_of(long.frames), replace(OPEN, serve="teacher"))
    for mask, other in zip(rushed, alone, strict=True):
        if mask.frame.index not in BURST:
            assert mask.source == "fused"
            continue
        assert (mask.source, mask.status, mask.student_revision) == ("teacher", "ok", -1)
        assert mask.student_hash == ""
        assert (mask.alternatives["student"] == ClassCode.INVALID).all()
        assert (mask.alternatives["fused"] == ClassCode.INVALID).all()
        assert np.isnan(mask.quality.iou_to_student)
        assert mask.quality.iou_to_teacher == 1
        assert ring_iou(mask.classes, other.classes) == 1
        assert np.array_equal(mask.confidence, other.confidence)
        assert mask.quality.entropy == other.quality.entropy


def test_what_lies_outside_the_ring_is_not_told_apart_in_the_burst(rushed, full):
    told = {ClassCode.EMPTY, ClassCode.SCATTER}
    assert all(told & set(np.unique(full[i].classes)) for i in BURST if i >= 20)
    assert not any(told & set(np.unique(rushed[i].classes)) for i in BURST)
    assert told & set(np.unique(rushed[-1].classes))


def test_walk_stays_in_step(rushed, full):
    for mask, other in zip(rushed, full, strict=True):
        assert mask.shift == other.shift
        assert mask.plateau == other.plateau
        assert mask.verdict == other.verdict
        assert repr(mask.alarms) == repr(other.alarms)
        bits, stop = np.uint16(0xFFFF ^ (1 << 9)), mask.valid_bits
        assert np.array_equal(stop & bits, other.valid_bits & bits)


def test_masks_after_a_burst_are_as_good_as_ever(rushed, full, long):
    for i in range(BURST.stop, len(full)):
        good, now = (ring_iou(masks[i].classes, long.truth[i]) for masks in (full, rushed))
        assert now > good - 0.02, i


def test_stage_that_is_due_in_a_burst_is_begun_at_the_first_full_frame(long):
    masks = labelled(marked(frames_of(long.frames[:16]), range(5, 10)), replace(OPEN, also=()))
    assert [s.frames for m in masks for s in m.stages] == [(0,), (0, 3), (0, 3, 10)]
    assert not any(m.stages for m in masks[5:10])
    assert masks[9].source == "teacher"
    assert masks[10].student_revision == 2


def test_run_that_begins_with_a_burst_learns_after_it(long):
    masks = labelled(marked(frames_of(long.frames[:12]), range(5)), replace(OPEN, also=()))
    assert [m.source for m in masks] == ["teacher"] * 5 + ["fused"] * 7
    # The second stage was due at frame 3, too.
    assert [s.frames for m in masks for s in m.stages] == [(5,), (5, 6), (5, 6, 7)]


def test_beam_that_changes_in_a_burst_is_learned_after_it():
    before = simulate(GoldBalls(n_frames=44, change_at=20, ring_scale=1.2))
    burst = range(18, 34)
    masks = labelled(marked(frames_of(before.frames), burst), replace(OPEN, also=()))
    (restart,) = [a.index for m in masks for a in m.alarms if a.action == "restart"]
    assert restart in burst
    assert [s.frames for m in masks for s in m.stages][3:] == [(34,), (34, 35), (34, 35, 36)]
    after = [ring_iou(m.classes, before.truth[m.frame.index]) for m in masks[36:]]
    assert min(after) > 0.93


def test_no_student_is_asked_in_a_burst(long):
    """A student without a net raises when it is asked."""
    trainer = InlineTrainer(OPEN.student)
    node = Node(OPEN, lambda: trainer, MemoryStore())
    node.open("run")
    frames = marked(frames_of(long.frames[:16]), range(8, 16))
    node.process(frames[:8])
    state = node._runs["run"].state
    state.student = replace(state.student, net=None)
    assert {m.source for m in node.process(frames[8:])} == {"teacher"}
    with pytest.raises(TypeError, match="not callable"):
        node.process([replace(frames[15], index=16, teacher_only=False)])


@pytest.mark.parametrize("cuts", [(1, 13, 20), (12, 24), (5, 12, 13, 14, 30)], ids=str)
def test_masks_depend_on_the_flags_and_not_on_the_batches(long, rushed, cuts):
    again = labelled(marked(frames_of(long.frames)), OPEN, cuts=cuts)
    assert contents(again) == contents(rushed)


def test_run_is_gone_on_with_in_the_middle_of_a_burst(long, rushed):
    frames = marked(frames_of(long.frames))
    node, other = node_of(OPEN), node_of(OPEN)
    node.open("run")
    node.process(frames[:18])
    other.open("run", node.checkpoint("run"))
    assert contents(other.process(frames[18:])) == contents(rushed[18:])
