"""From detector units to counts, and which frames and pixels cannot be used."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import FrameError
from .frame import BoolArray, FloatArray


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
        if self.gain <= 0 or self.counts_without_smoothing <= 0:
            raise ValueError("gain and counts_without_smoothing must be above 0")
        if not 0 <= self.max_bad_fraction < 1:
            raise ValueError("max_bad_fraction must lie in 0 to 1")
        if self.min_plateau <= 0 or self.max_sigma < 0:
            raise ValueError("min_plateau must be above 0, max_sigma not below")


def to_counts(image: NDArray[Any], options: PrepareOptions) -> tuple[FloatArray, BoolArray]:
    """Return ``(h, w)`` float32 counts and the pixels without a usable value.

    Unusable are NaN and infinity, saturated pixels, and negative pixels of signed integers
    (detectors mark gaps with -1).

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
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, that is bad
        values = image.astype(np.float32)
    bad = ~np.isfinite(values) | (np.abs(values) > 1e30)
    if image.dtype.kind == "i":
        bad |= image < 0
    saturated = _saturated(image, options)
    if not bad.any() and not saturated.any() and not values.any():
        raise FrameError("empty frame: every pixel is 0; is the shutter open?")
    _refuse_unusable(bad, saturated, values, options)
    bad |= saturated
    counts = (values - np.float32(options.pedestal)) / np.float32(options.gain)
    counts[bad] = 0
    if counts.max() <= 0:
        raise FrameError(
            "no pixel has counts above zero; check `node.prepare.pedestal` of the profile"
        )
    return counts, bad


def _saturated(image: NDArray[Any], options: PrepareOptions) -> BoolArray:
    level = options.saturation
    if level is None:
        if image.dtype.kind not in "ui" or image.dtype.itemsize == 1:
            return np.zeros(image.shape, bool)
        level = np.iinfo(image.dtype).max
    return np.asarray(image >= level)


def _refuse_unusable(
    bad: BoolArray, saturated: BoolArray, values: FloatArray, options: PrepareOptions
) -> None:
    unusable = float((bad | saturated).mean())
    if unusable > options.max_bad_fraction:
        nan, sat = float(bad.mean()), float(saturated.mean())
        raise FrameError(
            f"{unusable:.0%} of the pixels are unusable ({nan:.0%} NaN, infinite or negative, "
            f"{sat:.0%} saturated)"
        )
    if saturated.any():
        good = values[~(bad | saturated)]
        bright = int((good > 0.5 * good.max()).sum()) if good.size else 0
        # A saturated beam leaves only its flanks; stuck pixels leave the ring, and the gaps of a
        # detector, which some mark with the largest number there is, lie in the dark.
        flanks = ndimage.binary_dilation(saturated, np.ones((3, 3))) & ~saturated & ~bad
        level = float(values[saturated].min())
        on_beam = options.saturation is not None or (
            flanks.any() and float(np.median(values[flanks])) > 0.05 * level
        )
        if saturated.sum() > 32 and saturated.sum() > bright and on_beam:
            raise FrameError(
                f"saturated: {int(saturated.sum())} pixels at or above the saturation level, only "
                f"{bright} bright ones below it; attenuate, or set `node.prepare.saturation`"
            )
