"""The plateau of a narrow ring: what half of it is, and where that lies."""

import numpy as np
import pytest
from beams import degrees, radius
from scipy.special import erf

from ptychoseg_stream.science.frame import ClassCode
from ptychoseg_stream.science.geometry import find_beam
from ptychoseg_stream.science.level import LARGEST, find_level, interior_factor, levelled
from ptychoseg_stream.science.prepare import join, prepare

SHAPE = (104, 104)
CENTRE = (51.46, 49.2)


def soft_ring(inner, outer, softness, shape=SHAPE, centre=CENTRE):
    """An annulus of height 1 whose edges are error functions."""
    r = radius(shape, centre)
    rise, fall = (erf((r - at) / (softness * 2**0.5)) for at in (inner, outer))
    return 0.25 * (1 + rise) * (1 - fall)


def counted(image, dose=1000.0, seed=0):
    return prepare(np.random.default_rng(seed).poisson(dose * image + 0.05).astype(np.uint16))


def factor_of(prepared, level=0.5):
    relative = prepared.relative[0]
    return interior_factor(relative, find_beam(relative, level), level)


def excess(prepared, image):
    """By how much the area above half of the plateau exceeds the true one."""
    return (prepared.relative[0] > 0.5).sum() / (image > 0.5).sum() - 1


@pytest.mark.parametrize("dose", [100.0, 2000.0])
def test_narrow_soft_ring_is_too_large_at_half_of_its_median_not_of_its_interior(dose):
    image = soft_ring(4.6, 9.6, 1.0)
    prepared = counted(image, dose)
    _, raised = find_level(prepared)
    assert 0.05 < excess(prepared, image) < 0.12
    assert abs(excess(raised, image)) < 0.05
    assert abs(excess(raised, image)) < 0.6 * excess(prepared, image)
    assert abs(raised.plateau[0] / dose - 1) < 0.65 * abs(prepared.plateau[0] / dose - 1)


def test_rings_of_the_simulated_scan_have_the_area_that_their_truth_has(scan):
    plain, raised = [], []
    for frame, truth in zip(scan.frames[::6], scan.truth[::6], strict=True):
        prepared = prepare(frame)
        area = (truth == ClassCode.RING).sum()
        plain.append((prepared.relative[0] > 0.5).sum() / area)
        raised.append((find_level(prepared)[1].relative[0] > 0.5).sum() / area)
    assert np.mean(plain) > 1.05
    assert np.mean(raised) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize(("inner", "outer", "side"), [(12, 26, 104), (30, 70, 200), (0, 10, 104)])
def test_wide_ring_and_disc_need_no_factor(inner, outer, side):
    image = soft_ring(inner, outer, 1.0, (side, side), (side / 2 + 0.3, side / 2 - 0.4))
    assert 1 <= factor_of(counted(image)) < 1.01


def test_bright_spots_of_one_frame_do_not_raise_the_level():
    """The interior of a single modulated frame would follow them; the mean over circles does not.

    The factor of the frame is compared with that of the mean over the sample, which is smooth.
    """
    image = soft_ring(4.6, 9.6, 1.0)
    usual = factor_of(counted(image))
    around = np.deg2rad(degrees(SHAPE, CENTRE))
    frames = [1 + 0.6 * np.sin(3 * around + turn) for turn in np.linspace(0, 6, 9)]
    found = [factor_of(counted(image * modulation, seed=i)) for i, modulation in enumerate(frames)]
    mean = factor_of(counted(image * np.mean(frames, axis=0)))
    assert mean == pytest.approx(usual, abs=0.02)
    assert found == pytest.approx([usual] * 9, abs=0.06)


def test_factor_of_a_strong_sample_is_nearly_that_of_the_mean_of_its_frames(strong):
    still = strong.frames[:12]  # half a pixel of drift
    mean = factor_of(prepare(still.mean(axis=0).astype(np.float32)))
    found = [factor_of(prepare(frame)) for frame in still]
    assert np.mean(found) == pytest.approx(mean, abs=0.05)
    assert np.std(found) < 0.05


def test_factor_is_never_below_one_nor_above_its_limit():
    rng = np.random.default_rng(0)
    y, x = np.indices(SHAPE)
    spot = np.exp(-(radius(SHAPE, CENTRE) ** 2) / 8)
    for image in (spot, rng.random(SHAPE), (y > x) * 1.0, np.eye(104), np.zeros(SHAPE)):
        relative = image.astype(np.float32)
        assert 1 <= interior_factor(relative, find_beam(relative)) <= LARGEST


def test_one_lit_pixel_and_nothing_at_all_need_no_factor():
    dark = np.zeros(SHAPE, np.float32)
    one = dark.copy()
    one[51, 49] = 1
    for relative in (dark, one):
        assert interior_factor(relative, find_beam(relative)) == 1


def test_level_moves_plateaus_and_nothing_else(scan):
    batch = join([prepare(f) for f in scan.frames[:2]])
    raised = levelled(batch, 1.1)
    assert raised.plateau == pytest.approx(1.1 * batch.plateau)
    assert raised.plateau.dtype == np.float32
    for name in ("counts", "smooth", "bits", "spikes", "unknown"):
        assert getattr(raised, name) is getattr(batch, name)
    assert raised.relative == pytest.approx(batch.relative / 1.1, rel=1e-5)


def test_find_level_finds_the_beam_and_uses_its_factor(scan):
    prepared = prepare(scan.frames[0])
    geometry, raised = find_level(prepared)
    assert geometry == find_beam(prepared.relative[0])
    factor = interior_factor(prepared.relative[0], geometry)
    assert factor > 1.02
    assert raised.plateau[0] == prepared.plateau[0] * np.float32(factor)
