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
BETA = ALPHA**2 / (2 - ALPHA)
"""Part of a residual that changes the velocity."""
JUMP = 0.75
"""Residual that is no noise [px]; two in a row are a jump of the beam, or a drift begun."""
LONG = 30
"""Frames after which the gains are those of the steady state."""


class BeamTracker:
    """The shift of the beam, frame by frame."""

    _position: NDArray[np.float64] | None
    _velocity: NDArray[np.float64]  # px per frame
    _far: NDArray[np.float64] | None  # the measurement before, if it was far off
    _frames: int  # on the present line; the reference is where the first frame is

    def __init__(self) -> None:
        self._position = None
        self._velocity = np.zeros(2)
        self._far = None
        self._frames = LONG

    def is_far(self, measured: Shift) -> bool:
        """Whether a measurement is too far off what is expected to be noise."""
        residual = np.asarray(measured) - self._predicted(measured)
        return bool(np.abs(residual).max() > JUMP)

    def update(self, measured: Shift, seen: bool = False) -> Shift:
        """Take the measured shift of the next frame, return the smoothed one.

        A measurement far off is ignored once; when the next is far off too, the beam has jumped and
        is followed at once. The velocity is learned anew from these two: a drift too fast for the
        filter looks like one jump after the other.

        Parameters
        ----------
        measured : tuple of float
            ``(dy, dx)`` [px].
        seen : bool
            Whether the beam is known to be there, so that it is followed however far off.
        """
        shift = measured if seen and self.is_far(measured) else self.expected(measured)
        place = np.asarray(measured, np.float64)
        residual = place - self._predicted(measured)
        if not self.is_far(measured):
            self._far = None
            self._frames = min(self._frames + 1, LONG)
            self._velocity = self._velocity + _gains(self._frames)[1] * residual
        elif self._far is not None:
            self._velocity = place - self._far
            self._far, self._frames = None, 2
        elif seen:
            self._frames = 1
        else:
            self._far = place
        self._position = np.asarray(shift)
        return shift

    def expected(self, measured: Shift) -> Shift:
        """Return what `update` would, without taking the measurement."""
        predicted = self._predicted(measured)
        if not self.is_far(measured):
            return _pair(predicted + _gains(self._frames + 1)[0] * (measured - predicted))
        return _pair(predicted if self._far is None else np.asarray(measured))

    def _predicted(self, measured: Shift) -> NDArray[np.float64]:
        if self._position is None:
            return np.asarray(measured, np.float64)
        return self._position + self._velocity


def _gains(n: int) -> tuple[float, float]:
    """Return both gains at the n-th frame of a line: those of a least-squares fit at first."""
    return max(ALPHA, (4 * n - 2) / (n * (n + 1))), max(BETA, 6 / (n * (n + 1)))


def _pair(shift: NDArray[np.float64]) -> Shift:
    return float(shift[0]), float(shift[1])
