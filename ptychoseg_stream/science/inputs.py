"""The five images that the student sees of a frame."""

from collections.abc import Sequence

import numpy as np

from .features import log_intensity
from .frame import FloatArray
from .geometry import Geometry, radius_map
from .prepare import Prepared

BINS = 48
"""Radial bins of the azimuthal mean, twelve per reference radius."""


def student_inputs(
    counts: FloatArray, smooth: FloatArray, plateau: FloatArray, geometries: Sequence[Geometry]
) -> FloatArray:
    """Return the student's input, ``(n, 5, h, w)`` float32.

    Channels: J/p, its logarithm, S/p, radius, and the azimuthal mean of S/p painted back.

    Parameters
    ----------
    counts, smooth : ndarray of float32
        ``(n, h, w)`` J and S.
    plateau : ndarray of float32
        ``(n,)`` p.
    geometries : sequence of Geometry
        One for each frame.
    """
    n, h, w = counts.shape
    scale = (1 / plateau)[:, None, None]
    raw, soft = counts * scale, smooth * scale
    reference = np.array([g.radius for g in geometries], np.float32)[:, None, None]
    centre_y = np.array([g.y for g in geometries])
    centre_x = np.array([g.x for g in geometries])
    rho = radius_map((h, w), centre_y, centre_x) / reference
    out = np.empty((n, 5, h, w), np.float32)
    np.clip(raw, -0.5, 1.5, out=out[:, 0])
    out[:, 1] = log_intensity(np.clip(raw, 0, 1.5))
    np.clip(soft, -0.5, 1.5, out=out[:, 2])
    np.minimum(rho, 2, out=out[:, 3])
    out[:, 3] -= 1
    for i in range(n):
        out[i, 4] = azimuthal_mean(soft[i], rho[i])
    return out


def inputs_of(prepared: Prepared, geometries: Sequence[Geometry]) -> FloatArray:
    """Return the student's input of a prepared micro-batch."""
    return student_inputs(prepared.counts, prepared.smooth, prepared.plateau, geometries)


def azimuthal_mean(image: FloatArray, rho: FloatArray) -> FloatArray:
    """Replace each pixel by the mean of its circle, linear between bins of rho/12.

    Parameters
    ----------
    image, rho : ndarray of float32
        ``(h, w)``; rho is the radius in reference radii.
    """
    position = np.minimum(rho * np.float32(12), np.float32(BINS - 1))  # in bins
    index = position.astype(np.intp).ravel()
    count = np.bincount(index, minlength=BINS)
    total = np.bincount(index, weights=image.ravel(), minlength=BINS)
    filled = count > 0
    profile = np.interp(np.arange(BINS), np.nonzero(filled)[0], total[filled] / count[filled])
    profile32 = profile.astype(np.float32)
    # Bin b holds [b, b + 1): its mean stands at b + 1/2.
    at = np.clip(position - np.float32(0.5), 0, BINS - 1)
    low = at.astype(np.intp)
    part = at - low
    step = np.append(np.diff(profile32), np.float32(0))
    return profile32[low] + part * step[low]
