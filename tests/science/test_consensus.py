from dataclasses import replace

import numpy as np
import pytest
from beams import annulus
from scipy import ndimage

from ptychoseg_stream.errors import FrameError
from ptychoseg_stream.science.consensus import LEAST_WEIGHT, RunningMean
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.frame import ClassCode, ValidBit
from ptychoseg_stream.science.level import find_level
from ptychoseg_stream.science.metrics import iou
from ptychoseg_stream.science.prepare import Prepared, prepare
from ptychoseg_stream.science.register import ShiftFinder, translate
from ptychoseg_stream.sim import GoldBalls, simulate

OPTIONS = PrepareOptions()
STILL = (0.0, 0.0)


def mean_of(frames, shifts=None) -> RunningMean:
    """Running mean of frames at known shifts; of unmoved ones without."""
    prepared = [f if isinstance(f, Prepared) else prepare(f) for f in frames]
    mean = RunningMean.empty(prepared[0].counts.shape[1:])
    for frame, shift in zip(prepared, shifts or [STILL] * len(prepared), strict=True):
        mean = mean.plus(frame, shift)
    return mean


def registered(frames) -> RunningMean:
    prepared = [prepare(f) for f in frames]
    finder = ShiftFinder(prepared[0].relative[0])
    return mean_of(prepared, [tuple(map(float, finder.find(p)[0])) for p in prepared])


def flat(value, plateau, bad=None) -> Prepared:
    """A frame of one value everywhere, with a plateau that is given."""
    counts = np.full((1, 20, 24), value, np.float32)
    bits = np.zeros((1, 20, 24), np.uint16)
    if bad is not None:
        bits[0][bad] = ValidBit.HOT
    plain = np.array([plateau], np.float32), bits, np.zeros(1, np.intp), bits.astype(bool)
    return Prepared(counts, counts, *plain)


def ring_of(truth):
    return truth == ClassCode.RING


# --- the mean -------------------------------------------------------------------------------------


def test_mean_of_one_frame_is_that_frame_in_plateaus(scan):
    prepared = prepare(scan.frames[0])
    mean = mean_of([prepared])
    assert mean.n == 1
    assert mean.counts == prepared.plateau[0]
    expected = prepared.counts[0] / prepared.plateau[0]
    good = ~prepared.bad[0]
    assert mean.image(OPTIONS)[good] == pytest.approx(expected[good], abs=1e-5)


def test_mean_is_immutable(scan):
    prepared = [prepare(f) for f in scan.frames[:3]]
    one = mean_of(prepared[:1])
    before = one.total.tobytes(), one.weight.tobytes(), one.counts, one.n
    two, other = one.plus(prepared[1], STILL), one.plus(prepared[2], (1.5, -0.5))
    assert (one.total.tobytes(), one.weight.tobytes(), one.counts, one.n) == before
    assert two.total.tobytes() != other.total.tobytes()
    again = one.plus(prepared[1], STILL)
    assert again.total.tobytes() == two.total.tobytes()


def test_faint_frames_weigh_by_their_counts_and_bright_ones_alike():
    """A frame of plateau p weighs p / (p + 25)."""
    mean = mean_of([flat(25, 25.0), flat(200, 100.0)])  # 1 and 2 plateaus, weights 1/2 and 4/5
    assert mean.weight == pytest.approx(0.5 + 0.8)
    assert mean.image(OPTIONS) == pytest.approx((0.5 * 1 + 0.8 * 2) / 1.3)
    assert mean.counts == 125
    bright = mean_of([flat(1e5, 1e5), flat(2e6, 1e6)])
    assert bright.image(OPTIONS) == pytest.approx(1.5, abs=1e-3)


def test_bright_frames_do_not_drown_faint_ones(scan, centroids):
    frames = scan.frames[:2].astype(np.float32)
    frames[1] *= 100
    image = mean_of(frames).image(OPTIONS)
    each = [p.counts[0] / p.plateau[0] for p in map(prepare, frames)]
    assert image == pytest.approx(np.mean(each, axis=0), abs=0.05)


def test_bad_pixels_are_averaged_over_the_other_frames():
    where = np.s_[5:8, 6:9]
    mean = mean_of([flat(300, 100.0, where), flat(100, 100.0), flat(100, 100.0)])
    image = mean.image(OPTIONS)
    assert image[where] == pytest.approx(1.0)
    assert image[0, 0] == pytest.approx(5 / 3)
    assert mean.weight[where] == pytest.approx(2 * 0.8)


def test_bad_pixels_move_with_their_frame():
    mean = mean_of([flat(300, 100.0, np.s_[5:8, 6:9]), flat(100, 100.0)], [(2.0, -1.0), STILL])
    assert mean.image(OPTIONS)[3:6, 7:10] == pytest.approx(1.0)
    assert mean.image(OPTIONS)[6:8, 6:9] == pytest.approx(2.0)


def test_pixel_that_was_never_good_is_dark_and_the_reference_does_not_invent_it(scan, centroids):
    spoiled = scan.frames[:2].astype(np.float32)
    spoiled[:, 45:58, 40:46] = np.nan
    mean = mean_of(spoiled)
    assert not mean.image(OPTIONS)[50:53, 42:44].any()
    assert not mean.consensus(centroids, OPTIONS).relative[50:53, 42:44].any()


def test_pixels_unusable_in_one_frame_are_taken_from_the_others(scan, centroids):
    spoiled = scan.frames[:2].astype(np.float32)
    spoiled[0, 45:58, 40:46] = np.nan
    clean = mean_of(scan.frames[:2]).consensus(centroids, OPTIONS)
    patched = mean_of(spoiled).consensus(centroids, OPTIONS)
    assert iou(clean.ring, patched.ring) > 0.93


def test_mean_remembers_about_fifty_frames():
    mean = mean_of([flat(100, 100.0)] * 60)
    longest = 1 / LEAST_WEIGHT
    assert mean.n == 60
    assert mean.weight / 0.8 == pytest.approx(longest, abs=1e-3)
    assert mean.counts == pytest.approx(100 * longest)
    for _ in range(100):
        mean = mean.plus(flat(200, 100.0), STILL)
    assert mean.image(OPTIONS) == pytest.approx(2 - (1 - LEAST_WEIGHT) ** 100, abs=1e-3)


def test_first_fifty_frames_weigh_alike():
    values = np.linspace(50, 150, 50)
    assert mean_of([flat(v, 100.0) for v in values]).image(OPTIONS) == pytest.approx(1, abs=1e-4)


def test_mean_of_faint_frames_is_smoothed_as_its_counts_call_for():
    rng = np.random.default_rng(0)
    noisy = [replace(flat(1, 1.0), counts=rng.poisson(1.0, (1, 20, 24)).astype(np.float32))]
    few, many = mean_of(noisy), mean_of(noisy * 40)
    assert few.image(OPTIONS).std() < 0.5 * many.image(OPTIONS).std()  # 40 counts: left as it is


# --- the teacher on the mean ----------------------------------------------------------------------


def test_consensus_of_one_frame_is_that_frame_on_its_interior_plateau(scan, centroids):
    prepared = prepare(scan.frames[0])
    consensus = mean_of([prepared]).consensus(centroids, OPTIONS)
    geometry, raised = find_level(prepared)
    assert consensus.geometry == geometry
    assert consensus.relative == pytest.approx(raised.relative[0], abs=1e-4)
    assert np.array_equal(consensus.ring, centroids.ring(raised, [geometry])[0])
    assert consensus.factor == pytest.approx(raised.plateau[0] / prepared.plateau[0], abs=1e-4)
    assert consensus.factor > 1.02
    assert consensus.profile.verdict == "annulus"


def test_unit_makes_the_image_of_the_mean_the_reference(scan, centroids):
    mean = mean_of(scan.frames[:4])
    consensus = mean.consensus(centroids, OPTIONS)
    assert mean.image(OPTIONS) / consensus.unit == pytest.approx(consensus.relative, abs=1e-4)


def test_more_frames_of_a_strong_sample_agree_better_with_the_truth(strong, centroids):
    frames = strong.frames[[0, 5, 10, 15, 20]]
    truth = ring_of(strong.truth[0])
    found = [iou(registered(frames[:n]).consensus(centroids, OPTIONS).ring, truth) for n in (1, 5)]
    assert found[1] > found[0] + 0.03
    assert found[1] > 0.9


def test_frames_are_moved_back_by_their_shift_before_they_are_averaged(centroids):
    shifts = ((0.0, 0.0), (3.0, -4.0), (-2.5, 1.5))
    scan = simulate(GoldBalls(n_frames=3, drift_path=shifts))
    right = mean_of(scan.frames, shifts).consensus(centroids, OPTIONS)
    wrong = mean_of(scan.frames).consensus(centroids, OPTIONS)
    truth = ring_of(scan.truth[0])
    assert iou(right.ring, truth) > 0.9
    assert iou(wrong.ring, truth) < 0.7
    assert (right.geometry.y, right.geometry.x) == pytest.approx((51.46, 49.2), abs=0.4)


def test_shadow_of_a_beam_stop_is_seen_in_the_mean(centroids):
    scan = simulate(GoldBalls(n_frames=3, strong=True, arm_width=5.0, arm_angle=90.0))
    consensus = mean_of(scan.frames).consensus(centroids, OPTIONS)
    angles = (np.nonzero(consensus.stop_sectors)[0] + 0.5) * 4
    assert len(angles) >= 3
    assert np.abs(angles - 270).max() < 40  # the arm comes from the top, towards row 0
    clear = simulate(GoldBalls(n_frames=3))
    assert not mean_of(clear.frames).consensus(centroids, OPTIONS).stop_sectors.any()


def test_finder_finds_the_shift_against_the_mean(strong, centroids):
    consensus = registered(strong.frames[[0, 3, 6, 9]]).consensus(centroids, OPTIONS)
    assert consensus.finder is consensus.finder
    found = consensus.finder.find(prepare(strong.frames[20]))[0]
    assert found == pytest.approx(strong.shifts[20], abs=0.45)


def test_frames_of_two_different_beams_have_no_mean(centroids):
    """Each has a beam, their mean fills most of the frame."""
    bands = np.zeros((2, 64, 64))
    bands[0, :, 20:44] = bands[1, 20:44] = 100
    frames = np.random.default_rng(0).poisson(bands + 0.2).astype(np.uint16)
    with pytest.raises(FrameError, match="no ring"):
        mean_of(frames).consensus(centroids, OPTIONS)


def test_annulus_and_its_consensus_share_the_geometry(centroids):
    beam = annulus((80, 90), (38.0, 47.0), 9, 20)
    frames = np.random.default_rng(0).poisson(np.where(beam, 30, 0.1), (3, 80, 90))
    consensus = mean_of(frames.astype(np.uint16)).consensus(centroids, OPTIONS)
    assert (consensus.geometry.y, consensus.geometry.x) == pytest.approx((38, 47), abs=0.3)
    assert consensus.geometry.radius == pytest.approx(20, abs=0.6)
    assert iou(consensus.ring, beam) > 0.97
    assert 1 <= consensus.factor < 1.03  # a wide ring


# --- moved to a frame -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(scan, centroids):
    return mean_of(scan.frames[:6]).consensus(centroids, OPTIONS)


def test_within_a_pixel_of_the_border_of_the_ring_the_mean_decides_what_the_label_is(
    reference, centroids
):
    label = reference.label_for(STILL, centroids)
    square = np.ones((3, 3), bool)
    inside = ndimage.binary_erosion(reference.ring, square)
    near = ndimage.binary_dilation(reference.ring, square) & ~inside
    assert np.array_equal(label[~near], reference.ring[~near])
    assert np.array_equal(label[near], reference.relative[near] > reference.level)
    higher = replace(reference, level=0.7).label_for(STILL, centroids)
    assert inside.sum() <= higher.sum() < label.sum()


def test_reference_and_label_are_moved_by_the_shift_of_the_frame(reference, centroids):
    assert np.array_equal(reference.at(STILL), reference.relative)
    there = np.roll(reference.relative, (3, -2), (0, 1))
    inside = np.s_[5:-5, 5:-5]
    assert np.array_equal(reference.at((3.0, -2.0))[inside], there[inside])
    assert reference.at((0.4, 0.3)) == pytest.approx(translate(reference.relative, (0.4, 0.3)))
    label = np.roll(reference.label_for(STILL, centroids), (3, -2), (0, 1))
    assert np.array_equal(reference.label_for((3.0, -2.0), centroids), label)


@pytest.mark.parametrize("shift", [(0.5, 0.5), (0.4, -0.3), (2.5, 1.25), (-0.25, 4.5)])
def test_moved_mean_has_the_ring_that_the_teacher_sees_there_and_a_moved_mask_has_not(
    shift, reference, centroids
):
    """Of a ring five pixels wide, half a pixel is a tenth."""
    y, x = 51.46, 49.2
    there = replace(GoldBalls().pupil, center=(y + shift[0], x + shift[1]))
    truth = ring_of(simulate(GoldBalls(n_frames=1, pupil=there)).truth[0])
    label, fast = reference.label_for(shift, centroids), reference.ring_at(shift)
    rounded = np.roll(reference.ring, (round(shift[0]), round(shift[1])), (0, 1))
    assert label.dtype == fast.dtype == np.bool_
    assert iou(label, fast) > 0.96
    assert iou(label, truth) > 0.93
    assert iou(label, truth) > iou(rounded, truth)


def test_ring_of_the_moved_mean_is_where_it_exceeds_the_level(reference):
    high = replace(reference, level=0.8)
    assert high.ring_at(STILL).sum() < reference.ring_at(STILL).sum()
    assert not (reference.ring_at(STILL) & (reference.relative < 0.4)).any()
