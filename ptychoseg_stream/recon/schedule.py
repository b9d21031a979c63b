"""How much each pixel of each frame counts, and when: validity, and what may be made of classes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..science.frame import ClassCode, FloatArray
from .growing import GrowingScan


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which pixels count.

    Parameters
    ----------
    ring_first : int
        Epochs at the beginning that see ring and core only: an early image. Never for good: the
        dark field carries the resolution.
    variance : bool
        Whether a pixel counts by I / (I + v), v being the variance of its background.
    """

    ring_first: int = 0
    variance: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.ring_first < 0:
            raise ValueError(f"ring_first: {self.ring_first} must not be below 0")

    def weights(self, scan: GrowingScan, index: NDArray[np.intp], epoch: int) -> FloatArray:
        """Return ``(n, H, W)`` float32, 0 to 1: how much the pixels of these frames count.

        Parameters
        ----------
        scan : GrowingScan
        index : ndarray of int
            ``(n,)`` frames.
        epoch : int
            Counted from 0.
        """
        use = scan.usable(index)
        if epoch < self.ring_first:
            classes = scan.classes[index]
            use &= (classes == ClassCode.RING) | (classes == ClassCode.CORE)
        weights = use.astype(np.float32)
        if self.variance:
            counts = np.maximum(scan.frames[index], 0)
            weights *= counts / (counts + background_variance(scan))
        return weights


def background_variance(scan: GrowingScan) -> FloatArray:
    """Return ``(H, W)`` variance of one sample of the background [counts^2], above 0.

    Where it is not known it is that of the background's own counts, and of 0.5 at least: the read
    noise of a good detector.
    """
    least = np.float32(0.5)
    if scan.products is None:
        return np.full(scan.shape, least, np.float32)
    variance, background = scan.products.background_variance, scan.products.background
    known = np.where(np.isfinite(variance), variance, background)
    return np.maximum(known, least).astype(np.float32)
