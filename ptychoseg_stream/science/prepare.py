"""From detector units to counts: despike, then solve plateau and smoothing together.

All functions take a micro-batch ``(n, h, w)`` and treat each frame on its own, so that the result
of a frame never depends on which batch it came in.
"""

from collections.abc import Sequence
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


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A micro-batch ready for features.

    Parameters
    ----------
    counts : ndarray of float32
        ``(n, h, w)`` despiked counts J.
    smooth : ndarray of float32
        ``(n, h, w)`` adaptively smoothed counts S (J itself where sigma is 0).
    plateau : ndarray of float32
        ``(n,)`` bright-field plateau p [counts per pixel].
    bad : ndarray of bool
        ``(n, h, w)`` pixels without a usable value (not the repaired spikes).
    spikes : ndarray of int
        ``(n,)`` number of repaired spikes.
    """

    counts: FloatArray
    smooth: FloatArray
    plateau: FloatArray
    bad: BoolArray
    spikes: NDArray[np.intp]

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.counts)

    @property
    def relative(self) -> FloatArray:
        """S/p, ``(n, h, w)``: 1 on the bright-field plateau whatever the dose."""
        return self.smooth / self.plateau[:, None, None]

    def __getitem__(self, item: slice) -> "Prepared":
        """Return a part of the micro-batch."""
        return Prepared(
            self.counts[item],
            self.smooth[item],
            self.plateau[item],
            self.bad[item],
            self.spikes[item],
        )


def prepare(image: NDArray[Any], options: PrepareOptions | None = None) -> Prepared:
    """Prepare one frame.

    Parameters
    ----------
    image : ndarray
        ``(h, w)`` detector units of any real dtype.
    options : PrepareOptions, optional
        Defaults to `PrepareOptions()`.

    Returns
    -------
    Prepared
        A micro-batch of one.

    Raises
    ------
    FrameError
        If the frame cannot be labelled; the text says why.
    """
    options = options or PrepareOptions()
    counts, bad = to_counts(image, options)
    clean, spikes = despike(counts[None], bad[None])
    return prepare_counts(clean, bad[None], spikes, options)


def join(parts: Sequence[Prepared]) -> Prepared:
    """Put micro-batches of frames of one size into one."""
    return Prepared(
        np.concatenate([p.counts for p in parts]),
        np.concatenate([p.smooth for p in parts]),
        np.concatenate([p.plateau for p in parts]),
        np.concatenate([p.bad for p in parts]),
        np.concatenate([p.spikes for p in parts]),
    )


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
            f"a frame must be a real 2-D image of at least 16x16 pixels, "
            f"this one is {image.dtype} {image.shape}"
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
        bright = int((good > 0.5 * good.max()).sum())
        # A saturated beam leaves only its flanks; single hot or stuck pixels leave the ring.
        if saturated.sum() > 32 and saturated.sum() > bright:
            raise FrameError(
                f"saturated: {int(saturated.sum())} pixels at or above the saturation level, only "
                f"{bright} bright ones below it; attenuate, or set `node.prepare.saturation`"
            )


def despike(counts: FloatArray, bad: BoolArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Replace spikes and unusable pixels by the median of their usable neighbours.

    A pixel is a spike if ``I > 6 q3 + 3 + 5 sqrt(q3 + 1)``, q3 being the third largest value of its
    3x3 neighbourhood (at least 0).

    Parameters
    ----------
    counts, bad : ndarray
        ``(n, h, w)``.

    Returns
    -------
    ndarray of float32
        ``(n, h, w)`` despiked counts J.
    ndarray of int
        ``(n,)`` number of spikes.
    """
    padded = np.pad(counts, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    n, y, x = np.nonzero(_maybe_spike(counts, padded))
    if len(n):
        windows = np.stack(
            [padded[n, y + dy, x + dx] for dy in range(3) for dx in range(3)], axis=1
        )
        third = np.maximum(np.partition(windows, 6, axis=1)[:, 6], 0)
        spike = counts[n, y, x] > _spike_level(third)
        n, y, x = n[spike], y[spike], x[spike]
    hot = np.zeros(bad.shape, bool)
    hot[n, y, x] = True
    clean = counts.copy()
    for i in np.nonzero((hot | bad).any(axis=(1, 2)))[0]:
        clean[i] = _repair(counts[i], hot[i] | bad[i])
    return clean, (hot & ~bad).sum(axis=(1, 2))


def _spike_level(third: FloatArray) -> FloatArray:
    return 6 * third + 3 + 5 * np.sqrt(third + 1)


def _maybe_spike(counts: FloatArray, padded: FloatArray) -> BoolArray:
    """Cheap superset of the spikes: the third largest is at least the least of any three."""
    left, right = padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]
    up, down = padded[:, :-2, 1:-1], padded[:, 2:, 1:-1]
    bound = np.maximum(np.minimum(left, right), np.minimum(up, down))
    bound = np.maximum(np.minimum(bound, counts), 0)
    return (counts > 8) & (counts > _spike_level(bound))


def _repair(image: FloatArray, wrong: BoolArray) -> FloatArray:
    """Median of the right pixels in 3x3, else 5x5, else 7x7; 0 where there is none."""
    repaired = image.copy()
    todo = wrong.copy()
    repaired[todo] = 0
    for reach in (1, 2, 3):
        y, x = np.nonzero(todo)
        if len(y) == 0:
            break
        size = 2 * reach + 1
        values = np.pad(np.where(wrong, np.nan, image), reach, constant_values=np.nan)
        windows = np.stack(
            [values[y + dy, x + dx] for dy in range(size) for dx in range(size)], axis=1
        )
        some = np.isfinite(windows).any(axis=1)
        repaired[y[some], x[some]] = np.nanmedian(windows[some], axis=1)
        todo[y[some], x[some]] = False
    return repaired


def prepare_counts(
    counts: FloatArray, bad: BoolArray, spikes: NDArray[np.intp], options: PrepareOptions
) -> Prepared:
    """Solve plateau and smoothing of despiked counts ``(n, h, w)``.

    Raises
    ------
    FrameError
        If a frame has no beam.
    """
    solved = [solve_plateau(frame, options) for frame in counts]
    for smooth, plateau in solved:
        _refuse_without_beam(smooth, plateau, options)
    return Prepared(
        counts,
        np.stack([s for s, _ in solved]),
        np.array([p for _, p in solved], np.float32),
        bad,
        spikes,
    )


def solve_plateau(counts: FloatArray, options: PrepareOptions) -> tuple[FloatArray, float]:
    """Find the bright-field plateau and the smoothing it calls for, together.

    At most eight rounds of: sigma such that the Gaussian kernel (4 pi sigma^2 pixels) holds enough
    counts, smooth, plateau = median over the pixels whose 3x3 neighbourhood lies mostly above half
    of it. Counts are never clipped before smoothing: that would bias a faint plateau.

    Parameters
    ----------
    counts : ndarray of float32
        ``(h, w)`` despiked counts.

    Returns
    -------
    smooth : ndarray of float32
        ``(h, w)``.
    plateau : float
        Counts per pixel; 0 if there is none.
    """
    start = np.maximum(_gauss(counts, 1.0), 0)
    total = float(start.sum(dtype=np.float64))
    if total <= 0:
        return counts, 0.0
    plateau = float(np.square(start, dtype=np.float64).sum()) / total
    smooth, sigma = counts, -1.0
    for _ in range(8):
        if (new := _sigma(plateau, options)) != sigma:
            sigma = new
            smooth = _gauss(counts, sigma) if sigma > 0 else counts
        bright = smooth[_mostly(smooth > 0.5 * plateau)]
        previous = plateau
        plateau = float(np.median(bright)) if bright.size >= 4 else 0.7 * plateau
        if abs(plateau - previous) <= 5e-3 * previous:
            break
    return smooth, plateau


def _sigma(plateau: float, options: PrepareOptions) -> float:
    enough = options.counts_without_smoothing
    if plateau >= enough or plateau <= 0:
        return 0.0
    return min(options.max_sigma, float(np.sqrt(enough / (4 * np.pi * plateau))))


def _gauss(image: FloatArray, sigma: float) -> FloatArray:
    return ndimage.gaussian_filter(image, sigma, output=np.float32)


def _mostly(above: BoolArray) -> BoolArray:
    """Where the 3x3 median of a quantity exceeds the level that made `above`."""
    padded = np.pad(above.view(np.uint8), 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] >= 5


def _refuse_without_beam(smooth: FloatArray, plateau: float, options: PrepareOptions) -> None:
    if plateau < options.min_plateau:
        raise FrameError(
            f"no beam: plateau {plateau:.3g} counts per pixel, at least {options.min_plateau:g} "
            "needed (`node.prepare.min_plateau`)"
        )
    middle = float(np.median(smooth))
    if float((smooth > 0.5 * plateau).mean()) > 0.6:
        raise FrameError(
            f"no beam: more than 60% of the frame lies above half of the plateau ({plateau:.4g} "
            "counts); a pedestal? set `node.prepare.pedestal`"
        )
    spread = 1.4826 * float(np.median(np.abs(smooth - middle)))
    if plateau - middle < options.min_contrast * spread:
        raise FrameError(
            f"no beam: plateau {plateau:.3g} does not stand out of a background of "
            f"{middle:.3g} +- {spread:.2g} counts"
        )
