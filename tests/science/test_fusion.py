import numpy as np
import pytest

from ptychoseg_stream.science.fusion import STEEPNESS, YOUNG, Fusion, FusionOptions
from ptychoseg_stream.science.metrics import iou
from ptychoseg_stream.science.register import translate

STUDENT_ALONE = FusionOptions(share=0.0)
STILL = (0.0, 0.0)


def blob(height=0.98):
    y, x = np.indices((40, 50))
    return (height * np.exp(-((y - 20) ** 2 + (x - 24) ** 2) / 60)).astype(np.float32)


def odds(p):
    return np.log(p / (1 - p))


def full(value):
    return np.full((4, 5), value, np.float32)


def alone(fusion, probability, shift=STILL):
    """Update where the mean of the frames has no share."""
    return fusion.update(probability, np.zeros_like(probability), 0, shift)


# --- the student's part ---------------------------------------------------------------------------


def test_first_frame_is_its_own_mean():
    assert alone(Fusion(STUDENT_ALONE), blob()) == pytest.approx(blob(), abs=2e-4)


def test_first_frames_weigh_alike():
    fusion = Fusion(STUDENT_ALONE)
    values = [0.9, 0.2, 0.6, 0.3]
    for n, value in enumerate(values, 1):
        assert alone(fusion, full(value)) == pytest.approx(np.mean(values[:n]), abs=1e-5)


def test_newest_frame_of_a_long_run_has_the_least_weight():
    fusion = Fusion(FusionOptions(least_weight=0.2, share=0.0))
    for _ in range(10):
        alone(fusion, full(0.9))
    assert alone(fusion, full(0.1)) == pytest.approx(0.8 * 0.9 + 0.2 * 0.1, abs=1e-5)
    assert alone(fusion, full(0.1)) == pytest.approx(0.64 * 0.9 + 0.36 * 0.1, abs=1e-5)


def test_least_weight_of_one_is_the_frame_itself():
    fusion = Fusion(FusionOptions(least_weight=1.0, share=0.0))
    alone(fusion, blob(0.3))
    assert alone(fusion, blob()) == pytest.approx(blob(), abs=2e-4)


def test_forgotten_fusion_begins_anew():
    fusion = Fusion(FusionOptions())
    for _ in range(30):
        fusion.update(full(0.95), full(1), 30, STILL)
    fusion.forget()
    fresh = Fusion(FusionOptions())
    for value in (0.1, 0.3, 0.2):
        again = fusion.update(full(value), full(0.3), 2, STILL)
        assert again.tobytes() == fresh.update(full(value), full(0.3), 2, STILL).tobytes()
    assert (again < 0.5).all()


def test_beam_that_moves_is_averaged_in_its_own_frame_and_stays_in_place():
    fusion, fixed = Fusion(STUDENT_ALONE), Fusion(STUDENT_ALONE)
    for step in range(12):
        shift = (0.5 * step, -0.25 * step)
        frame = np.clip(translate(blob(), shift), 0, 1)
        fused, blurred = alone(fusion, frame, shift), alone(fixed, frame)
    assert iou(fused > 0.5, frame > 0.5) > 0.9
    assert iou(blurred > 0.5, frame > 0.5) < 0.8


def test_noise_of_single_frames_is_averaged_away():
    rng = np.random.default_rng(0)
    fusion = Fusion(STUDENT_ALONE)
    middle = 0.3 + 0.4 * blob()
    noisy = [middle + rng.normal(0, 0.05, (40, 50)).astype(np.float32) for _ in range(200)]
    for n, frame in enumerate(noisy, 1):
        fused = alone(fusion, frame)
        if n == 16:
            assert np.std(fused - middle) == pytest.approx(0.05 / 4, rel=0.15)
    # A moving average of weight w has w / (2 - w) of the variance.
    assert np.std(fused - middle) == pytest.approx(0.05 * np.sqrt(0.05 / 1.95), rel=0.15)


# --- the share of the mean ------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [0, 1, YOUNG, 20, 1000])
def test_share_of_the_mean_grows_with_its_frames(frames):
    options = FusionOptions(share=0.6)
    fused = Fusion(options).update(full(0.2), full(0.75), frames, STILL)
    share = 0.6 * frames / (frames + YOUNG)
    expected = (1 - share) * odds(0.2) + share * STEEPNESS * (0.75 - 0.5)
    assert odds(fused) == pytest.approx(expected, abs=1e-3)


def test_mean_is_read_against_the_level_of_the_ring():
    low = Fusion(FusionOptions(), level=0.3).update(full(0.5), full(0.4), 1000, STILL)
    high = Fusion(FusionOptions(), level=0.7).update(full(0.5), full(0.4), 1000, STILL)
    assert (low > 0.55).all()
    assert (high < 0.45).all()


def test_certain_student_can_be_outvoted_by_no_single_frame_but_by_many():
    """A mean of one frame hardly counts; of many it wins where it is clear and the student not."""
    student, mean = full(0.35), full(0.95)
    assert (Fusion(FusionOptions()).update(student, mean, 0, STILL) < 0.5).all()
    assert (Fusion(FusionOptions()).update(student, mean, 100, STILL) > 0.5).all()


def test_mean_is_in_the_frame_of_the_reference_and_the_answer_at_the_place_of_the_frame():
    shift = (3.0, -5.0)
    there = translate(blob(), shift)
    fused = Fusion(FusionOptions()).update(there, blob(), 1000, shift)
    assert iou(fused > 0.5, there > 0.5) > 0.95
    wrong = Fusion(FusionOptions()).update(there, there, 1000, shift)
    assert iou(wrong > 0.5, there > 0.5) < 0.9


def test_fusion_is_better_than_either_alone_where_each_errs_elsewhere():
    rng = np.random.default_rng(0)
    y, x = np.indices((60, 60))
    truth = np.hypot(y - 30, x - 30) < 18
    left, right = truth & (x < 20), truth & (x > 40)
    fusion, student = Fusion(FusionOptions()), Fusion(STUDENT_ALONE)
    mean = np.where(truth, 0.9, 0.1).astype(np.float32)
    mean[right] = 0.42  # what the sample leaves in the mean
    for n in range(1, 31):
        p = np.where(truth, 0.85, 0.15) + rng.normal(0, 0.25, truth.shape)
        p[left] -= 0.45  # what the student learned wrongly
        p = np.clip(p, 0, 1).astype(np.float32)
        fused = fusion.update(p, mean, n, STILL)
        only = alone(student, p)
    score = iou(fused > 0.5, truth)
    assert score > 0.97
    assert score > iou(only > 0.5, truth) + 0.03
    assert score > iou(mean > 0.5, truth) + 0.03
    assert score > iou(p > 0.5, truth) + 0.03


# --- what is promised -----------------------------------------------------------------------------


def test_answer_is_a_probability_whatever_comes_in():
    extremes = np.array([[0, 1, 0, 1, 0.5]], np.float32).repeat(6, axis=0)
    mean = np.array([[-3, 9, 9, -3, 0.5]], np.float32).repeat(6, axis=0)
    fusion = Fusion(FusionOptions())
    for shift in (STILL, (0.4, -0.3), (2.5, 1.0)):
        fused = fusion.update(extremes, mean, 50, shift)
        assert fused.dtype == np.float32
        assert fused.shape == extremes.shape
        assert fused.min() >= 0
        assert fused.max() <= 1


def test_update_leaves_its_input_and_what_it_returned_alone():
    fusion = Fusion(FusionOptions())
    frame, mean = blob(), blob(0.7)
    one = fusion.update(frame, mean, 3, STILL)
    kept = one.copy()
    fusion.update(np.zeros_like(frame), mean, 3, STILL)
    assert np.array_equal(frame, blob())
    assert np.array_equal(mean, blob(0.7))
    assert np.array_equal(one, kept)


@pytest.mark.parametrize(
    ("name", "value"),
    [("least_weight", 0.0), ("least_weight", 1.1), ("share", -0.1), ("share", 1.0)],
)
def test_fusion_that_cannot_work_is_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        FusionOptions(**{name: value})
