import numpy as np
import pytest
from beams import annulus

from ptychoseg_stream.errors import FrameError
from ptychoseg_stream.science.consensus import StagedFrame, agree
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.frame import ClassCode
from ptychoseg_stream.science.metrics import iou
from ptychoseg_stream.science.prepare import prepare
from ptychoseg_stream.science.register import ShiftFinder
from ptychoseg_stream.sim import GoldBalls, simulate

OPTIONS = PrepareOptions()


def staged_of(frames, shifts):
    return [StagedFrame(prepare(f), s) for f, s in zip(frames, shifts, strict=True)]


def registered(frames):
    prepared = [prepare(f) for f in frames]
    finder = ShiftFinder(prepared[0].relative[0])
    return [StagedFrame(p, tuple(map(float, finder.find(p)[0]))) for p in prepared]


def ring_of(truth):
    return truth == ClassCode.RING


def test_consensus_of_one_frame_is_that_frame(scan, centroids):
    consensus = agree(staged_of(scan.frames[:1], [(0, 0)]), centroids, OPTIONS)
    prepared = prepare(scan.frames[0])
    assert consensus.relative == pytest.approx(prepared.relative[0], abs=1e-4)
    assert np.array_equal(consensus.ring, centroids.ring(prepared, [consensus.geometry])[0])


def test_more_frames_of_a_strong_sample_agree_better_with_the_truth(strong, centroids):
    staged = registered(strong.frames[[0, 5, 10, 15, 20]])
    found = [
        iou(agree(staged[:n], centroids, OPTIONS).ring, ring_of(strong.truth[0])) for n in (1, 5)
    ]
    assert found[1] > found[0] + 0.03
    assert found[1] > 0.88


def test_frames_are_moved_back_by_their_shift_before_they_are_averaged(centroids):
    shifts = ((0, 0), (3, -4), (-2.5, 1.5))
    scan = simulate(GoldBalls(n_frames=3, drift_path=shifts))
    right = agree(staged_of(scan.frames, shifts), centroids, OPTIONS)
    wrong = agree(staged_of(scan.frames, [(0, 0)] * 3), centroids, OPTIONS)
    truth = ring_of(scan.truth[0])
    assert iou(right.ring, truth) > 0.9
    assert iou(wrong.ring, truth) < 0.7
    assert (right.geometry.y, right.geometry.x) == pytest.approx((51.46, 49.2), abs=0.4)


def test_bright_frames_do_not_drown_faint_ones(scan, centroids):
    frames = scan.frames[:2].astype(np.float32)
    frames[1] *= 100
    consensus = agree(staged_of(frames, [(0, 0)] * 2), centroids, OPTIONS)
    each = [prepare(f).relative[0] for f in frames]
    assert consensus.relative == pytest.approx(np.mean(each, axis=0), abs=0.05)


def test_label_is_moved_to_the_frame_it_is_for(scan, centroids):
    consensus = agree(staged_of(scan.frames[:1], [(0, 0)]), centroids, OPTIONS)
    assert np.array_equal(consensus.label_for((0, 0)), consensus.ring)
    assert np.array_equal(consensus.label_for((3, -2)), np.roll(consensus.ring, (3, -2), (0, 1)))
    half = consensus.label_for((0.4, 0.3))
    assert half.dtype == np.bool_
    assert iou(half, consensus.ring) > 0.75


def test_pixels_unusable_in_one_frame_are_taken_from_the_others(scan, centroids):
    spoiled = scan.frames[:2].astype(np.float32)
    spoiled[0, 45:58, 40:46] = np.nan
    clean = agree(staged_of(scan.frames[:2], [(0, 0)] * 2), centroids, OPTIONS)
    patched = agree(staged_of(spoiled, [(0, 0)] * 2), centroids, OPTIONS)
    assert iou(clean.ring, patched.ring) > 0.93
    alone = agree(staged_of(spoiled[:1], [(0, 0)]), centroids, OPTIONS)
    assert not alone.relative[50:53, 42:44].any()  # never seen: no brightness is invented


def test_shadow_of_a_beam_stop_is_seen_in_the_mean(centroids):
    scan = simulate(GoldBalls(n_frames=3, strong=True, arm_width=5.0, arm_angle=90.0))
    consensus = agree(staged_of(scan.frames, [(0, 0)] * 3), centroids, OPTIONS)
    angles = (np.nonzero(consensus.stop_sectors)[0] + 0.5) * 4
    assert len(angles) >= 3
    assert np.abs(angles - 270).max() < 40  # the arm comes from the top, towards row 0
    clear = simulate(GoldBalls(n_frames=3))
    assert not agree(staged_of(clear.frames, [(0, 0)] * 3), centroids, OPTIONS).stop_sectors.any()


def test_finder_finds_the_shift_against_the_mean(strong, centroids):
    staged = registered(strong.frames[[0, 3, 6, 9]])
    consensus = agree(staged, centroids, OPTIONS)
    assert consensus.finder is consensus.finder
    found = consensus.finder.find(prepare(strong.frames[20]))[0]
    assert found == pytest.approx(strong.shifts[20], abs=0.45)


def test_frames_of_two_different_beams_have_no_mean(centroids):
    """Each has a beam, their mean fills most of the frame."""
    bands = np.zeros((2, 64, 64))
    bands[0, :, 20:44] = bands[1, 20:44] = 100
    frames = np.random.default_rng(0).poisson(bands + 0.2).astype(np.uint16)
    with pytest.raises(FrameError, match="no beam"):
        agree(staged_of(frames, [(0, 0)] * 2), centroids, OPTIONS)


def test_annulus_and_its_consensus_share_the_geometry(centroids):
    beam = annulus((80, 90), (38.0, 47.0), 9, 20)
    frames = np.random.default_rng(0).poisson(np.where(beam, 30, 0.1), (3, 80, 90))
    consensus = agree(staged_of(frames.astype(np.uint16), [(0, 0)] * 3), centroids, OPTIONS)
    assert (consensus.geometry.y, consensus.geometry.x) == pytest.approx((38, 47), abs=0.3)
    assert consensus.geometry.radius == pytest.approx(20, abs=0.6)
    assert iou(consensus.ring, beam) > 0.97
