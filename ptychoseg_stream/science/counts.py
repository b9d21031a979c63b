"""From detector units to counts, and which frames and pixels cannot be used."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import FrameError
from .frame import BitMap, BoolArray, FloatArray, ValidBit

SQUARE = np.ones((3, 3), bool)
SMALLEST_GAP = 9
"""Pixels; fewer that hold the dtype's largest number are saturated or hot ones."""


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """How detector units become counts and when a frame is refused.

    Parameters
    ----------
    pedestal : float
        Subtracted from every pixel [detector units].
    gain : float
        Detector units per photon.
    saturation : float or None
        Pixels at or above are unusable [detector units]; None takes the dtype's maximum for
        integers and nothing for floats.
    max_bad_fraction : float
        A frame with more unusable pixels than this is refused.
    min_plateau : float
        A frame with a lower bright-field plateau has no beam [counts per pixel].
    min_contrast : float
        Plateau over background must exceed this many robust standard deviations of the frame.
    counts_without_smoothing : float
        Counts under the smoothing kernel that are enough; plateaus above are not smoothed.
    max_sigma : float
        Largest Gaussian smoothing [px].
    """

    pedestal: float = 0.0
    gain: float = 1.0
    saturation: float | None = None
    max_bad_fraction: float = 0.5
    min_plateau: float = 0.5
    min_contrast: float = 6.0
    counts_without_smoothing: float = 25.0
    max_sigma: float = 2.5

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in ("gain", "counts_without_smoothing", "min_plateau"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)} must be above 0")
        if not 0 <= self.max_bad_fraction < 1:
            raise ValueError(f"max_bad_fraction: {self.max_bad_fraction} must lie in 0 to 1")
        if not self.max_sigma >= 0:
            raise ValueError(f"max_sigma: {self.max_sigma} must not be below 0")


def to_counts(
    image: NDArray[Any], options: PrepareOptions, user: BoolArray | None = None
) -> tuple[FloatArray, BitMap]:
    """Return ``(h, w)`` float32 counts, 0 where unusable, and why pixels have no usable value.

    `ValidBit.GAP`: NaN, infinity, negative in a signed integer format, and the largest number of
    an unsigned one where a module ends (detectors mark gaps with either). `ValidBit.SATURATED`: at
    or above the saturation level. `ValidBit.USER`: in `user`.

    Parameters
    ----------
    image : ndarray
        ``(h, w)`` detector units of any real dtype.
    options : PrepareOptions
    user : ndarray of bool, optional
        ``(h, w)`` pixels that the user masks.

    Raises
    ------
    FrameError
        If the array is not a real 2-D image or too little of it is usable.
    """
    if image.ndim != 2 or image.dtype.kind not in "buif" or min(image.shape) < 16:
        raise FrameError(
            f"not a frame: it must be a real 2-D image of at least 16x16 pixels, this one is "
            f"{image.dtype} {image.shape}"
        )
    # What float32 cannot hold becomes infinite, and any NaN stays one: both are bad pixels.
    with np.errstate(over="ignore", invalid="ignore"):
        values = image.astype(np.float32)
    # No detector counts to 1e15; squares of such values, summed over a run, would overflow.
    gap = ~np.isfinite(values) | (np.abs(values) > 1e15)
    if image.dtype.kind == "i":
        gap |= image < 0
    saturated = _saturated(image, options)
    if not gap.any() and not saturated.any() and not values.any():
        raise FrameError("empty frame: every pixel is 0; is the shutter open?", "no beam")
    bits = _merged(gap, user)
    _refuse_unusable(bits != 0, saturated, options)
    _tell_gaps(bits, saturated, image, values)
    _refuse_saturated(bits, values)
    bad = bits != 0
    values[bad] = 0
    counts = (values - np.float32(options.pedestal)) / np.float32(options.gain)
    counts[bad] = 0
    if counts.max() <= 0:
        raise FrameError(
            "no pixel has counts above zero; check `node.prepare.pedestal` of the profile",
            "no beam",
        )
    return counts, bits


def _merged(gap: BoolArray, user: BoolArray | None) -> BitMap:
    bits = np.where(gap, np.uint16(ValidBit.GAP), np.uint16(0))
    if user is None:
        return bits
    if user.shape != bits.shape:
        raise FrameError(
            f"the user's mask is {user.shape}, the frame {bits.shape}; give a mask of this size"
        )
    bits[user] |= np.uint16(ValidBit.USER)
    return bits


def _saturated(image: NDArray[Any], options: PrepareOptions) -> BoolArray:
    level = options.saturation
    if level is None:
        if image.dtype.kind not in "ui" or image.dtype.itemsize == 1:
            return np.zeros(image.shape, bool)
        level = np.iinfo(image.dtype).max
    return np.asarray(image >= level)


def _tell_gaps(bits: BitMap, saturated: BoolArray, image: NDArray[Any], values: FloatArray) -> None:
    """Mark saturated pixels and gaps; only what holds the dtype's largest number may be a gap.

    Of these, what the beam saturated has bright flanks, or is too small to be a gap. Stuck pixels
    and gaps lie in the dark, or most of them does.
    """
    bits[saturated] |= np.uint16(ValidBit.SATURATED)
    if image.dtype.kind not in "ui" or image.dtype.itemsize == 1 or not saturated.any():
        return
    largest = np.iinfo(image.dtype).max
    parts, _ = ndimage.label(image == largest, SQUARE)
    for part, place in enumerate(ndimage.find_objects(parts), 1):
        box = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in place)
        inside = parts[box] == part
        flanks = ndimage.binary_dilation(inside, SQUARE) & (bits[box] == 0)
        bright = bool(flanks.any()) and float(np.median(values[box][flanks])) > 0.05 * largest
        if not bright and int(inside.sum()) >= SMALLEST_GAP:
            bits[box][inside] = ValidBit.GAP | (bits[box][inside] & np.uint16(ValidBit.USER))


def _refuse_unusable(bad: BoolArray, saturated: BoolArray, options: PrepareOptions) -> None:
    unusable = float((bad | saturated).mean())
    if unusable > options.max_bad_fraction:
        nan, sat = float(bad.mean()), float(saturated.mean())
        raise FrameError(
            f"{unusable:.0%} of the pixels are unusable ({nan:.0%} NaN, infinite, negative or "
            f"masked, {sat:.0%} saturated)"
        )


def _refuse_saturated(bits: BitMap, values: FloatArray) -> None:
    """A saturated beam leaves only its flanks; stuck pixels leave the ring."""
    saturated = (bits & np.uint16(ValidBit.SATURATED)) != 0
    if saturated.sum() <= 32:
        return
    good = values[bits == 0]
    bright = int((good > 0.5 * good.max()).sum()) if good.size else 0
    if saturated.sum() > bright:
        raise FrameError(
            f"saturated: {int(saturated.sum())} pixels at or above the saturation level, only "
            f"{bright} bright ones below it; attenuate, or set `node.prepare.saturation`"
        )
