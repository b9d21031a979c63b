"""A beam that rests, drifts, jumps, and measurements that err."""

import numpy as np
import pytest

from ptychoseg_stream.science.track import JUMP, BeamTracker


def tracked(measured):
    tracker = BeamTracker()
    return np.array([tracker.update((float(y), float(x))) for y, x in measured])


def jittered(path, sigma=0.12, seed=0):
    return path + np.random.default_rng(seed).normal(0, sigma, path.shape)


def rms(error):
    return float(np.sqrt(np.square(error).mean()))


def test_first_measurement_is_taken_as_it_is():
    assert BeamTracker().update((3.5, -2.25)) == (3.5, -2.25)
    assert BeamTracker().expected((3.5, -2.25)) == (3.5, -2.25)


@pytest.mark.parametrize("speed", [(0.1, -0.05), (0.25, 0.1), (1.0, 0.5), (0.0, 0.02)])
def test_steady_drift_is_followed_without_lag(speed):
    path = np.arange(200)[:, None] * np.array(speed)
    assert tracked(path)[-50:] == pytest.approx(path[-50:], abs=0.01)


@pytest.mark.parametrize("speed", [0.05, 0.2, 0.25, 0.5])
def test_drift_that_begins_within_a_run_is_followed_however_fast(speed):
    """Beyond 0.15 px per frame the steady filter falls so far behind that it takes it for jumps."""
    path = np.zeros((120, 2))
    path[40:] = np.arange(80)[:, None] * np.array([speed, -speed])
    measured = jittered(path, 0.05)
    found = tracked(measured)
    assert np.abs(found - path).max() < 1.3
    assert rms(found[-40:] - path[-40:]) < 0.05


def test_plain_moving_average_would_lag():
    """What the velocity is for: an average of the same weight stays behind."""
    path = np.arange(200)[:, None] * np.array([0.1, 0.0])
    behind = path[0]
    for place in path:
        behind = behind + 0.15 * (place - behind)
    assert path[-1, 0] - behind[0] > 0.5


@pytest.mark.parametrize("speed", [(0.0, 0.0), (0.05, -0.03)])
@pytest.mark.parametrize("seed", range(3))
def test_jitter_is_less_than_half_of_what_is_measured(speed, seed):
    path = np.arange(300)[:, None] * np.array(speed)
    measured = jittered(path, seed=seed)
    settled = slice(40, None)
    error = rms(tracked(measured)[settled] - path[settled])
    assert error < 0.5 * rms(measured[settled] - path[settled])


def test_one_outlier_is_ignored_as_if_it_had_been_where_it_was_expected():
    path = np.arange(40)[:, None] * np.array([0.1, -0.1])
    spoiled = path.copy()
    spoiled[30] += (6, -4)
    found = tracked(spoiled)
    assert found[30] == pytest.approx(path[30], abs=0.1)
    assert found[31:] == pytest.approx(path[31:], abs=0.1)


def test_outliers_apart_from_each_other_are_all_ignored():
    spoiled = np.zeros((40, 2))
    spoiled[10:40:5] = (5, 5)
    assert not tracked(spoiled).any()


def test_jump_is_followed_at_its_second_frame():
    path = np.zeros((30, 2))
    path[15:] = (4.0, -3.0)
    found = tracked(path)
    assert not found[:16].any()  # the first frame after the jump may be an outlier
    assert found[16:] == pytest.approx(path[16:], abs=1e-9)


def test_jump_that_was_seen_is_followed_at_its_first_frame():
    tracker = BeamTracker()
    for _ in range(10):
        tracker.update((0.0, 0.0))
    assert tracker.is_far((4.0, -3.0))
    assert not tracker.is_far((0.5, -0.5))
    assert tracker.update((4.0, -3.0), seen=True) == (4.0, -3.0)
    assert not tracker.is_far((4.0, -3.0))
    for _ in range(5):
        assert tracker.update((4.0, -3.0)) == pytest.approx((4.0, -3.0), abs=1e-9)


def test_fast_drift_that_is_seen_is_followed_from_its_second_frame_on():
    tracker = BeamTracker()
    for _ in range(10):
        tracker.update((0.0, 0.0))
    for i in range(1, 30):
        place = (2.0 * i, -1.0 * i)
        assert tracker.update(place, seen=True) == pytest.approx(place, abs=1e-6)


def test_what_is_near_is_smoothed_even_if_it_was_seen():
    one, other = BeamTracker(), BeamTracker()
    for y, x in jittered(np.zeros((30, 2))):
        assert one.update((y, x), seen=True) == other.update((y, x))


def test_jump_ends_what_was_known_of_the_velocity():
    path = np.arange(60)[:, None] * np.array([0.3, 0.0])
    path[40:] = path[39] + (5, 5)
    assert tracked(path)[41:] == pytest.approx(path[41:], abs=1e-9)


def test_after_a_jump_the_line_is_never_worse_than_what_is_measured():
    path = np.zeros((60, 2))
    path[20:] = (4.0, -3.0)
    errors, raw = [], []
    for seed in range(20):
        measured = jittered(path, seed=seed)
        errors.append((tracked(measured) - path)[21:])
        raw.append((measured - path)[21:])
    assert rms(np.array(errors)[:, :20]) < 0.7 * rms(np.array(raw)[:, :20])
    assert rms(np.array(errors)[:, 30:]) < 0.5 * rms(np.array(raw)[:, 30:])


def test_small_step_is_smoothed_and_is_no_jump():
    path = np.zeros((120, 2))
    path[30:, 0] = 0.9 * JUMP
    found = tracked(path)
    assert 0 < found[30, 0] < 0.3 * JUMP
    assert found[-1, 0] == pytest.approx(0.9 * JUMP, abs=0.02)


def test_expected_is_what_update_returns_and_changes_nothing():
    rng = np.random.default_rng(0)
    path = jittered(np.cumsum(rng.normal(0, 0.05, (120, 2)), axis=0))
    path[50] += 5  # an outlier
    path[80:] -= 4  # a jump
    tracker, alone = BeamTracker(), BeamTracker()
    for y, x in path:
        tracker.expected((99.0, 99.0))
        expected = tracker.expected((float(y), float(x)))
        assert expected == tracker.update((float(y), float(x)))
        assert expected == alone.update((float(y), float(x)))
