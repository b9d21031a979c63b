"""What the frames of a scan say together, worked out from the arrays: for files and tests.

A node keeps the same figures as frames pass by and publishes them; then nothing of this is needed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..science.frame import BoolArray, ClassCode, FloatArray
from ..science.products import SUMS, RunProducts
from .growing import GrowingScan, estimated_mean

FAINT = np.float32(1e-6)
"""Background where nothing is known of it [counts]."""
ENOUGH = 8
"""Empty samples that a pixel's background is the mean of, at least."""


def summarise(scan: GrowingScan, bad: NDArray[np.uint16] | None = None) -> RunProducts:
    """Return what the frames that are ready say together.

    Parameters
    ----------
    scan : GrowingScan
    bad : ndarray of uint16, optional
        ``(H, W)`` of `ptychoseg_stream.science.frame.ValidBit`: pixels that are bad in all frames.
    """
    index = scan.ready
    bits = np.zeros(scan.shape, np.uint16) if bad is None else bad
    use = scan.usable(index) & (bits == 0)
    empty = use & (scan.classes[index] == ClassCode.EMPTY)
    background, variance = mean_and_variance(scan.frames[index], empty)
    ring = (scan.classes[index] == ClassCode.RING).mean(axis=0) > 0.5
    pupil = np.asarray(ring, bool)
    return RunProducts(
        frames=len(index),
        used=len(index),
        pixel_mask=bits,
        background=np.maximum(np.nan_to_num(background), FAINT),
        background_variance=variance,
        background_samples=empty.sum(axis=0).astype(np.int32),
        pupil=pupil.astype(np.uint8),
        mean=estimated_mean(scan),
        **radii_of(pupil),
        sums=np.full((len(index), len(SUMS)), np.nan),
    )


def mean_and_variance(frames: FloatArray, where: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Mean and variance of ``(n, H, W)`` over the samples in `where`; NaN below `ENOUGH`."""
    number = where.sum(axis=0)
    few = number < ENOUGH
    mean = np.where(where, frames, 0).sum(axis=0, dtype=np.float64) / np.maximum(number, 1)
    away = np.where(where, frames - mean, 0)
    variance = np.square(away).sum(axis=0) / np.maximum(number - 1, 1)
    return (
        np.where(few, np.nan, mean).astype(np.float32),
        np.where(few, np.nan, variance).astype(np.float32),
    )


def radii_of(pupil: BoolArray) -> Any:
    """Return centre, inner and outer of a pupil, as `RunProducts` has them."""
    if not pupil.any():
        return {"centre": (np.nan, np.nan), "inner": np.nan, "outer": np.nan}
    y, x = np.nonzero(pupil)
    centre = float(y.mean()), float(x.mean())
    radius = np.hypot(y - centre[0], x - centre[1])
    inner, outer = (float(np.quantile(radius, q)) for q in (0.02, 0.98))
    return {"centre": centre, "inner": inner - 0.5 if inner > 1 else 0.0, "outer": outer + 0.5}
