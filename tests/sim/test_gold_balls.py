from itertools import pairwise

import numpy as np
import pytest

from ptychoseg_stream.science.frame import ClassCode
from ptychoseg_stream.sim import GoldBalls, simulate
from ptychoseg_stream.sim.gold_balls import OBJECT_PIXEL, SHAPE, raster
from ptychoseg_stream.sim.optics import Beam, Pupil, empty_beam, far_field


def half_maximum_iou(scan):
    """Ring IoU of each frame's half maximum, by the convention of the reference labels."""
    ious = []
    for frame, truth in zip(scan.frames, scan.truth, strict=True):
        bright = frame >= 0.5 * np.percentile(frame, 99.5)
        ring = truth == ClassCode.RING
        ious.append((bright & ring).sum() / (bright | ring).sum())
    return np.array(ious)


@pytest.fixture(scope="module")
def clean():
    return simulate(GoldBalls(n_frames=60))


def test_the_clean_scan_has_the_ring_and_core_of_the_measured_pupil(clean):
    assert clean.frames.shape == clean.truth.shape == (60, *SHAPE)
    assert clean.frames.dtype == np.uint16
    assert clean.truth.dtype == np.uint8
    ring, core = (clean.truth[0] == code for code in (ClassCode.RING, ClassCode.CORE))
    assert ring.sum() == pytest.approx(225, abs=10)
    assert core.sum() == pytest.approx(68, abs=10)
    assert np.argwhere(ring | core).mean(0) == pytest.approx((51.46, 49.20), abs=0.15)


def test_the_azimuthal_profile_is_the_measured_one(clean):
    measured = {7: 45.9e3, 8: 43.3e3, 9: 32.8e3, 10: 16.6e3, 11: 5.0e3}  # ADU at 30 ADU per photon
    y, x = np.indices(SHAPE)
    radius = np.hypot(y - 51.46, x - 49.20)
    mean = 30 * clean.frames.mean(0)
    found = {r: mean[np.abs(radius - r) < 0.5].mean() for r in measured}
    assert found == pytest.approx(measured, rel=0.06)


def test_frames_are_as_close_to_the_truth_as_the_measured_ones(clean):
    ious = half_maximum_iou(clean)
    assert 0.945 < ious.mean() < 0.985  # 0.957 on every 20th frame of the measured set
    assert ious.min() > 0.88


def test_a_strong_sample_makes_the_half_maximum_of_a_frame_fail_in_places():
    ious = half_maximum_iou(simulate(GoldBalls(n_frames=60, strong=True)))
    assert 0.85 < ious.mean() < 0.92
    assert ious.min() < 0.85


def test_the_same_options_give_the_same_bytes_and_another_seed_does_not(clean):
    again = simulate(GoldBalls(n_frames=60))
    assert again.frames.tobytes() == clean.frames.tobytes()
    assert again.truth.tobytes() == clean.truth.tobytes()
    other = simulate(GoldBalls(n_frames=60, seed=1))
    assert other.frames.tobytes() != clean.frames.tobytes()
    assert other.truth.tobytes() == clean.truth.tobytes()


def test_taking_fewer_frames_of_a_grid_looks_at_the_same_sample():
    bright = {"dose": 1e9, "read_noise": 0.0, "dtype": "float32"}
    few, many = (simulate(GoldBalls(n_frames=n, **bright)) for n in (3, 20))
    assert np.array_equal(few.positions, many.positions[:3])
    ring = few.truth == ClassCode.RING
    assert few.frames[ring] == pytest.approx(many.frames[:3][ring], rel=0.01)
    assert few.frames[ring] != pytest.approx(many.frames[3:6][ring], rel=0.01)


def test_positions_are_a_row_wise_raster_in_metres():
    positions = raster((3, 4), 30e-9)
    assert positions.shape == (12, 2)
    assert np.ptp(positions, axis=0) == pytest.approx((60e-9, 90e-9))
    assert positions[1] - positions[0] == pytest.approx((0, 30e-9))  # y, x
    assert positions[4] - positions[0] == pytest.approx((30e-9, 0))
    assert np.array_equal(raster((3, 4), 30e-9, 5), positions[:5])


def test_drift_moves_frames_and_truth_together():
    scan = simulate(GoldBalls(n_frames=21, drift=(6.0, -4.0)))
    assert scan.shifts[[0, 10, 20]] == pytest.approx(np.array([(0, 0), (3, -2), (6, -4)]))
    ring = [np.argwhere(truth == ClassCode.RING).mean(0) for truth in scan.truth]
    assert ring[20] - ring[0] == pytest.approx((6, -4), abs=0.1)
    weights = scan.frames.astype(float) * (scan.frames > 300)
    center = [np.average(np.argwhere(w >= 0), axis=0, weights=w.ravel()) for w in weights]
    assert center[20] - center[0] == pytest.approx((6, -4), abs=1)  # the sample pulls at it
    assert half_maximum_iou(scan).mean() > 0.93
    still = simulate(GoldBalls(n_frames=21)).truth
    moved = [(a == 1) & (b == 1) for a, b in zip(scan.truth, still, strict=True)]
    assert moved[20].sum() < moved[0].sum() / 1.5


def test_a_drift_path_puts_each_frame_where_it_says():
    path = ((0.0, 0.0), (2.0, 0.0), (0.0, -3.0), (0.0, 0.0))
    scan = simulate(GoldBalls(n_frames=4, drift_path=path))
    assert np.array_equal(scan.shifts, path)
    assert np.array_equal(scan.truth[0], scan.truth[3])
    assert np.array_equal(scan.truth[1], np.roll(scan.truth[0], 2, axis=0))
    assert np.array_equal(scan.truth[2], np.roll(scan.truth[0], -3, axis=1))


@pytest.mark.parametrize("factor", [0.3, 0.1, 0.01])
def test_the_dose_changes_where_told_and_the_truth_does_not(factor):
    scan = simulate(GoldBalls(n_frames=12, change_at=6, dose_factor=factor, dtype="float32"))
    flux = scan.frames.sum((1, 2))
    assert flux[6:].mean() / flux[:6].mean() == pytest.approx(factor, rel=0.1)
    assert np.array_equal(scan.truth[5], scan.truth[6])


def test_the_ring_grows_where_told_and_the_truth_with_it():
    scan = simulate(GoldBalls(n_frames=12, change_at=6, ring_scale=1.2))
    area = (scan.truth == ClassCode.RING).sum((1, 2))
    assert np.ptp(area[:6]) == np.ptp(area[6:]) == 0
    assert area[6] / area[5] == pytest.approx(1.44, abs=0.1)
    assert half_maximum_iou(scan)[6:].mean() > 0.9


def test_hot_pixels_are_where_declared_and_nowhere_else():
    scan = simulate(GoldBalls(n_frames=3, hot_pixels=25, hot_value=50000.0))
    assert scan.bad_pixels.sum() == 25
    for frame in scan.frames:
        assert np.array_equal(frame == 50000, scan.bad_pixels)
    assert not simulate(GoldBalls(n_frames=1)).bad_pixels.any()


def test_a_beam_stop_arm_dims_the_ring_and_is_a_class_of_its_own():
    scan = simulate(GoldBalls(n_frames=6, arm_width=5.0, arm_transmission=0.1, drift=(0.0, 3.0)))
    clean = simulate(GoldBalls(n_frames=6, drift=(0.0, 3.0)))
    arm = scan.truth[0] == ClassCode.BEAM_STOP
    assert all(np.array_equal(truth == ClassCode.BEAM_STOP, arm) for truth in scan.truth)
    assert arm[0].sum() == 5
    assert not arm[-1].any()  # it comes from the top
    behind = arm & (clean.truth[0] == ClassCode.RING)
    assert behind.sum() > 15
    assert scan.frames[0][behind].mean() < 0.4 * clean.frames[0][behind].mean()
    free = ~arm
    assert np.array_equal(scan.truth[0][free], clean.truth[0][free])


def test_stray_light_adds_its_part_of_the_dose_away_from_the_ring():
    clean = simulate(GoldBalls(n_frames=4, dtype="float32"))
    stray = simulate(GoldBalls(n_frames=4, dtype="float32", stray=0.05))
    extra = stray.frames.sum((1, 2)).mean() - clean.frames.sum((1, 2)).mean()
    assert extra == pytest.approx(0.05 * GoldBalls().dose, rel=0.1)


def test_an_empty_sample_gives_the_empty_beam():
    pupil, beam = Pupil(), Beam(np.array([[1.5, -2.0]]), np.ones(1))
    nothing = np.ones((208, 208), np.complex64)
    light = far_field(nothing, np.zeros((1, 2)), pupil, beam, SHAPE, OBJECT_PIXEL)
    expected = empty_beam(Pupil(psf=0.0), beam, SHAPE)
    assert light == pytest.approx(expected, abs=1e-3)


def test_a_pedestal_and_gain_give_detector_units():
    photons = simulate(GoldBalls(n_frames=2, dtype="float32", seed=4))
    units = simulate(GoldBalls(n_frames=2, dtype="float32", seed=4, gain=30.0, pedestal=297.0))
    assert units.frames == pytest.approx(30 * photons.frames + 297, rel=1e-5, abs=1e-2)


def test_flux_noise_makes_doses_scatter():
    options = {"n_frames": 40, "dtype": "float32"}
    steady = simulate(GoldBalls(**options)).frames.sum((1, 2))
    noisy = simulate(GoldBalls(**options, flux_noise=0.2)).frames.sum((1, 2))
    assert (noisy / steady).std() == pytest.approx(0.2, rel=0.4)


def test_neighbouring_frames_share_more_of_the_sample_than_distant_ones():
    scan = simulate(GoldBalls(n_frames=40, dose=1e8, read_noise=0.0, dtype="float32"))
    amplitude = np.sqrt(np.maximum(scan.frames, 0)).reshape(40, -1)
    near = np.mean([np.linalg.norm(a - b) for a, b in pairwise(amplitude)])
    far = np.mean([np.linalg.norm(amplitude[i] - amplitude[i + 20]) for i in range(20)])
    assert near < 0.9 * far  # the probe is two steps wide


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"n_frames": 0}, "n_frames: 0"),
        ({"grid": (2, 2), "n_frames": 5}, "n_frames: 5 of a grid of 4"),
        ({"grid": (0, 2)}, "grid"),
        ({"dose": 0.0}, "dose: 0.0"),
        ({"step": -1.0}, "step: -1.0"),
        ({"hot_pixels": -1}, "hot_pixels: -1"),
        ({"n_frames": 3, "drift_path": ((0.0, 0.0),)}, "drift_path: 1 places for 3"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(wrong, named):
    with pytest.raises(ValueError, match=named):
        GoldBalls(**wrong)


def test_jitter_moves_points_and_the_sample_stays_under_them():
    grid = {"grid": (3, 4), "step": 40e-9, "dose": 1e4, "strong": True}
    exact, moved = simulate(GoldBalls(**grid)), simulate(GoldBalls(**grid, jitter=9e-9))
    away = np.abs(moved.positions - exact.positions)
    assert 5e-9 < away.max() <= 9e-9
    assert exact.corner == tuple(exact.positions[0])
    assert moved.corner == tuple(moved.positions.min(axis=0))
    assert moved.sample is not None
    assert min(moved.sample.shape) > 2 * 104
