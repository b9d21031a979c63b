"""Whether probabilities mean what they say: reliability bins and expected calibration error.

Of the pixels that are called ring with probability 0.8, 80 % should be ring. Naeini, Cooper and
Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning" (AAAI 2015); Guo,
Pleiss, Sun and Weinberger, "On calibration of modern neural networks" (ICML 2017).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..science.frame import BoolArray, ClassCode, FloatArray, Mask

CERTAIN = 255


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Pixels by what was predicted of them.

    Parameters
    ----------
    count : ndarray of int64
        ``(bins,)`` pixels whose probability lies in the bin; bins divide 0 to 1 evenly.
    predicted : ndarray of float64
        ``(bins,)`` their mean probability; NaN for an empty bin.
    observed : ndarray of float64
        ``(bins,)`` the fraction of them that is ring; NaN for an empty bin.
    brier : float
        Mean squared difference of probability and truth, 0 to 1 (Brier 1950); NaN for no pixels.
    """

    count: NDArray[np.int64]
    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    brier: float

    @property
    def error(self) -> float:
        """Expected calibration error: mean of ``|observed - predicted|`` over pixels; NaN if none.

        ECE of Naeini et al. (2015), equation 3, with equal-width bins.
        """
        total = int(self.count.sum())
        if total == 0:
            return float("nan")
        used = self.count > 0
        gap = np.abs(self.observed[used] - self.predicted[used])
        return float((self.count[used] * gap).sum() / total)


def reliability(
    pairs: Iterable[tuple[FloatArray, BoolArray]], bins: int = 10, reach: int | None = 4
) -> Reliability:
    """Collect reliability over frames.

    Parameters
    ----------
    pairs : iterable of (ndarray, ndarray)
        Of each frame, the probability of ring ``(h, w)`` and the truth ``(h, w)``.
    bins : int
    reach : int or None
        Only pixels within so many pixels (chessboard) of the true border count, None for all: of a
        whole frame 95 % are dark and certain, and any model looks calibrated.

    Raises
    ------
    ValueError
        If a probability is not within 0 to 1, or `bins` is below 2.
    """
    if bins < 2:
        raise ValueError(f"bins: {bins} must be 2 or more")
    count = np.zeros(bins, np.int64)
    predicted, observed, squared = np.zeros(bins), np.zeros(bins), 0.0
    for number, (probability, truth) in enumerate(pairs):
        chosen = np.ones(truth.shape, bool) if reach is None else near_border(truth, reach)
        p, y = probability[chosen].astype(np.float64), truth[chosen].astype(np.float64)
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError(f"pairs: frame {number} has probabilities outside 0 to 1")
        at = np.minimum((p * bins).astype(int), bins - 1)
        count += np.bincount(at, minlength=bins)
        predicted += np.bincount(at, p, bins)
        observed += np.bincount(at, y, bins)
        squared += float(np.square(p - y).sum())
    some = np.where(count > 0, count, np.nan)
    total = int(count.sum())
    brier = squared / total if total else float("nan")
    return Reliability(count, predicted / some, observed / some, brier)


def near_border(region: BoolArray, reach: int) -> BoolArray:
    """Pixels within `reach` [px, chessboard] of the border of a region, on both sides of it.

    The border of the frame is none.
    """
    square = np.ones((2 * reach + 1, 2 * reach + 1), bool)
    inside = ndimage.binary_erosion(region, square, border_value=1)
    return ndimage.binary_dilation(region, square) & ~inside


def ring_probability(mask: Mask) -> FloatArray:
    """Probability of ring of each pixel, ``(h, w)`` float32, from the confidence of a mask.

    ``confidence / 255`` is the probability that the published decision, ring or not, is right.

    Raises
    ------
    ValueError
        If the mask carries no confidence.
    """
    if mask.confidence is None:
        raise ValueError(f"frame {mask.frame.index}: the mask carries no confidence; ask for it")
    right = mask.confidence.astype(np.float32) / np.float32(CERTAIN)
    return np.where(mask.classes == ClassCode.RING, right, 1 - right)
