"""What the frames of a file say together, where nobody wrote it down beside them."""

from typing import Any

import numpy as np

from ..science.frame import BoolArray, FloatArray

FAINT = np.float32(1e-6)
"""Background where nothing is known of it [counts]."""
ENOUGH = 8
"""Empty samples that a pixel's background is the mean of, at least."""


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
