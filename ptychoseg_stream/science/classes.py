"""From ring pixels to the class map: cleaning, the verdict, then core and beam-stop."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .frame import BoolArray, ClassCode, ClassMap, FloatArray
from .geometry import Geometry, keep_large
from .polar import SECTORS
from .verdict import PolarProfile, judge

__all__ = [
    "SECTORS",
    "PolarProfile",
    "class_map",
    "clean_ring",
    "judge",
    "shadowed_sectors",
]


def clean_ring(ring: BoolArray) -> BoolArray:
    """Drop parts below 5 % of the largest, fill holes below 10 % of the largest hole in their part.

    A single hole (the core) stays unless it has fewer than 3 pixels.
    """
    if not ring.any():
        return ring
    ring = keep_large(ring, 0.05)
    parts, n = ndimage.label(np.pad(~ring, 1, constant_values=True))
    if n <= 1:
        return ring
    areas = np.bincount(parts.ravel())
    outside = parts[0, 0]
    areas[[0, outside]] = 0
    small = areas < np.maximum(0.1 * _largest_beside(areas, parts, ring), 3)
    small[[0, outside]] = False
    return ring | small[parts][1:-1, 1:-1]


def _largest_beside(
    areas: NDArray[np.intp], holes: NDArray[np.intp], ring: BoolArray
) -> NDArray[np.intp]:
    """For each hole the area of the largest hole in the same connected part of the ring.

    The core of the inner of two rings must not be measured by the space between them.
    """
    if np.count_nonzero(areas) < 2:
        return areas
    rings, n = ndimage.label(np.pad(ring, 1), np.ones((3, 3)))
    # The pixel before the first one of a hole, in reading order, belongs to what encloses it.
    flat = holes.ravel()
    first = np.zeros(len(areas), np.intp)
    first[flat[::-1]] = np.arange(flat.size)[::-1]
    around = rings.ravel()[np.maximum(first - 1, 0)]
    largest = np.zeros(n + 1, np.intp)
    np.maximum.at(largest, around, areas)
    return largest[around]


def class_map(
    ring: BoolArray,
    geometry: Geometry,
    unknown: BoolArray | None = None,
    stop_sectors: BoolArray | None = None,
    profile: PolarProfile | None = None,
) -> ClassMap:
    """Compose the class map of a frame.

    If the verdict on the ring is "none", there is no ring in it: what is bright is background.

    Parameters
    ----------
    ring : ndarray of bool
        ``(h, w)``, cleaned.
    geometry : Geometry
        The frame's beam.
    unknown : ndarray of bool, optional
        ``(h, w)`` pixels with no measured one near (`Prepared.unknown`): `ClassCode.INVALID`, and
        not missed in the ring. Other pixels without a value were repaired from their neighbours
        and have a class. Whether a pixel may be *used* is not said here.
    stop_sectors : ndarray of bool, optional
        ``(90,)`` sectors in which a beam-stop shadows the ring.
    profile : PolarProfile, optional
        What `judge` says of this ring, if it is known already.

    Returns
    -------
    ndarray of uint8
        ``(h, w)`` values of `ClassCode`.
    """
    profile = profile or judge(ring, geometry, unknown)
    classes = np.full(ring.shape, ClassCode.BACKGROUND, np.uint8)
    if profile.verdict != "none":
        classes[ring] = ClassCode.RING
    if profile.verdict == "annulus":
        _paint(classes, ring, geometry, profile, stop_sectors)
    if unknown is not None:
        classes[unknown] = ClassCode.INVALID
    return classes


def _paint(
    classes: ClassMap,
    ring: BoolArray,
    geometry: Geometry,
    profile: PolarProfile,
    stop_sectors: BoolArray | None,
) -> None:
    """Add core and beam-stop inside the box that they span."""
    stop = stop_sectors is not None and bool(stop_sectors.any())
    reach = float((profile.outer if stop else profile.inner).max()) + 1
    h, w = ring.shape
    rows = slice(max(0, int(geometry.y - reach)), min(h, int(geometry.y + reach) + 2))
    columns = slice(max(0, int(geometry.x - reach)), min(w, int(geometry.x + reach) + 2))
    y, x = np.mgrid[rows, columns]
    dy, dx = y - geometry.y, x - geometry.x
    turn = (np.arctan2(dy, dx) / (2 * np.pi)) % 1.0
    sector = np.minimum((turn * SECTORS).astype(int), SECTORS - 1)
    radius = np.hypot(dy, dx)
    free = ~ring[rows, columns]
    hole = radius < profile.inner[sector]
    view = classes[rows, columns]
    view[free & hole] = ClassCode.CORE
    if stop_sectors is not None:
        shadow = stop_sectors[sector] & ~hole & (radius <= profile.outer[sector])
        view[free & shadow] = ClassCode.BEAM_STOP


def shadowed_sectors(profile: PolarProfile, relative: FloatArray, geometry: Geometry) -> BoolArray:
    """Sectors of an annulus where something keeps the beam from the detector.

    A shadow is dark throughout; a sector that the sample modulates is not. Meant for the mean of
    several frames.

    Parameters
    ----------
    profile : PolarProfile
    relative : ndarray of float32
        ``(h, w)`` S/p.
    geometry : Geometry
    """
    if profile.verdict != "annulus":
        return np.zeros(SECTORS, bool)
    angle = (np.arange(SECTORS) + 0.5) * (2 * np.pi / SECTORS)
    along = np.linspace(0.25, 0.75, 5)[:, None]
    radius = profile.inner + along * (profile.outer - profile.inner)  # (5, 90)
    at = [geometry.y + radius * np.sin(angle), geometry.x + radius * np.cos(angle)]
    brightness = ndimage.map_coordinates(relative, at, order=1, mode="nearest")
    return ~profile.good & (brightness.mean(axis=0) < 0.25)
