"""Which frames are learned from, and what is handed to the trainer."""

from dataclasses import replace

import numpy as np
import pytest
from node_support import OPTIONS
from scenes import peaks

from ptychoseg_stream.errors import FrameError
from ptychoseg_stream.node.ladder import KEPT, Kept, Ladder, fit_teacher
from ptychoseg_stream.science.frame import ClassCode
from ptychoseg_stream.science.metrics import iou
from ptychoseg_stream.science.prepare import prepare
from ptychoseg_stream.science.som import Centroids

STILL = (0.0, 0.0)


@pytest.fixture(scope="module")
def kept(scan):
    return [Kept(i, prepare(frame), STILL) for i, frame in enumerate(scan.frames[:14])]


def climbed(kept, centroids, options=OPTIONS, ladder=None):
    """Give frames to a ladder as a run does; return the ladder and what was staged when."""
    ladder = ladder or Ladder(options)
    stages = {}
    for frame in kept:
        if ladder.consensus is None:
            ladder.begin(frame, centroids)
        stage = ladder.stage(frame, centroids) if ladder.wants(frame.index) else None
        if stage is None:
            ladder.add(frame)
        else:
            stages[frame.index] = stage
    return ladder, stages


def test_teacher_is_fitted_as_on_the_frame_alone(scan, kept):
    assert fit_teacher(kept[0].prepared, OPTIONS).hash == Centroids.fit(scan.frames[0]).hash


def test_stages_come_when_they_are_due_and_hold_all_staged_frames(kept, centroids):
    ladder, stages = climbed(kept, centroids)
    assert [(i, s.frames) for i, s in stages.items()] == [(0, (0,)), (3, (0, 3)), (7, (0, 3, 7))]
    assert [len(s.examples) for s in stages.values()] == [1, 2, 3]
    assert {s.centroids_hash for s in stages.values()} == {centroids.hash}
    assert ladder.finished
    assert not ladder.wants(1000)


def test_every_frame_is_taken_into_the_mean_once(kept, centroids):
    ladder, _ = climbed(kept, centroids)
    assert ladder.mean.n == len(kept)
    assert ladder.mean.counts == pytest.approx(sum(k.prepared.plateau[0] for k in kept))


def test_reference_is_renewed_by_stages_only(kept, centroids):
    ladder, _ = climbed(kept[:3], centroids)
    before = ladder.consensus
    ladder.add(kept[3])
    assert ladder.consensus is before
    ladder.stage(kept[4], centroids)
    assert ladder.consensus is not before


def test_frame_that_is_missing_hands_its_stage_to_the_next(kept, centroids):
    _, stages = climbed([k for k in kept if k.index not in (3, 7, 8)], centroids)
    assert [s.frames for s in stages.values()] == [(0,), (0, 4), (0, 4, 9)]


def test_stages_may_begin_later_or_never(kept, centroids):
    _, late = climbed(kept, centroids, replace(OPTIONS, stages=(5, 6)))
    assert [s.frames for s in late.values()] == [(5,), (5, 6)]
    ladder, none = climbed(kept, centroids, replace(OPTIONS, stages=()))
    assert none == {}
    assert ladder.finished
    assert ladder.mean.n == len(kept)


def test_students_are_examined_on_staged_frames_and_on_the_last_others(kept, centroids):
    _, stages = climbed(kept, centroids)
    sizes = [len(s.check.anchors) for s in stages.values()]
    # The first frame is staged; 1 and 2; 1, 2, 4, 5, 6 of which the last four are kept.
    assert sizes == [1, 2 + 2, 3 + KEPT]
    for stage in stages.values():
        staged = len(stage.examples)
        labels = np.stack([e.ring for e in stage.examples])
        assert np.array_equal(stage.check.anchors[:staged], labels)


def test_examples_carry_what_is_needed_to_learn_from_them(scan, kept, centroids):
    ladder, stages = climbed(kept, centroids)
    example = stages[7].examples[1]
    reference = ladder.consensus
    prepared = kept[3].prepared
    assert example.counts is not prepared.smooth
    assert np.array_equal(example.counts, prepared.counts[0])
    assert example.factor == reference.factor > 1
    assert example.plateau == pytest.approx(float(prepared.plateau[0]) * reference.factor)
    assert example.geometry == reference.geometry
    assert np.array_equal(example.mean, reference.relative)
    assert iou(example.ring, scan.truth[3] == ClassCode.RING) > 0.92


def test_examples_lie_where_their_frame_lies(kept, centroids):
    moved = [replace(k, shift=(float(k.index), -2.0 * k.index)) for k in kept[:4]]
    ladder, stages = climbed(moved, centroids, replace(OPTIONS, stages=(0, 3)))
    first, last = stages[3].examples
    assert (last.geometry.y, last.geometry.x) == pytest.approx(
        (first.geometry.y + 3, first.geometry.x - 6)
    )
    assert np.array_equal(last.mean, ladder.consensus.at((3.0, -6.0)))
    assert np.array_equal(last.ring, ladder.consensus.label_for((3.0, -6.0), centroids))


def test_restart_forgets_the_frames_before_and_counts_the_stages_from_there(kept, centroids):
    ladder, _ = climbed(kept[:5], centroids)
    ladder.restart(kept[5], centroids)
    assert ladder.mean.n == 1
    assert not ladder.finished
    _, stages = climbed(kept[5:], centroids, ladder=ladder)
    assert [s.frames for s in stages.values()] == [(5,), (5, 8), (5, 8, 12)]
    assert len(stages[5].check.anchors) == 1  # no frame of the beam before


def test_restart_without_stages_stays_without(kept, centroids):
    ladder, _ = climbed(kept[:5], centroids, replace(OPTIONS, stages=()))
    ladder.restart(kept[5], centroids)
    assert not ladder.wants(100)


def test_frames_without_a_ring_are_no_reference_and_are_not_staged(kept, centroids):
    spots = [Kept(i, prepare(peaks(9, seed=i)), STILL) for i in range(3)]
    ladder, stages = climbed(spots, centroids)
    assert not ladder.has_ring
    assert stages == {}
    assert ladder.wants(3)
    ladder.begin(kept[3], centroids)
    assert ladder.has_ring
    assert ladder.stage(kept[3], centroids).frames == (3,)


def test_frame_whose_mean_with_the_others_shows_no_beam_is_not_staged(centroids):
    bands = np.zeros((2, 64, 64))
    bands[0, :, 20:44] = bands[1, 20:44] = 100
    frames = np.random.default_rng(0).poisson(bands + 0.2).astype(np.uint16)
    ladder = Ladder(OPTIONS)
    ladder.begin(Kept(0, prepare(frames[0]), STILL), centroids)
    before = ladder.mean
    assert ladder.stage(Kept(3, prepare(frames[1]), STILL), centroids) is None
    assert ladder.mean is before
    assert not ladder.finished


def test_frame_without_beam_begins_nothing(kept, centroids):
    ladder = Ladder(OPTIONS)
    dark = replace(kept[0].prepared, counts=np.zeros_like(kept[0].prepared.counts))
    with pytest.raises(FrameError, match="no beam"):
        ladder.begin(replace(kept[0], prepared=dark), centroids)
    assert ladder.mean is None
    assert ladder.consensus is None
    ladder.add(kept[1])  # nothing to add to
    assert ladder.mean is None
    assert ladder.stage(kept[1], centroids) is None


def test_ladder_that_begins_late_counts_from_its_offset(kept, centroids):
    _, stages = climbed(kept[6:], centroids, ladder=Ladder(OPTIONS, 6))
    assert [s.frames for s in stages.values()] == [(6,), (6, 9), (6, 9, 13)]
