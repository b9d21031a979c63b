"""What of a run's products was not told before."""

import numpy as np
from numpy.typing import NDArray

from ...science.experiment import Positions
from ...science.frame import BitMap


class News:
    """Remembers bits and positions that were told.

    Attributes
    ----------
    revision : int
        How often bits were revised.
    """

    def __init__(self) -> None:
        self.revision = 0
        self._bits: BitMap | None = None
        self._known = np.zeros(0, bool)

    def bits_of(self, pixel_mask: BitMap) -> BitMap | None:
        """Return the bits that were not told; None if there are none.

        Parameters
        ----------
        pixel_mask : ndarray of uint16
            ``(H, W)`` those that hold for all frames.
        """
        before = self._bits
        if before is None or before.shape != pixel_mask.shape:
            return pixel_mask if pixel_mask.any() else None
        new = pixel_mask & ~before
        return new if new.any() else None

    def revise(self, bits: BitMap) -> int:
        """Remember bits that are told; return the number of their revision."""
        same = self._bits is not None and self._bits.shape == bits.shape
        self._bits = bits if self._bits is None or not same else self._bits | bits
        self.revision += 1
        return self.revision

    def positions_of(self, positions: Positions) -> tuple[int, Positions] | None:
        """Return the positions that were not told, with what lies between them, and the first row.

        Parameters
        ----------
        positions : ndarray of float64
            ``(n, 2)``; NaN where not known.
        """
        known = _finite(positions)
        before = np.zeros(len(known), bool)
        length = min(len(known), len(self._known))
        before[:length] = self._known[:length]
        new = np.flatnonzero(known & ~before)
        if not new.size:
            return None
        first, last = int(new[0]), int(new[-1]) + 1
        return first, positions[first:last]

    def place(self, first: int, positions: Positions) -> None:
        """Remember positions that are told."""
        last = first + len(positions)
        if last > len(self._known):
            self._known = np.concatenate([self._known, np.zeros(last - len(self._known), bool)])
        self._known[first:last] |= _finite(positions)


def _finite(positions: Positions) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(positions).all(axis=1))
