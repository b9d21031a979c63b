import math
from dataclasses import replace

import numpy as np
import pytest

from ptychoseg_stream.evaluation.score import (
    by_stage,
    held_out,
    ring_ious,
    score,
    staged_frames,
)
from ptychoseg_stream.science.frame import ClassCode, Frame, Mask
from ptychoseg_stream.science.records import StageRecord

TRUTH = np.zeros((8, 8), np.uint8)
TRUTH[2:6, 2:6] = ClassCode.RING
TRUTH[3:5, 3:5] = ClassCode.CORE
WITHOUT_CORE = np.where(TRUTH == ClassCode.CORE, ClassCode.BACKGROUND, TRUTH)
HALF = np.where(np.indices((8, 8))[0] < 4, TRUTH, 0)
NO_RING = np.zeros((8, 8), np.uint8)
INVALID = np.full((8, 8), ClassCode.INVALID, np.uint8)


def test_ring_iou_counts_class_one_and_nothing_else():
    found = ring_ious([TRUTH, HALF, INVALID, WITHOUT_CORE], [TRUTH] * 4)
    assert found.tolist() == [1, 0.5, 0, 1]


def test_score_is_the_mean_over_scored_frames_and_seeds():
    seeds = [[TRUTH, HALF, INVALID], [TRUTH, TRUTH, TRUTH]]
    result = score("x", seeds, [TRUTH] * 3, [0, 1])
    assert result.name == "x"
    assert result.by_seed == (0.75, 1.0)
    assert result.ring == 0.875
    assert result.ring_min == 0.5
    assert result.core == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert result.consistency == pytest.approx((0.5 + 1) / 2)
    assert 0.7 < result.boundary < 1


def test_frame_without_a_mask_counts_as_nothing_found():
    assert score("x", [[INVALID] * 2], [TRUTH] * 2, [0, 1]).ring == 0


def test_core_is_not_scored_where_the_reference_has_none():
    result = score("x", [[TRUTH] * 2], [WITHOUT_CORE] * 2, [0, 1])
    assert math.isnan(result.core)
    assert result.ring == 1


def test_nothing_scored_gives_no_figures():
    result = score("x", [[TRUTH]], [TRUTH], [])
    assert math.isnan(result.ring)
    assert result.by_seed == ()


def test_means_by_stage_are_over_the_scored_frames_of_each_student():
    ious = {"student": np.array([0.0, 0.5, 0.7, 0.9, 1.0]), "fused": np.arange(5.0)}
    rows = by_stage(ious, [-1, 0, 0, 1, 1], [0, 1, 2, 4])
    assert [(revision, n) for revision, n, _ in rows] == [(-1, 1), (0, 2), (1, 1)]
    assert rows[1][2] == pytest.approx({"student": 0.6, "fused": 1.5})
    assert rows[2][2] == pytest.approx({"student": 1.0, "fused": 4.0})


def test_core_is_scored_over_the_frames_whose_reference_has_one():
    result = score("x", [[TRUTH, TRUTH]], [TRUTH, WITHOUT_CORE], [0, 1])
    assert result.core == 1


def test_frame_whose_truth_has_no_ring_is_right_without_one():
    assert score("x", [[NO_RING]], [NO_RING], [0]).ring == 1
    assert score("x", [[TRUTH]], [NO_RING], [0]).ring == 0


# --- what counts ----------------------------------------------------------------------------------


def masks_of(statuses, stages=()):
    """Masks of frames with these statuses; the last carries the stages."""
    masks = [
        Mask(Frame("run", i, None, (8, 8)), TRUTH, "teacher", status)
        for i, status in enumerate(statuses)
    ]
    return [*masks[:-1], replace(masks[-1], stages=stages)]


def stage(*frames):
    return StageRecord(0, frames, 1, 0.0, True, True, "", 1.0, 0.0, "a", "", "c")


def test_frames_that_a_run_says_it_learned_from_are_staged():
    masks = masks_of(["ok"] * 6, (stage(0), stage(0, 4)))
    assert staged_frames(masks, (0, 2, 5)) == [0, 4]


def test_refused_stage_hands_its_place_to_the_next_good_frame():
    masks = masks_of(["refused", "ok", "ok", "refused", "lost", "ok", "ok"])
    assert staged_frames(masks, (0, 3, 4)) == [1, 5, 6]
    assert staged_frames(masks, (0, 1, 2)) == [1, 2, 5]
    assert staged_frames(masks, ()) == []


def test_frames_that_were_not_learned_from_count():
    assert held_out(5, [1, 3]) == [0, 2, 4]
    assert held_out(2, [0, 1]) == [0, 1]
