"""Steadies masks over time: what the student saw so far and what the frames show on average.

Both live in the frame of the reference. The student's probability averages out what is left of
noise and sample in single frames; the mean of the frames averages out what the student learned
wrongly. Each alone is the better one on some data; the mean of their log-odds is never far from the
better of the two.
"""

from dataclasses import dataclass

import numpy as np

from .frame import FloatArray
from .register import translate
from .track import Shift

STEEPNESS = 8.0
"""Log-odds per plateau at the edge, as in the student: ``logit = 8 (S/p - level)``."""
YOUNG = 5
"""Frames after which the mean of the frames has half of its final share."""
CERTAIN = 1e-4


@dataclass(frozen=True, slots=True)
class FusionOptions:
    """How masks are averaged over time.

    Parameters
    ----------
    least_weight : float
        Of the newest frame's probability in a long run; the n-th frame since the last change of the
        beam weighs 1/n, at least this.
    share : float
        Of the mean of the frames in the fused log-odds, once there are many; the rest is the
        student's.
    """

    least_weight: float = 0.05
    share: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not 0 < self.least_weight <= 1:
            raise ValueError("least_weight must be above 0 and up to 1")
        if not 0 <= self.share < 1:
            raise ValueError("share must lie in 0 to 1, 1 excluded: the student has the rest")


class Fusion:
    """Running mean of the student's probability, joined with the mean of the frames.

    Parameters
    ----------
    options : FusionOptions
    level : float
        Fraction of the plateau that bounds the ring.
    """

    _options: FusionOptions
    _level: float
    _mean: FloatArray | None
    _n: int

    def __init__(self, options: FusionOptions, level: float = 0.5) -> None:
        self._options = options
        self._level = level
        self._mean = None
        self._n = 0

    def forget(self) -> None:
        """Begin anew: the beam is another one."""
        self._mean, self._n = None, 0

    def update(
        self, probability: FloatArray, mean: FloatArray, frames: int, shift: Shift
    ) -> FloatArray:
        """Take the next frame's ring probability, return the fused one at the frame's place.

        Parameters
        ----------
        probability : ndarray of float32
            ``(h, w)`` of the student.
        mean : ndarray of float32
            ``(h, w)`` mean of the frames in plateaus, in the frame of the reference.
        frames : int
            How many frames are in `mean`.
        shift : tuple of float
            ``(dy, dx)`` of the frame against the reference [px].
        """
        moved = np.clip(translate(probability, (-shift[0], -shift[1])), 0, 1)
        self._n += 1
        weight = np.float32(max(1 / self._n, self._options.least_weight))
        self._mean = moved if self._mean is None else (1 - weight) * self._mean + weight * moved
        share = np.float32(self._options.share * frames / (frames + YOUNG))
        odds = (1 - share) * _log_odds(self._mean) + share * (STEEPNESS * (mean - self._level))
        return np.clip(translate(_probability(odds), shift), 0, 1)


def _log_odds(probability: FloatArray) -> FloatArray:
    p = np.clip(probability, CERTAIN, 1 - CERTAIN)
    return np.log(p / (1 - p)).astype(np.float32)


def _probability(log_odds: FloatArray) -> FloatArray:
    return (1 / (1 + np.exp(-np.clip(log_odds, -30, 30)))).astype(np.float32)
