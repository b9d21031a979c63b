"""Frame preparation: inspect (see `validity`), then plateau and smoothing solved together.

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
from .counts import PrepareOptions
from .frame import BitMap, BoolArray, FloatArray
from .validity import inspect


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A micro-batch ready for features.

    Parameters
    ----------
    counts : ndarray of float32
        ``(n, h, w)`` counts J, repaired where a pixel is invalid.
    smooth : ndarray of float32
        ``(n, h, w)`` adaptively smoothed counts S (J itself where sigma is 0).
    plateau : ndarray of float32
        ``(n,)`` bright-field plateau p [counts per pixel].
    bits : ndarray of uint16
        ``(n, h, w)`` of `ValidBit`: why a pixel is invalid.
    spikes : ndarray of int
        ``(n,)`` number of pixels that a cosmic ray or a hot pixel spoiled.
    unknown : ndarray of bool
        ``(n, h, w)`` invalid pixels with no valid one near to repair them from: J is 0 there.
    """

    counts: FloatArray
    smooth: FloatArray
    plateau: FloatArray
    bits: BitMap
    spikes: NDArray[np.intp]
    unknown: BoolArray

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.counts)

    @property
    def bad(self) -> BoolArray:
        """``(n, h, w)`` pixels that must not be used, for whatever reason."""
        return self.bits != 0

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
            self.bits[item],
            self.spikes[item],
            self.unknown[item],
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
    seen = inspect(image, options)
    spikes = np.array([seen.spikes], np.intp)
    return prepare_counts(seen.counts[None], seen.bits[None], spikes, options, seen.unknown[None])


def join(parts: Sequence[Prepared]) -> Prepared:
    """Put micro-batches of frames of one size into one."""
    return Prepared(
        np.concatenate([p.counts for p in parts]),
        np.concatenate([p.smooth for p in parts]),
        np.concatenate([p.plateau for p in parts]),
        np.concatenate([p.bits for p in parts]),
        np.concatenate([p.spikes for p in parts]),
        np.concatenate([p.unknown for p in parts]),
    )


def prepare_counts(
    counts: FloatArray,
    bits: BitMap,
    spikes: NDArray[np.intp],
    options: PrepareOptions,
    unknown: BoolArray | None = None,
) -> Prepared:
    """Solve plateau and smoothing of repaired counts.

    Parameters
    ----------
    counts : ndarray of float32
        ``(n, h, w)``.
    bits : ndarray of uint16
        ``(n, h, w)`` of `ValidBit`.
    spikes : ndarray of int
        ``(n,)``.
    options : PrepareOptions
    unknown : ndarray of bool, optional
        ``(n, h, w)`` pixels that could not be repaired; None for none.

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
        bits,
        spikes,
        np.zeros(bits.shape, bool) if unknown is None else unknown,
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
        if (new := smoothing(plateau, options)) != sigma:
            sigma = new
            smooth = _gauss(counts, sigma) if sigma > 0 else counts
        bright = smooth[_mostly(smooth > 0.5 * plateau)]
        previous = plateau
        plateau = float(np.median(bright)) if bright.size >= 4 else 0.7 * plateau
        if abs(plateau - previous) <= 5e-3 * previous:
            break
    return smooth, plateau


def smoothing(plateau: float, options: PrepareOptions) -> float:
    """Return the Gaussian sigma [px] that a plateau [counts per pixel] calls for."""
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
            "needed (`node.prepare.min_plateau`)",
            "no beam",
        )
    middle = float(np.median(smooth))
    if float((smooth > 0.5 * plateau).mean()) > 0.6:
        lit = plateau >= options.counts_without_smoothing  # else it may be nothing but noise
        raise FrameError(
            f"{'no ring' if lit else 'no beam'}: more than 60% of the frame lies above half of the "
            f"plateau ({plateau:.4g} counts); a flat field, or a pedestal? set "
            "`node.prepare.pedestal`",
            "none" if lit else "no beam",
        )
    spread = 1.4826 * float(np.median(np.abs(smooth - middle)))
    if plateau - middle < options.min_contrast * spread:
        raise FrameError(
            f"no beam: plateau {plateau:.3g} does not stand out of a background of "
            f"{middle:.3g} +- {spread:.2g} counts",
            "no beam",
        )
