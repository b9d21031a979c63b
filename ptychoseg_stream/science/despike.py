"""Cosmic rays out: spikes, and tracks of several pixels; and the repair of what cannot be used.

What tells a cosmic ray from diffraction is sharpness: the beam's own speckles are as wide as the
detector's point spread at least, and what is narrow there comes back in the next frame.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .frame import BoolArray, FloatArray

DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
SHARP = 6.0
"""How many times its neighbours a pixel must reach without a history to compare with."""
NEW = 3.0
"""How many times its neighbours a pixel must reach where the frames before were dark."""
SQUARE = np.ones((3, 3), bool)
EDGE = 3  # px that views of neighbours need around the frame


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What the frames before say about each pixel.

    Parameters
    ----------
    mean, highest : ndarray of float32
        ``(h, w)`` mean counts of the frames before, averaged over and greatest of the 3x3
        neighbourhood.
    """

    mean: FloatArray
    highest: FloatArray


def counting_unit(counts: FloatArray, usable: BoolArray) -> np.float32:
    """Return the counts that one event makes: 1, or more if the frame looks not like photons.

    Where `gain` was left at 1 for a detector with 30 units per photon, every single photon would
    pass for a cosmic ray. There the variance of faint 7x7 neighbourhoods (mean 0.5 to 3) exceeds
    their mean; up to eight times is left to read noise and to the sample. To be asked of frames
    full of spikes only: where a few tracks are all there is, they are what this finds.

    Parameters
    ----------
    counts, usable : ndarray
        ``(h, w)``.
    """
    values = np.where(usable, counts, np.float32(0))
    mean = ndimage.uniform_filter(values, 7)
    faint = (mean > 0.5) & (mean < 3)
    if int(faint.sum()) < 50:
        return np.float32(1)
    variance = ndimage.uniform_filter(np.square(values), 7)[faint] - np.square(mean[faint])
    ratio = np.float32(np.median(variance / mean[faint]))
    return ratio if ratio > 8 else np.float32(1)


def find_spikes(counts: FloatArray, bad: BoolArray) -> BoolArray:
    """Find single bright pixels, ``(h, w)``.

    A pixel is a spike if ``I > 6 q3 + 3 + 5 sqrt(q3 + 1)``, q3 being the third largest value of its
    3x3 neighbourhood (at least 0; bad neighbours count as 0). Bad pixels are judged, too: whether
    those that were hot still are.

    Parameters
    ----------
    counts, bad : ndarray
        ``(h, w)``.
    """
    padded = np.pad(np.where(bad, np.float32(0), counts), 1, mode="reflect")
    y, x = np.nonzero(_maybe_spike(counts, padded))
    spikes = np.zeros(bad.shape, bool)
    if len(y):
        windows = np.stack([padded[y + dy, x + dx] for dy in range(3) for dx in range(3)], axis=1)
        third = np.maximum(np.partition(windows, 6, axis=1)[:, 6], 0)
        spikes[y, x] = counts[y, x] > spike_level(third, SHARP)
    return spikes


def find_cosmics(counts: FloatArray, spikes: BoolArray, past: Past | None) -> BoolArray:
    """Find spikes and tracks, ``(h, w)``.

    A track begins at pixels that rise above both their neighbours in some direction: by `SHARP`
    times at 1 px, or, where the frames before were dark, by `NEW` times at up to 2 px. From there
    it grows along pixels above twice their surroundings.

    Parameters
    ----------
    counts : ndarray of float32
        ``(h, w)``, unusable pixels set to 0.
    spikes : ndarray of bool
        ``(h, w)`` of `find_spikes`, usable pixels only.
    past : Past or None
        None for the first frames.
    """
    y, x = np.nonzero(counts > 7)  # the least that any level below lets pass
    values = counts[y, x]
    padded = np.pad(counts, EDGE, mode="reflect")
    near = _ridge(padded, y, x, 1)
    if past is None:
        begins = values > spike_level(near, SHARP)
    else:
        new = values > spike_level(4 / SHARP * past.highest[y, x], SHARP)
        second = np.minimum(near, _ridge(padded, y, x, 2))
        begins = (values > spike_level(second, NEW)) & new
    found = spikes.copy()
    found[y[begins], x[begins]] = True
    return _grown(found, counts, padded, past) if found.any() else found


def repair(counts: FloatArray, wrong: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Replace wrong pixels by the median of the right ones in 3x3, else 5x5, else 7x7.

    Parameters
    ----------
    counts, wrong : ndarray
        ``(h, w)``.

    Returns
    -------
    counts : ndarray of float32
        ``(h, w)`` repaired; 0 where no right pixel is within reach.
    unknown : ndarray of bool
        ``(h, w)`` where that is so.
    """
    repaired = counts.copy()
    todo = wrong.copy()
    repaired[todo] = 0
    for reach in (1, 2, 3):
        y, x = np.nonzero(todo)
        if len(y) == 0:
            break
        size = 2 * reach + 1
        values = np.pad(np.where(wrong, np.nan, counts), reach, constant_values=np.nan)
        windows = np.stack(
            [values[y + dy, x + dx] for dy in range(size) for dx in range(size)], axis=1
        )
        windows.sort(axis=1)  # NaN comes last
        right = np.isfinite(windows).sum(axis=1)
        some = right > 0
        windows, middle = windows[some], right[some] // 2
        low = np.maximum(middle - (right[some] % 2 == 0), 0)
        rows = np.arange(len(windows))
        repaired[y[some], x[some]] = (windows[rows, low] + windows[rows, middle]) / 2
        todo[y[some], x[some]] = False
    return repaired, todo


def spike_level(neighbours: FloatArray, factor: float) -> FloatArray:
    """What a pixel must exceed: so many times its neighbours, and five times their noise."""
    least = np.maximum(neighbours, 0)
    return np.float32(factor) * least + 3 + 5 * np.sqrt(least + 1)


def _maybe_spike(counts: FloatArray, padded: FloatArray) -> BoolArray:
    """Cheap superset of the spikes: the third largest is at least the least of any three."""
    left, right = padded[1:-1, :-2], padded[1:-1, 2:]
    up, down = padded[:-2, 1:-1], padded[2:, 1:-1]
    bound = np.maximum(np.minimum(left, right), np.minimum(up, down))
    bound = np.minimum(bound, counts)
    return (counts > 8) & (counts > spike_level(bound, SHARP))


def _ridge(padded: FloatArray, y: NDArray[np.intp], x: NDArray[np.intp], reach: int) -> FloatArray:
    """Greater of two opposite neighbours at `reach` px, in the direction where that is least."""
    y, x = y + EDGE, x + EDGE
    least = np.full(len(y), np.inf, np.float32)
    for dy, dx in DIRECTIONS:
        a, b = reach * dy, reach * dx
        np.minimum(least, np.maximum(padded[y + a, x + b], padded[y - a, x - b]), out=least)
    return least


def _grown(
    found: BoolArray, counts: FloatArray, padded: FloatArray, past: Past | None
) -> BoolArray:
    around = ndimage.binary_dilation(found, SQUARE, iterations=3) & ~found & (counts > 3)
    y, x = np.nonzero(around)
    values = counts[y, x]
    if past is None:  # at more than 1 px, a narrow ring would rise above its sides, too
        side = np.maximum(_ridge(padded, y, x, 1), 0)
        above = values > 2 * side + 1 + 2 * np.sqrt(side + 1)
    else:
        side = np.maximum(np.minimum(_ridge(padded, y, x, 2), _ridge(padded, y, x, 3)), 0)
        above = values > 2 * side + 1 + 2 * np.sqrt(side + 1)
        usual = np.maximum(past.mean[y, x], 0)
        above &= values > 1.5 * usual + 1 + 2 * np.sqrt(usual + 1)
    may = found.copy()
    may[y[above], x[above]] = True
    return np.asarray(ndimage.binary_dilation(found, SQUARE, iterations=3, mask=may), bool)
