"""Follows the beam: measured shifts, smoothed without lagging behind a steady drift.

An alpha-beta filter, the steady-state Kalman filter of a constant velocity (Bar-Shalom, Li,
Kirubarajan, "Estimation with Applications to Tracking and Navigation" (2001), section 6.5). The
shift of a single frame is uncertain by a tenth of a pixel where the sample refracts the beam;
unsmoothed, that jitter costs a static scan of a strong sample 0.03 of IoU.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Shift: TypeAlias = tuple[float, float]  # (dy, dx) [px]

ALPHA = 0.15
"""Part of a residual that moves the position."""
JUMP = 0.75
"""Residual that is no noise [px]; two in a row are a jump of the beam."""


class BeamTracker:
    """The shift of the beam, frame by frame."""

    def __init__(self) -> None:
        self._position: NDArray[np.float64] | None = None
        self._velocity = np.zeros(2)  # px per frame
        self._far = 0

    def update(self, measured: Shift) -> Shift:
        """Take the measured shift of the next frame, return the smoothed one.

        A measurement far off is ignored once; when the next is far off too, the beam has jumped and
        is followed at once.
        """
        shift = self.expected(measured)
        residual = np.asarray(measured) - np.asarray(self._predicted(measured))
        if np.abs(residual).max() > JUMP:
            self._far += 1
            if self._far > 1:
                self._velocity = np.zeros(2)
                self._far = 0
        else:
            self._far = 0
            self._velocity = self._velocity + ALPHA**2 / (2 - ALPHA) * residual
        self._position = np.asarray(shift)
        return shift

    def expected(self, measured: Shift) -> Shift:
        """Return what `update` would, without taking the measurement."""
        predicted = self._predicted(measured)
        residual = np.asarray(measured) - predicted
        if np.abs(residual).max() <= JUMP:
            return _pair(predicted + ALPHA * residual)
        return _pair(np.asarray(measured) if self._far else predicted)

    def _predicted(self, measured: Shift) -> NDArray[np.float64]:
        if self._position is None:
            return np.asarray(measured, np.float64)
        return self._position + self._velocity


def _pair(shift: NDArray[np.float64]) -> Shift:
    return float(shift[0]), float(shift[1])
