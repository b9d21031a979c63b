import math

import numpy as np
import pytest
from beams import annulus

from ptychoseg_stream.evaluation.calibration import near_border, reliability, ring_probability
from ptychoseg_stream.science.frame import ClassCode, Frame, Mask

RING = annulus((64, 64), (32, 32), 8, 16)


def drawn(seed, shape=(64, 64)):
    """Probabilities, and a truth that comes true as often as they say."""
    rng = np.random.default_rng(seed)
    p = rng.random(shape).astype(np.float32)
    return p, rng.random(shape) < p


def mask_with(confidence, classes):
    return Mask(Frame("run", 3, None, classes.shape), classes, "fused", "ok", confidence=confidence)


def test_honest_probabilities_have_almost_no_calibration_error():
    result = reliability([drawn(i) for i in range(20)], reach=None)
    assert result.error < 0.01
    assert result.observed == pytest.approx(result.predicted, abs=0.02)
    assert result.count.sum() == 20 * 64 * 64
    assert result.brier == pytest.approx(1 / 6, abs=0.005)  # mean of p (1 - p)


def test_overconfidence_shows_as_the_distance_from_the_diagonal():
    p, truth = drawn(0, (400, 400))
    sure = np.where(p > 0.5, np.float32(1), np.float32(0))
    result = reliability([(sure, truth)], reach=None)
    assert result.error == pytest.approx(0.25, abs=0.01)  # right three times out of four
    assert result.count[[0, 9]].sum() == truth.size
    assert np.isnan(result.observed[1:9]).all()


def test_figures_of_a_handful_of_pixels_are_those_done_by_hand():
    p = np.array([[0.05, 0.15, 0.15, 1.0]], np.float32)
    truth = np.array([[False, False, True, True]])
    result = reliability([(p, truth)], reach=None)
    assert result.count.tolist() == [1, 2, 0, 0, 0, 0, 0, 0, 0, 1]
    assert result.observed[[0, 1, 9]].tolist() == [0, 0.5, 1]
    assert result.error == pytest.approx((0.05 + 2 * 0.35 + 0) / 4)
    assert result.brier == pytest.approx((0.0025 + 0.0225 + 0.7225) / 4)


def test_frames_add_up_whatever_their_order():
    pairs = [drawn(i) for i in range(3)]
    one, other = (reliability(p, reach=None) for p in (pairs, pairs[::-1]))
    assert one.count.tolist() == other.count.tolist()
    assert one.error == pytest.approx(other.error)


def test_only_pixels_near_the_true_border_count():
    near = near_border(RING, 4)
    assert near.sum() < 0.5 * near.size
    assert not near[0, 0]
    assert not near[32, 32]  # the middle of the core
    assert (near & RING).any()
    assert (near & ~RING).any()
    certain = RING.astype(np.float32)
    assert reliability([(certain, RING)]).count.sum() == near.sum()
    assert reliability([(certain, RING)], reach=None).count.sum() == near.size


def test_border_of_the_frame_is_no_border():
    assert not near_border(np.ones((20, 20), bool), 4).any()


def test_frames_without_a_border_give_no_figures():
    empty = np.zeros((20, 20), bool)
    result = reliability([(np.zeros((20, 20), np.float32), empty)])
    assert result.count.sum() == 0
    assert math.isnan(result.error)
    assert math.isnan(result.brier)


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan])
def test_what_is_no_probability_is_refused_by_frame(value):
    good = drawn(0)
    with pytest.raises(ValueError, match="frame 1 has probabilities outside 0 to 1"):
        reliability([good, (np.full((64, 64), value, np.float32), good[1])], reach=None)
    with pytest.raises(ValueError, match="bins"):
        reliability([good], bins=1)


def test_confidence_is_that_of_the_decision_ring_or_not():
    classes = np.array([[ClassCode.RING, ClassCode.RING, ClassCode.CORE, ClassCode.EMPTY]], "u1")
    confidence = np.array([[255, 128, 255, 204]], np.uint8)
    found = ring_probability(mask_with(confidence, classes))
    assert found == pytest.approx(np.array([[1, 128 / 255, 0, 0.2]]), abs=1e-6)
    with pytest.raises(ValueError, match="frame 3: the mask carries no confidence"):
        ring_probability(mask_with(None, classes))
