"""Pixels that are wrong in frame after frame: hot, dead, stuck.

They are told by the mean of many frames in the frame of the detector, against neighbours: what the
beam makes, moving or not, is as wide as the detector's point spread.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .frame import BoolArray, FloatArray

SIGNIFICANT = 5.0
"""Standard deviations by which a pixel must differ from its neighbours."""
CORRELATED = 4.0
"""Frames that count as one: neighbours on the scan see much of the same sample."""
SURE = 16.0
"""Changes that the neighbours of a stuck pixel must have seen: chance is below exp(-16)."""


@dataclass(frozen=True, slots=True, eq=False)
class Accumulated:
    """What is known of each pixel after many frames, ``(h, w)`` each.

    Parameters
    ----------
    frames : ndarray of float32
        Number of frames in which the pixel was usable.
    mean, variance : ndarray of float32
        Over these [counts, counts^2].
    changed : ndarray of float32
        Part of the frames in which the value was not that of the frame before.
    still : ndarray of int32
        Number of frames since it last changed.
    """

    frames: FloatArray
    mean: FloatArray
    variance: FloatArray
    changed: FloatArray
    still: NDArray[np.int32]


def find_hot(seen: Accumulated, bad: BoolArray) -> BoolArray:
    """Find pixels that over-respond on average, ``(h, w)``.

    Brighter than three times the second brightest of their eight neighbours and than the brightest
    (where a streak ends, there is one), or stuck above the second.

    Parameters
    ----------
    seen : Accumulated
    bad : ndarray of bool
        ``(h, w)`` pixels that tell nothing about their neighbours.
    """
    around = np.maximum(_neighbours(seen.mean, bad, -np.inf), 0)
    second = around[-2]
    noise = np.maximum(_neighbours(seen.variance, bad, 0.0)[-2], second)
    # Its own variance, too: one frame alone makes no hot pixel.
    error = np.sqrt((CORRELATED * noise + seen.variance) / np.maximum(seen.frames, 1))
    above = seen.mean - second
    bright = (
        (seen.mean > 3 * second)
        & (seen.mean > around[-1])
        & (above > SIGNIFICANT * error)
        & (above > 0.5)
    )
    return (bright & enough(seen, bad)) | (_stuck(seen, bad) & (above > 0))


def find_dead(seen: Accumulated, bad: BoolArray) -> BoolArray:
    """Find pixels that do not count, ``(h, w)``, where there was light enough to tell.

    Darker than a fifth of the third darkest of their eight neighbours, or stuck below it; below
    zero by as much where a pedestal was subtracted from a pixel that does not even have that.
    """
    third = _neighbours(seen.mean, bad, np.inf)[2]
    third = np.where(np.isfinite(third), third, np.float32(0))
    noise = np.maximum(_neighbours(seen.variance, bad, 0.0)[2], 0.05)
    expected = np.maximum(third, 0)
    error = np.sqrt((noise + expected) / np.maximum(seen.frames, 1))
    dark = (seen.mean < 0.2 * expected) & (third - seen.mean > SIGNIFICANT * error)
    return (dark & enough(seen, bad)) | (_stuck(seen, bad) & (seen.mean <= third))


def _neighbours(values: FloatArray, bad: BoolArray, instead: float) -> FloatArray:
    """Sorted values of the eight neighbours, ``(8, h, w)``; `instead` where they are bad."""
    padded = np.pad(np.where(bad, np.float32(instead), values), 1, mode="reflect")
    h, w = values.shape
    around = [
        padded[dy : dy + h, dx : dx + w] for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)
    ]
    return np.sort(np.stack(around), axis=0)


def enough(seen: Accumulated, bad: BoolArray) -> BoolArray:
    """Pixels seen in ten frames that differ: one frame ten times over is one frame."""
    changes = seen.frames * _neighbours(seen.changed, bad, 0.0)[-1]
    return (seen.frames >= 9.5) & (changes > 2.5)


def _stuck(seen: Accumulated, bad: BoolArray) -> BoolArray:
    """Pixels whose value stands still while that of their neighbours changes."""
    rate = _neighbours(seen.changed, bad, 1.0)[2]
    return (seen.still >= 20) & (seen.still * rate > SURE)
