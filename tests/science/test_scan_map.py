import numpy as np
import pytest

from ptychoseg_stream.science.scan_map import scan_map

RASTER = np.indices((12, 20)).reshape(2, -1).T * [40e-9, 30e-9] + [3e-6, -1e-6]


def mapped(positions):
    """A map of the positions themselves: its values must be where they say."""
    found = scan_map(positions, positions * 1e6)
    ny, nx = found.values.shape[1:]
    y = found.origin[0] + found.step[0] * np.arange(ny)
    x = found.origin[1] + found.step[1] * np.arange(nx)
    return found, found.values[0] - 1e6 * y[:, None], found.values[1] - 1e6 * x


def test_a_raster_gets_a_cell_per_point():
    found, off_y, off_x = mapped(RASTER)
    assert found.values.shape == (2, 12, 20)
    assert found.step == pytest.approx((40e-9, 30e-9))
    assert found.origin == pytest.approx((3e-6, -1e-6))
    assert np.abs([off_y, off_x]).max() < 1e-6


@pytest.mark.parametrize("order", ["snake", "shuffled", "twice"])
def test_the_order_of_the_points_does_not_matter(order):
    points = RASTER.reshape(12, 20, 2).copy()
    if order == "snake":
        points[1::2] = points[1::2, ::-1]
    points = points.reshape(-1, 2)
    if order == "shuffled":
        points = np.random.default_rng(0).permutation(points)
    if order == "twice":
        points = np.concatenate([points, points])
    assert np.array_equal(mapped(points)[0].values, mapped(RASTER)[0].values)


def test_encoders_that_jitter_leave_a_raster_a_raster():
    noisy = RASTER + np.random.default_rng(0).normal(0, 1e-9, RASTER.shape)
    found, off_y, off_x = mapped(noisy)
    assert found.values.shape == (2, 12, 20)
    assert np.abs([off_y, off_x]).max() < 5e-3


def test_a_scan_that_was_broken_off_has_holes_where_no_point_was():
    found, *_ = mapped(RASTER[:225])
    assert found.values.shape == (2, 12, 20)
    # The cells next to a point take its value: a hole begins a step away.
    assert np.isnan(found.values[0]).sum() == 14


def test_lines_that_are_missing_keep_their_place():
    kept = RASTER.reshape(12, 20, 2)[[0, 1, 4, 5, 6, 7, 8, 9, 10, 11]].reshape(-1, 2)
    found, off_y, _ = mapped(kept)
    assert found.values.shape == (2, 12, 20)
    inside = np.r_[0, 1, 4:12]
    assert np.abs(off_y[inside]).max() < 1e-6


def spiral(n=400):
    turn = np.arange(n) * 2.39996
    return 30e-9 * np.sqrt(np.arange(n))[:, None] * np.stack([np.sin(turn), np.cos(turn)], 1)


@pytest.mark.parametrize(
    "positions",
    [
        spiral(),
        np.random.default_rng(0).random((500, 2)) * 1e-6,
        RASTER + np.random.default_rng(1).uniform(-12e-9, 12e-9, RASTER.shape),
    ],
    ids=["spiral", "random", "jittered on purpose"],
)
def test_an_irregular_scan_has_its_values_within_a_step_of_where_they_belong(positions):
    found, off_y, off_x = mapped(positions)
    assert np.nanmax(np.abs(off_y)) <= 1.01e6 * found.step[0]
    assert np.nanmax(np.abs(off_x)) <= 1.01e6 * found.step[1]
    assert np.isnan(found.values[0]).mean() < 0.25
    assert 0.5 < found.values[0].size / len(positions) < 2.5


def test_frames_without_position_or_number_are_left_out():
    positions, numbers = RASTER.copy(), np.ones((len(RASTER), 1))
    positions[5] = np.nan
    numbers[7] = np.nan
    numbers[3] = 5
    found = scan_map(positions, numbers)
    assert found.values.shape == (1, 12, 20)
    assert found.values[0, 0, 3] == 5
    assert np.isnan(found.values[0, 0, 7]) or found.values[0, 0, 7] == 1


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_points_are_no_reason_to_fail(n):
    found = scan_map(RASTER[:n], np.ones((n, 4)))
    assert found.values.shape == (4, 1, max(n, 1))
    assert np.isfinite(found.values).all() == (n > 0)


def test_positions_nobody_knows_give_one_cell_of_nan():
    found = scan_map(np.full((5, 2), np.nan), np.ones((5, 4)))
    assert found.values.shape == (4, 1, 1)
    assert np.isnan(found.values).all()


def test_a_point_far_away_does_not_take_all_memory():
    far = np.concatenate([spiral(100), [[1e3, 1e3]]])
    assert scan_map(far, np.ones((101, 1))).values.size < 1 << 22
