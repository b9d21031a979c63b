"""Spikes out: single bright pixels (cosmic rays, hot pixels) and pixels without a value."""

import numpy as np
from numpy.typing import NDArray

from .frame import BoolArray, FloatArray


def despike(counts: FloatArray, bad: BoolArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Replace spikes and unusable pixels by the median of their usable neighbours.

    A pixel is a spike if ``I > 6 q3 + 3 + 5 sqrt(q3 + 1)``, q3 being the third largest value of its
    3x3 neighbourhood (at least 0).

    Parameters
    ----------
    counts, bad : ndarray
        ``(n, h, w)``.

    Returns
    -------
    ndarray of float32
        ``(n, h, w)`` despiked counts J.
    ndarray of int
        ``(n,)`` number of spikes.
    """
    padded = np.pad(counts, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    n, y, x = np.nonzero(_maybe_spike(counts, padded))
    if len(n):
        windows = np.stack(
            [padded[n, y + dy, x + dx] for dy in range(3) for dx in range(3)], axis=1
        )
        third = np.maximum(np.partition(windows, 6, axis=1)[:, 6], 0)
        spike = counts[n, y, x] > _spike_level(third)
        n, y, x = n[spike], y[spike], x[spike]
    hot = np.zeros(bad.shape, bool)
    hot[n, y, x] = True
    clean = counts.copy()
    for i in np.nonzero((hot | bad).any(axis=(1, 2)))[0]:
        clean[i] = _repair(counts[i], hot[i] | bad[i])
    return clean, (hot & ~bad).sum(axis=(1, 2))


def _spike_level(third: FloatArray) -> FloatArray:
    return 6 * third + 3 + 5 * np.sqrt(third + 1)


def _maybe_spike(counts: FloatArray, padded: FloatArray) -> BoolArray:
    """Cheap superset of the spikes: the third largest is at least the least of any three."""
    left, right = padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]
    up, down = padded[:, :-2, 1:-1], padded[:, 2:, 1:-1]
    bound = np.maximum(np.minimum(left, right), np.minimum(up, down))
    bound = np.maximum(np.minimum(bound, counts), 0)
    return (counts > 8) & (counts > _spike_level(bound))


def _repair(image: FloatArray, wrong: BoolArray) -> FloatArray:
    """Median of the right pixels in 3x3, else 5x5, else 7x7; 0 where there is none."""
    repaired = image.copy()
    todo = wrong.copy()
    repaired[todo] = 0
    for reach in (1, 2, 3):
        y, x = np.nonzero(todo)
        if len(y) == 0:
            break
        size = 2 * reach + 1
        values = np.pad(np.where(wrong, np.nan, image), reach, constant_values=np.nan)
        windows = np.stack(
            [values[y + dy, x + dx] for dy in range(size) for dx in range(size)], axis=1
        )
        some = np.isfinite(windows).any(axis=1)
        repaired[y[some], x[some]] = np.nanmedian(windows[some], axis=1)
        todo[y[some], x[some]] = False
    return repaired
