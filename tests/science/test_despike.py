import numpy as np
import pytest
from beams import annulus

from ptychoseg_stream.science.despike import despike

NARROW = annulus((104, 104), (51.5, 49.2), 4.6, 9.6)


def despiked_one_by_one(image, bad):
    """The formula, pixel by pixel; beyond the border the image is mirrored at its last pixel."""
    h, w = image.shape
    mirrored = np.pad(image, 1, mode="reflect")
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
    return clean, int((hot & ~bad).sum())


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
    expected, count = despiked_one_by_one(image, bad)
    clean, spikes_found = despike(image[None], bad[None])
    assert np.array_equal(clean[0], expected)
    assert spikes_found.tolist() == [count]
    assert count > 5


def test_despike_leaves_a_clean_beam_alone():
    image = np.random.default_rng(0).poisson(1000.0 * NARROW).astype(np.float32)
    clean, spikes = despike(image[None], np.zeros((1, 104, 104), bool))
    assert np.array_equal(clean[0], image)
    assert spikes.tolist() == [0]
