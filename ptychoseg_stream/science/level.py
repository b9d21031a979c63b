"""The plateau of a narrow ring: the level of its interior, not of its edges.

The plateau that `prepare` finds is the median of all bright pixels. On a ring of a few soft pixels
half of them are edge, so that the median lies some ten per cent below the level that the ring would
have if it were wide, and everything cut at half of it comes out too large. The level of the pixels
whose neighbours are bright as well has no such bias, but on one frame of a strong sample it follows
the sample's bright spots. In the mean over each circle around the beam these average out.
"""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from .frame import BoolArray, FloatArray
from .geometry import Geometry, find_beam, radius_map
from .prepare import Prepared

LARGEST = 1.25
"""No ring calls for more; a larger factor is a wrong geometry."""


def interior_factor(relative: FloatArray, geometry: Geometry, level: float = 0.5) -> float:
    """By how much the interior of the ring exceeds the median of its bright pixels, 1 to 1.25.

    Parameters
    ----------
    relative : ndarray of float32
        ``(h, w)`` S/p of a frame or of a mean.
    geometry : Geometry
        Its beam.
    level : float
        Fraction of the plateau that bounds the bright field.
    """
    circles = _circular_mean(relative, geometry)
    edge_and_all = _plateau(circles, level, interior=False)
    if edge_and_all <= 0:
        return 1.0
    factor = _plateau(circles, level, interior=True) / edge_and_all
    return float(np.clip(factor, 1.0, LARGEST))


def find_level(prepared: Prepared, level: float = 0.5) -> tuple[Geometry, Prepared]:
    """Return the beam of a frame (a `Prepared` of one), and the frame on its interior plateau."""
    geometry = find_beam(prepared.relative[0], level)
    return geometry, levelled(prepared, interior_factor(prepared.relative[0], geometry, level))


def levelled(prepared: Prepared, factor: float) -> Prepared:
    """Return the micro-batch with its plateaus multiplied by `factor`."""
    return replace(prepared, plateau=(prepared.plateau * np.float32(factor)).astype(np.float32))


def _circular_mean(image: FloatArray, geometry: Geometry) -> FloatArray:
    """Replace each pixel by the mean over its circle, linear between circles 1 px apart."""
    centre = np.array([geometry.y]), np.array([geometry.x])
    shape = (image.shape[0], image.shape[1])
    radius = radius_map(shape, *centre)[0]
    index = radius.astype(np.intp).ravel()
    count = np.bincount(index)
    mean = np.bincount(index, weights=image.ravel()) / np.maximum(count, 1)
    filled = np.flatnonzero(count)
    return np.interp(radius, filled + 0.5, mean[filled]).astype(np.float32)


def _plateau(image: FloatArray, level: float, *, interior: bool) -> float:
    """Median of the pixels above `level` of itself, or of those without a dark neighbour.

    Where hardly any pixel is interior, all count: nothing better can be said of so thin a ring.
    """
    plateau = 1.0
    for _ in range(20):
        chosen = image > level * plateau
        if interior:
            chosen = _interior(chosen)
        if not chosen.any():
            return plateau
        previous, plateau = plateau, float(np.median(image[chosen]))
        if abs(plateau - previous) < 1e-3 * previous:
            break
    return plateau


def _interior(bright: BoolArray) -> BoolArray:
    inside = ndimage.binary_erosion(bright)
    enough = np.count_nonzero(inside) >= max(4, 0.2 * np.count_nonzero(bright))
    return inside if enough else bright
