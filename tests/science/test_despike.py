import numpy as np
import pytest
from beams import annulus

from ptychoseg_stream.science.despike import Past, counting_unit, find_cosmics, find_spikes, repair

NARROW = annulus((104, 104), (51.5, 49.2), 4.6, 9.6)


def despiked_one_by_one(image, bad):
    """The formula, pixel by pixel; beyond the border the image is mirrored at its last pixel."""
    h, w = image.shape
    mirrored = np.pad(np.where(bad, np.float32(0), image), 1, mode="reflect")
    hot = np.zeros(image.shape, bool)
    for y in range(h):
        for x in range(w):
            q3 = max(np.sort(mirrored[y : y + 3, x : x + 3], axis=None)[-3], np.float32(0))
            hot[y, x] = image[y, x] > 6 * q3 + 3 + 5 * np.sqrt(q3 + 1)
    wrong = hot | bad
    clean = image.copy()
    for y, x in zip(*np.nonzero(wrong), strict=True):
        clean[y, x] = 0
        for reach in (1, 2, 3):
            window = np.s_[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
            if (~wrong[window]).any():
                clean[y, x] = np.median(image[window][~wrong[window]])
                break
    return clean, hot


@pytest.mark.parametrize("seed", range(8))
def test_despike_is_the_formula_applied_to_each_pixel(seed):
    rng = np.random.default_rng(seed)
    shape = (23, 31)
    level = np.where(annulus(shape, (11, 15), 4, 9), 10 ** rng.uniform(0, 3), 0.2)
    image = (rng.poisson(level) + rng.normal(0, 0.7, shape)).astype(np.float32)
    spikes = rng.random(shape) < 0.03
    image[spikes] = 10 ** rng.uniform(0.5, 5, spikes.sum())
    doubtful = rng.random(shape) < 0.04  # about the limit, which is 8 counts on nothing
    image[doubtful] = (level * rng.uniform(4, 9, shape) + rng.uniform(2, 12, shape))[doubtful]
    image[5, 5:8] = 4e4  # three in a row: too wide for one median
    image[0, 0] = image[-1, 12] = image[10, -1] = 3e4  # corner and borders
    bad = rng.random(shape) < 0.02
    bad[14:22, 20:29] = True  # a gap with pixels that have no neighbour within reach
    image[bad] = 0
    expected, spikes_expected = despiked_one_by_one(image, bad)
    found = find_spikes(image, bad)
    clean, unknown = repair(image, found | bad)
    assert np.array_equal(found, spikes_expected)
    assert found.sum() > 5
    assert np.array_equal(clean, expected)
    assert unknown.any()
    assert not unknown[~bad].any()
    assert not clean[unknown].any()


def test_a_clean_beam_has_no_spikes_and_no_tracks():
    image = np.random.default_rng(0).poisson(1000.0 * NARROW).astype(np.float32)
    spikes = find_spikes(image, np.zeros((104, 104), bool))
    assert not spikes.any()
    assert not find_cosmics(image, spikes, None).any()


def faint_frame(seed=0):
    return np.random.default_rng(seed).poisson(0.3 + 400.0 * NARROW).astype(np.float32)


def with_track(image, width=1):
    hit = np.zeros(image.shape, bool)
    for i in range(9):
        hit[20 + i, 60 + i // 2 : 60 + i // 2 + width] = True
    return np.where(hit, image + 50, image), hit


def found_in(image, past=None):
    return find_cosmics(image, find_spikes(image, np.zeros(image.shape, bool)), past)


def test_a_track_of_one_pixel_width_is_found_whole_in_a_single_frame():
    image, hit = with_track(faint_frame())
    assert not find_spikes(image, np.zeros(image.shape, bool))[22:27].any()
    assert (found_in(image) & hit).sum() == hit.sum()
    assert (found_in(image) & ~hit).sum() <= 3


def test_a_track_two_pixels_wide_is_found_where_the_frames_before_were_dark():
    image, hit = with_track(faint_frame(), 2)
    dark = Past(*2 * [0.3 + 400.0 * NARROW.astype(np.float32)])
    assert (found_in(image, dark) & hit).sum() == hit.sum()
    assert not found_in(faint_frame(1), dark).any()


def test_a_streak_that_was_there_before_is_no_cosmic_ray():
    image, _ = with_track(faint_frame())
    ends = find_spikes(image, np.zeros(image.shape, bool))
    assert np.array_equal(found_in(image, Past(image, image)), ends)


def test_a_photon_of_thirty_units_is_known_by_the_noise_of_faint_pixels():
    rng = np.random.default_rng(0)
    photons = rng.poisson(0.05, (104, 104)).astype(np.float32)
    everywhere = np.ones(photons.shape, bool)
    units = 30 * photons + rng.normal(0, 4, photons.shape).astype(np.float32)
    assert 25 < counting_unit(units, everywhere) < 60
    assert counting_unit(rng.poisson(1, photons.shape).astype(np.float32), everywhere) == 1
    assert counting_unit(np.zeros_like(photons), everywhere) == 1
