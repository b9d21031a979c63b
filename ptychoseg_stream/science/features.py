"""The nine numbers per pixel that the teacher sees.

``physical`` divides by the bright-field plateau and has no per-frame statistics: that is what lets
centroids of one frame label every other frame. ``seed`` is the literal recipe (raw counts,
z-scored on the training frame), kept for comparison only.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from scipy import ndimage

from .frame import FloatArray
from .geometry import Geometry, angle_map, radius_map
from .prepare import Prepared

FEATURE_VERSION = 2
"""Raised whenever a formula below changes: centroids of another version are refused."""

FEATURES = (
    "intensity",
    "log_intensity",
    "local_std",
    "local_mean",
    "laplacian",
    "gradient",
    "radius",
    "angle",
    "residual",
)

WEIGHTS: dict[str, float] = {
    "intensity": 0.6,
    "log_intensity": 0.3,
    "local_std": 0.3,
    "local_mean": 1.0,
    "laplacian": 0.1,
    "gradient": 0.2,
    "radius": 0.3,
    "angle": 0.05,
    "residual": 0.2,
}

FeatureSet: TypeAlias = Literal["physical", "seed"]


def extract(
    prepared: Prepared, geometries: Sequence[Geometry], feature_set: FeatureSet = "physical"
) -> FloatArray:
    """Return the features of a micro-batch, ``(n, 9, h, w)`` float32, in the order of `FEATURES`.

    Parameters
    ----------
    prepared : Prepared
        n frames.
    geometries : sequence of Geometry
        One for each frame.
    feature_set : {"physical", "seed"}
        "physical" divides by the plateau; "seed" takes raw counts.
    """
    if feature_set == "seed":
        base, log_base = prepared.counts, np.log1p(np.maximum(prepared.counts, 0))
    else:
        base = np.clip(prepared.relative, 0, 1.5)
        log_base = log_intensity(base)
    out = np.empty((len(base), len(FEATURES), *base.shape[1:]), np.float32)
    out[:, 0] = base
    out[:, 1] = log_base
    _filters(base, out)
    _polar(base.shape[1:], geometries, feature_set, out)
    return out


def log_intensity(relative: FloatArray) -> FloatArray:
    """``ln(1 + B / 0.01) / ln(101)``: 0 for nothing, 1 on the plateau."""
    return np.log1p(relative * np.float32(100)) / np.float32(np.log(101))


def _filters(base: FloatArray, out: FloatArray) -> None:
    # One frame at a time keeps the working set in the cache.
    for frame, f in zip(base, out, strict=True):
        mean5 = ndimage.uniform_filter(frame, 5)
        variance = ndimage.uniform_filter(np.square(frame), 5) - np.square(mean5)
        f[2] = np.sqrt(np.maximum(variance, 0))
        p = np.pad(frame, 1, mode="symmetric")
        across = p[:, :-2] + p[:, 1:-1] + p[:, 2:]  # sum over x, (h + 2, w)
        f[3] = (across[:-2] + across[1:-1] + across[2:]) / np.float32(9)
        centre = p[1:-1, 1:-1]
        f[4] = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * centre
        along_x = p[:, 2:] - p[:, :-2]
        sobel_x = along_x[:-2] + 2 * along_x[1:-1] + along_x[2:]
        binomial = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
        sobel_y = binomial[2:] - binomial[:-2]
        f[5] = np.sqrt(np.square(sobel_x) + np.square(sobel_y)) / 8
        f[8] = frame - ndimage.gaussian_filter(frame, 2.0)


def _polar(
    shape: tuple[int, ...], geometries: Sequence[Geometry], feature_set: FeatureSet, out: FloatArray
) -> None:
    y = np.array([g.y for g in geometries])
    x = np.array([g.x for g in geometries])
    size = (shape[0], shape[1])
    radius = radius_map(size, y, x)
    angle = angle_map(size, y, x)
    if feature_set == "seed":
        out[:, 6], out[:, 7] = radius, angle
        return
    reference = np.array([g.radius for g in geometries], np.float32)
    out[:, 6] = np.minimum(radius / reference[:, None, None], 2)
    out[:, 7] = angle / np.float32(np.pi)
