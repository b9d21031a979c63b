"""Steadies masks over time: an exponentially weighted mean of the ring probability.

It lives in the frame of the reference (the staged mean): each frame's probability is moved there by
its shift, averaged, and moved back.
"""

from .frame import FloatArray
from .register import translate


class Fusion:
    """Exponentially weighted moving average (EWMA) of probabilities in the frame of the beam.

    Parameters
    ----------
    weight : float
        Of the newest frame. 0.2 was the best compromise between a steady sample and a ring that
        changes.
    """

    def __init__(self, weight: float = 0.2) -> None:
        self._weight = weight
        self._mean: FloatArray | None = None

    def update(self, probability: FloatArray, shift: tuple[float, float]) -> FloatArray:
        """Take the next frame's ring probability ``(h, w)``; return the fused one, at its place.

        Parameters
        ----------
        probability : ndarray of float32
            ``(h, w)``.
        shift : tuple of float
            ``(dy, dx)`` of the frame against the reference [px].
        """
        at_reference = translate(probability, (-shift[0], -shift[1]))
        if self._mean is None:
            self._mean = at_reference
        else:
            self._mean = (1 - self._weight) * self._mean + self._weight * at_reference
        return translate(self._mean, shift)
