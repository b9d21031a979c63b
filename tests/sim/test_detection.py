import numpy as np
import pytest

from ptychoseg_stream.sim import GoldBalls, simulate, thin


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_thinning_keeps_dtype_and_scales_mean_and_poisson_variance(dtype):
    counts = np.random.default_rng(0).poisson(200, (20, 64, 64)).astype(dtype)
    thinned = thin(counts, 0.1, np.random.default_rng(1))
    assert thinned.dtype == dtype
    assert thinned.shape == counts.shape
    assert thinned.mean() == pytest.approx(20, rel=0.01)
    assert thinned.var() == pytest.approx(20, rel=0.03)


def test_thinned_float_frames_stay_unbiased_where_read_noise_is_negative():
    noise = np.random.default_rng(0).normal(0, 0.7, (50, 64, 64)).astype(np.float32)
    thinned = thin(noise, 0.1, np.random.default_rng(1))
    assert thinned.mean() == pytest.approx(0.1 * noise.mean(), abs=2e-3)
    assert (thinned < 0).any()


def test_thinning_by_one_changes_nothing_and_by_zero_leaves_nothing():
    frames = simulate(GoldBalls(n_frames=2)).frames
    rng = np.random.default_rng(0)
    assert np.array_equal(thin(frames, 1.0, rng), frames)
    assert not thin(frames, 0.0, rng).any()


def test_thinning_depends_on_the_seed_only():
    frames = simulate(GoldBalls(n_frames=1)).frames
    one, two, other = (thin(frames, 0.3, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_thinning_leaves_pixels_alone_that_are_not_finite():
    frames = np.array([[np.nan, np.inf, 100.0]])
    thinned = thin(frames, 0.5, np.random.default_rng(0))
    assert np.isnan(thinned[0, 0])
    assert np.isinf(thinned[0, 1])
    assert 20 < thinned[0, 2] < 80


@pytest.mark.parametrize("factor", [-0.1, 1.5])
def test_a_dose_cannot_be_raised(factor):
    with pytest.raises(ValueError, match="factor"):
        thin(np.ones((1, 2, 2)), factor, np.random.default_rng(0))


def test_uint16_frames_saturate_in_place_of_wrapping():
    frames = simulate(GoldBalls(n_frames=1, gain=100.0)).frames
    assert frames.max() == 65535
    assert np.median(frames) < 1000
