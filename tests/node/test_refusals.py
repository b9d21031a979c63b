"""A frame that cannot be labelled costs nothing but its own mask."""

from dataclasses import replace

import numpy as np
import pytest
from beams import QUICK, annulus, frames_of, ring_iou
from node_support import ALL, OPTIONS, contents, labelled

from ptychoseg_stream.science.frame import ClassCode, ValidBit
from ptychoseg_stream.science.metrics import iou
from ptychoseg_stream.science.som import Centroids


def test_frame_that_cannot_be_labelled_is_invalid_all_over_and_says_why(one_by_one):
    for index, reason in ((3, "empty frame"), (6, "100% NaN")):
        mask = one_by_one[index]
        assert mask.status == "refused"
        assert mask.source == "none"
        assert reason in mask.reason
        assert mask.classes.shape == (104, 104)
        assert mask.classes.dtype == np.uint8
        assert (mask.classes == ClassCode.INVALID).all()
        assert set(mask.alternatives) == set(ALL)
        assert all((a == ClassCode.INVALID).all() for a in mask.alternatives.values())
        assert mask.ring_area == 0
        assert mask.student_revision == -1
        assert np.isnan(mask.quality.iou_to_teacher)
    assert [m.status for m in one_by_one].count("ok") == 14
    assert [m.frame.index for m in one_by_one] == list(range(16))


def test_frames_after_a_refused_one_are_labelled_as_if_it_had_never_been(images, one_by_one):
    without = [f for f in frames_of(images) if f.index not in (3, 6)]
    expected = [m for m in one_by_one if m.status == "ok"]
    # What was noticed of the beam that was away travels with the frames beside it.
    quiet = [replace(m, alarms=()) for m in expected]
    assert contents(labelled(without)) == contents(quiet)


def test_scheduled_frame_that_is_refused_hands_its_stage_to_the_next_good_one(images, one_by_one):
    revisions = [m.student_revision for m in one_by_one]
    assert revisions == [0, 0, 0, -1, 1, 1, -1, *[2] * 9]
    rescheduled = labelled(frames_of(images), replace(OPTIONS, stages=(0, 4, 7)))
    assert contents(rescheduled) == contents(one_by_one)


def test_run_that_begins_with_frames_without_beam_learns_from_the_first_good_ones(scan):
    dark = np.zeros((104, 104), np.uint16)
    images = [dark, dark, *scan.frames[2:7]]
    masks = labelled(frames_of(images), replace(OPTIONS, stages=(0, 1, 5)))
    assert [m.status for m in masks[:2]] == ["refused"] * 2
    assert masks[0].centroids_hash == ""
    assert [m.student_revision for m in masks[2:]] == [0, 1, 1, 2, 2]
    assert masks[2].centroids_hash == Centroids.fit(scan.frames[2]).hash


def test_frame_of_another_size_is_refused_and_both_sizes_are_named(scan):
    images = [*scan.frames[:2], scan.frames[2][:64, :80], *scan.frames[3:5]]
    masks = labelled(frames_of(images))
    assert [m.status for m in masks] == ["ok", "ok", "refused", "ok", "ok"]
    assert "frame 2 is (64, 80), the run began with (104, 104)" in masks[2].reason
    assert masks[2].classes.shape == (104, 104)  # all rows of the array have one shape
    without = [f for f in frames_of(images) if f.index != 2]
    assert contents(labelled(without)) == contents(m for m in masks if m.status == "ok")


def test_frame_without_an_image_is_lost_and_says_why(scan):
    frames = frames_of([scan.frames[0], None, None, scan.frames[3]])
    frames[2] = replace(frames[2], fault="")
    masks = labelled(frames)
    assert [m.status for m in masks] == ["ok", "lost", "lost", "ok"]
    assert masks[1].reason == "file is gone"
    assert masks[2].reason == "the frame could not be read"
    assert (masks[1].classes == ClassCode.INVALID).all()


def test_run_that_begins_with_a_lost_frame_takes_the_size_that_was_promised(scan):
    masks = labelled(frames_of([None, scan.frames[1]]))
    assert masks[0].classes.shape == (104, 104)
    assert masks[1].status == "ok"
    unsized = labelled(frames_of([None, scan.frames[1]], shape=(0, 0)))
    assert [m.status for m in unsized] == ["lost", "ok"]
    masks = labelled(frames_of([None, scan.frames[1]], shape=(64, 64)))
    assert [m.classes.shape for m in masks] == [(64, 64)] * 2
    assert masks[1].status == "refused"


def test_frame_with_another_beam_does_not_enter_the_mean():
    """The two kinds of frames have a ring each; the mean of both has another one."""
    small, large = (annulus((64, 64), (32, 32), a, b) for a, b in ((5, 9), (16, 24)))
    rng = np.random.default_rng(0)
    images = [
        rng.poisson(np.where(ring, 100, 0.2)).astype(np.uint16)
        for ring in (small, small, small, large, small, small, small)
    ]
    masks = labelled(frames_of(images), replace(OPTIONS, stages=(0, 3, 6)))
    assert [m.status for m in masks] == ["ok"] * 7
    assert [m.student_revision for m in masks] == [0, 0, 0, 0, 1, 1, 2]  # 4 takes the place of 3
    teacher = masks[3].alternatives["teacher"]
    assert iou(teacher == ClassCode.RING, large) > 0.9
    assert ring_iou(masks[6].classes, small.astype(np.uint8)) > 0.9


def test_frame_that_shows_no_beam_among_frames_that_do_gets_no_mask(scan):
    stray = scan.frames[3].copy()
    stray[:] = 0
    stray[5:9, 60:100] = 900
    masks = labelled(frames_of([*scan.frames[:3], stray, *scan.frames[4:6]]))
    assert [m.status for m in masks] == ["ok", "ok", "ok", "refused", "ok", "ok"]
    assert masks[3].verdict == "no beam"
    assert [a.action for a in masks[3].alarms] == ["no beam"]
    assert [a.monitor for a in masks[4].alarms] == ["beam"]


@pytest.mark.parametrize("shape", [(16, 16), (48, 100), (33, 131), (130, 70)])
def test_frames_of_any_shape_are_labelled_and_learned_from(shape):
    h, w = shape
    y, x = np.indices(shape)
    r = np.hypot(y - h / 2, x - w / 2) / min(shape)
    rng = np.random.default_rng(0)
    images = [
        rng.poisson(np.where((r > 0.15) & (r < 0.4), 60, 0.1)).astype(np.uint16) for _ in range(5)
    ]
    masks = labelled(frames_of(images), replace(OPTIONS, student=replace(QUICK, patch=64)))
    assert [m.status for m in masks] == ["ok"] * 5
    assert masks[-1].student_revision == 1
    assert masks[-1].classes.shape == shape


def test_pixels_without_a_value_have_a_class_where_measured_ones_are_near(scan):
    images = scan.frames[:5].astype(np.float32)
    images[:, 51, 40:44] = np.nan  # on the ring, one row
    images[:, 70:90, 5:25] = np.nan  # a gap as wide as a module
    for mask in labelled(frames_of(images)):
        assert mask.valid_bits is not None
        gap = (mask.valid_bits & ValidBit.GAP) != 0
        assert gap[51, 40:44].all()
        assert gap[70:90, 5:25].all()
        for classes in (mask.classes, *mask.alternatives.values()):
            assert (classes[51, 40:44] == ClassCode.RING).any()
            assert (classes[74:86, 9:21] == ClassCode.INVALID).all()
            assert (classes[~gap] != ClassCode.INVALID).all()


def test_frame_that_cannot_be_learned_from_leaves_no_centroids_behind(scan):
    striped = scan.frames[0].astype(np.float32)
    striped[::2] = np.nan
    images = [striped, *scan.frames[1:4].astype(np.float32)]
    masks = labelled(frames_of(images))
    assert [m.status for m in masks] == ["refused", "ok", "ok", "ok"]
    assert masks[1].centroids_hash == Centroids.fit(images[1]).hash
