"""From expected photons to what a detector writes: Poisson, read noise, gain, bad pixels."""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..science.frame import BitMap, BoolArray, ValidBit

DType = TypeVar("DType", bound=np.generic)
UINT16_MAX = 65535


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """One detector: what it adds to the photons.

    Parameters
    ----------
    dark : ndarray
        ``(H, W)`` fixed pattern that dark subtraction left [photons].
    hot, dead, gap : ndarray of bool
        ``(H, W)`` pixels that always read `hot_value`, that always read the pedestal, and those
        without a sensor: 65535 in uint16, NaN in float32.
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
    saturation : float or None
        Largest value that is read [detector units].
    """

    dark: NDArray[np.float64]
    hot: BoolArray
    dead: BoolArray
    gap: BoolArray
    hot_value: float
    read_noise: float
    gain: float
    pedestal: float
    dtype: Literal["uint16", "float32"]
    saturation: float | None = None

    def expose(
        self, photons: NDArray[Any], tracks: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[Any]:
        """Turn expected photons and what cosmic rays leave, ``(n, H, W)``, into frames."""
        signal = rng.poisson(photons) + self.dark
        if self.read_noise > 0:
            signal += self.read_noise * rng.standard_normal(photons.shape, np.float32)
        signal += tracks
        signal = self.gain * signal + self.pedestal
        signal[:, self.hot] = self.hot_value
        signal[:, self.dead] = self.pedestal
        if self.saturation is not None:
            signal = np.minimum(signal, self.saturation)
        if self.dtype == "float32":
            signal[:, self.gap] = np.nan
            return signal.astype(np.float32)
        signal[:, self.gap] = UINT16_MAX
        return np.clip(np.rint(signal), 0, UINT16_MAX).astype(np.uint16)

    def truth(
        self,
        frames: NDArray[Any],
        photons: NDArray[Any],
        tracks: NDArray[np.float32],
        arm: BoolArray,
    ) -> BitMap:
        """Return ``(n, H, W)`` why pixels of `frames` must not be used.

        A track counts where it left more than three standard deviations of the pixel's noise, of a
        pixel that works.
        """
        static = np.zeros(self.hot.shape, np.uint16)
        static[arm] |= np.uint16(ValidBit.STOP)
        broken = self.hot | self.dead | self.gap
        for where, bit in ((self.hot, ValidBit.HOT), (self.dead, ValidBit.DEAD)):
            static[where & ~self.gap] |= np.uint16(bit)
        static[self.gap] = ValidBit.GAP
        bits = np.broadcast_to(static, frames.shape).copy()
        noise = np.sqrt(photons + self.read_noise**2 + 0.1)
        bits[(tracks > 3 * noise) & ~broken] |= np.uint16(ValidBit.COSMIC)
        level = self.saturation
        if level is None and self.dtype == "uint16":
            level = UINT16_MAX
        if level is not None:
            bits[(frames >= level) & ~self.gap] |= np.uint16(ValidBit.SATURATED)
        return bits


def cosmic_tracks(
    n: int,
    shape: tuple[int, int],
    tracks: float,
    length: float,
    energy: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Draw straight tracks of cosmic rays.

    Parameters
    ----------
    n : int
        Number of frames.
    shape : tuple of int
        ``(H, W)``.
    tracks : float
        Mean number in a frame.
    length : float
        Mean length, exponentially distributed [px].
    energy : float
        Median of the energy that a track leaves, log-normal [photons per px].
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of float32
        ``(n, H, W)`` photons; a track is shared between the pixels it passes.
    """
    left = np.zeros((n, *shape), np.float32)
    for image in left:
        for _ in range(rng.poisson(tracks)):
            begin = rng.uniform((0, 0), shape)
            angle = rng.uniform(0, 2 * np.pi)
            reach = rng.exponential(length)
            power = energy * np.exp(0.6 * rng.standard_normal())
            along = np.arange(0, max(reach, 1.0), 0.1)[:, None]
            _deposit(image, begin + along * (np.sin(angle), np.cos(angle)), 0.1 * power)
    return left


def _deposit(image: NDArray[np.float32], points: NDArray[np.float64], each: float) -> None:
    """Share `each` at every point ``(m, 2)`` between the four pixels around it."""
    low = np.floor(points).astype(int)
    part = points - low
    for dy in (0, 1):
        for dx in (0, 1):
            y, x = low[:, 0] + dy, low[:, 1] + dx
            weight = np.abs(1 - dy - part[:, 0]) * np.abs(1 - dx - part[:, 1])
            inside = (y >= 0) & (y < image.shape[0]) & (x >= 0) & (x < image.shape[1])
            np.add.at(image, (y[inside], x[inside]), (each * weight[inside]).astype(np.float32))


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
