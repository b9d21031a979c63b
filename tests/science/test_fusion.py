import numpy as np
import pytest

from ptychoseg_stream.science.fusion import Fusion
from ptychoseg_stream.science.metrics import iou
from ptychoseg_stream.science.register import translate


def blob(height=1.0):
    y, x = np.indices((40, 50))
    return (height * np.exp(-((y - 20) ** 2 + (x - 24) ** 2) / 60)).astype(np.float32)


def test_first_frame_is_its_own_mean():
    assert np.array_equal(Fusion(0.2).update(blob(), (0, 0)), blob())


def test_newest_frame_has_the_weight_that_was_given():
    fusion = Fusion(0.2)
    ones, zeros = np.ones((4, 5), np.float32), np.zeros((4, 5), np.float32)
    assert fusion.update(ones, (0, 0)) == pytest.approx(ones)
    assert fusion.update(zeros, (0, 0)) == pytest.approx(0.8 * ones)
    assert fusion.update(zeros, (0, 0)) == pytest.approx(0.64 * ones)
    assert fusion.update(ones, (0, 0)) == pytest.approx((0.8 * 0.64 + 0.2) * ones)


def test_weight_of_one_is_the_frame_itself():
    fusion = Fusion(1.0)
    fusion.update(blob(0.3), (0, 0))
    assert fusion.update(blob(), (0, 0)) == pytest.approx(blob())


def test_beam_that_moves_is_averaged_in_its_own_frame_and_stays_in_place():
    fusion, fixed = Fusion(0.2), Fusion(0.2)
    for step in range(12):
        shift = (0.5 * step, -0.25 * step)
        frame = translate(blob(), shift)
        fused, blurred = fusion.update(frame, shift), fixed.update(frame, (0, 0))
    assert iou(fused > 0.5, frame > 0.5) > 0.9
    assert iou(blurred > 0.5, frame > 0.5) < 0.8


def test_noise_of_single_frames_is_averaged_away():
    rng = np.random.default_rng(0)
    fusion = Fusion(0.2)
    noisy = [blob() + rng.normal(0, 0.3, (40, 50)).astype(np.float32) for _ in range(30)]
    for frame in noisy:
        fused = fusion.update(frame, (0, 0))
    # An EWMA of weight w has w / (2 - w) of the variance.
    assert np.std(fused - blob()) == pytest.approx(0.3 * np.sqrt(0.2 / 1.8), rel=0.15)
    assert np.std(noisy[-1] - blob()) == pytest.approx(0.3, rel=0.1)


def test_update_leaves_its_input_and_what_it_returned_alone():
    fusion = Fusion(0.5)
    frame = blob()
    one = fusion.update(frame, (0, 0))
    kept = one.copy()
    fusion.update(np.zeros_like(frame), (0, 0))
    assert np.array_equal(frame, blob())
    assert np.array_equal(one, kept)
