"""From expected photons to what a detector writes: Poisson, read noise, gain, hot pixels."""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..science.frame import BoolArray

DType = TypeVar("DType", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """One detector: what it adds to the photons.

    Parameters
    ----------
    dark : ndarray
        ``(H, W)`` fixed pattern that dark subtraction left [photons].
    bad_pixels : ndarray of bool
        ``(H, W)`` pixels that always read `hot_value`.
    hot_value : float
        In detector units.
    read_noise : float
        Standard deviation [photons].
    gain : float
        Detector units per photon.
    pedestal : float
        Offset of every pixel [detector units].
    dtype : {"uint16", "float32"}
        uint16 rounds and clips to 0..65535; float32 does neither.
    """

    dark: NDArray[np.float64]
    bad_pixels: BoolArray
    hot_value: float
    read_noise: float
    gain: float
    pedestal: float
    dtype: Literal["uint16", "float32"]

    def expose(self, photons: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Turn ``(n, H, W)`` expected photons into frames of `dtype`."""
        signal = rng.poisson(photons) + self.dark
        if self.read_noise > 0:
            signal += self.read_noise * rng.standard_normal(photons.shape, np.float32)
        signal = self.gain * signal + self.pedestal
        signal[:, self.bad_pixels] = self.hot_value
        if self.dtype == "float32":
            return signal.astype(np.float32)
        return np.clip(np.rint(signal), 0, np.iinfo(np.uint16).max).astype(np.uint16)


def thin(frames: NDArray[DType], factor: float, rng: np.random.Generator) -> NDArray[DType]:
    """Take the same frames at a lower dose: keep every counted photon with probability `factor`.

    Thinned Poisson counts are Poisson counts of the lower mean, so real frames can be thinned too.
    What is no whole count (float frames, read noise below zero) is scaled, so the mean is exact.

    Parameters
    ----------
    frames : ndarray
        ``(..., H, W)`` counts (photons) of any real dtype.
    factor : float
        0 to 1.
    rng : numpy.random.Generator
        Which photons are kept.

    Returns
    -------
    ndarray
        Same shape and dtype; pixels that are not finite stay what they are.

    Raises
    ------
    ValueError
        `factor` is not in 0..1.
    """
    if not 0 <= factor <= 1:
        raise ValueError(f"thin: factor is {factor}, must be in 0..1 (a dose cannot be raised)")
    whole = np.nan_to_num(np.floor(np.maximum(frames, 0)), posinf=0.0).astype(np.int64)
    kept = rng.binomial(whole, factor)
    if np.issubdtype(frames.dtype, np.integer):
        return kept.astype(frames.dtype)
    rest = np.asarray(frames, np.float64) - whole
    return (kept + factor * rest).astype(frames.dtype)
