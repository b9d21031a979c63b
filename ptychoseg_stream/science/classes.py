"""From ring pixels to the class map: cleaning, then a polar pass for core, gap and verdict."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .frame import BoolArray, ClassCode, ClassMap, FloatArray, Verdict
from .geometry import Geometry, keep_large

SECTORS = 90
"""Sectors of four degrees."""


@dataclass(frozen=True, slots=True, eq=False)
class PolarProfile:
    """The ring seen from the beam centre.

    Parameters
    ----------
    inner, outer : ndarray of float64
        ``(90,)`` first and last ring radius of each sector [px]; interpolated where not `good`.
    good : ndarray of bool
        ``(90,)`` sectors with a ring that agrees with its neighbours.
    seen : ndarray of bool
        ``(90,)`` sectors with any ring pixel.
    verdict : {"annulus", "disc", "none"}
    """

    inner: NDArray[np.float64]
    outer: NDArray[np.float64]
    good: BoolArray
    seen: BoolArray
    verdict: Verdict


def clean_ring(ring: BoolArray) -> BoolArray:
    """Drop parts below 5 % of the largest, fill holes below 10 % of the largest hole.

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
    small = areas < max(0.1 * areas.max(), 3)
    small[[0, outside]] = False
    return ring | small[parts][1:-1, 1:-1]


def polar_profile(ring: BoolArray, geometry: Geometry) -> PolarProfile:
    """See the ring from the beam centre, sector by sector.

    Parameters
    ----------
    ring : ndarray of bool
        ``(h, w)``, cleaned.
    geometry : Geometry
        The frame's beam.
    """
    y, x = np.nonzero(ring)
    radius, sector = _polar(y, x, geometry)
    inner = np.full(SECTORS, np.inf)
    outer = np.full(SECTORS, -np.inf)
    np.minimum.at(inner, sector, radius)
    np.maximum.at(outer, sector, radius)
    seen = np.isfinite(inner)
    if not seen.any():
        return PolarProfile(inner, outer, seen, seen, "none")
    count = np.bincount(sector, minlength=SECTORS)
    good = seen & _consistent(inner, outer, count, seen)
    verdict = _verdict(ring, geometry, seen, good)
    if good.any():
        inner, outer = _interpolated(inner, good), _interpolated(outer, good)
    return PolarProfile(inner, outer, good, seen, verdict)


def _polar(
    y: NDArray[np.intp], x: NDArray[np.intp], geometry: Geometry
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Radius [px] and sector of pixels."""
    dy, dx = y - geometry.y, x - geometry.x
    turn = (np.arctan2(dy, dx) / (2 * np.pi)) % 1.0
    return np.hypot(dy, dx), np.minimum((turn * SECTORS).astype(int), SECTORS - 1)


def _consistent(
    inner: NDArray[np.float64],
    outer: NDArray[np.float64],
    count: NDArray[np.intp],
    seen: BoolArray,
) -> BoolArray:
    middle, edge = np.median(inner[seen]), np.median(outer[seen])
    width = max(edge - middle, 1.0)
    # Pixels that a sector of the annulus holds: too few of them means that the ring is broken.
    expected = np.pi / SECTORS * np.maximum(edge**2 - middle**2, 1.0)
    return (count >= 0.5 * expected) & (np.abs(inner - middle) <= max(2.5, 0.35 * width))


def _verdict(ring: BoolArray, geometry: Geometry, seen: BoolArray, good: BoolArray) -> Verdict:
    if seen.mean() < 0.4 or good.mean() < 0.3:
        return "none"
    return "disc" if _reaches_centre(ring, geometry) else "annulus"


def _reaches_centre(ring: BoolArray, geometry: Geometry) -> bool:
    """Whether the ring begins within 1.5 px of the centre in most directions.

    Seen along rays: so near the centre most sectors hold no pixel at all.
    """
    angle = (np.arange(SECTORS) + 0.5) * (2 * np.pi / SECTORS)
    radius = np.array([[0.0], [0.5], [1.0], [1.5]])
    y = np.rint(geometry.y + radius * np.sin(angle)).astype(int)
    x = np.rint(geometry.x + radius * np.cos(angle)).astype(int)
    h, w = ring.shape
    hit = ring[np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)].any(axis=0)
    return float(hit.mean()) > 0.5


def _interpolated(values: NDArray[np.float64], good: BoolArray) -> NDArray[np.float64]:
    at = np.arange(SECTORS)
    return np.interp(at, at[good], values[good], period=SECTORS)


def class_map(
    ring: BoolArray,
    geometry: Geometry,
    bad: BoolArray | None = None,
    stop_sectors: BoolArray | None = None,
) -> ClassMap:
    """Compose the class map of a frame.

    Parameters
    ----------
    ring : ndarray of bool
        ``(h, w)``, cleaned.
    geometry : Geometry
        The frame's beam.
    bad : ndarray of bool, optional
        ``(h, w)`` pixels without a value: they become `ClassCode.INVALID`.
    stop_sectors : ndarray of bool, optional
        ``(90,)`` sectors in which a beam-stop shadows the ring.

    Returns
    -------
    ndarray of uint8
        ``(h, w)`` values of `ClassCode`.
    """
    classes = np.where(ring, np.uint8(ClassCode.RING), np.uint8(ClassCode.BACKGROUND))
    profile = polar_profile(ring, geometry)
    if profile.verdict == "annulus":
        _paint(classes, ring, geometry, profile, stop_sectors)
    if bad is not None and bad.any():
        classes[bad] = ClassCode.INVALID
    return classes


def _paint(
    classes: ClassMap,
    ring: BoolArray,
    geometry: Geometry,
    profile: PolarProfile,
    stop_sectors: BoolArray | None,
) -> None:
    """Add core and beam-stop inside the box that the annulus spans."""
    reach = float(profile.outer.max()) + 1
    h, w = ring.shape
    rows = slice(max(0, int(geometry.y - reach)), min(h, int(geometry.y + reach) + 2))
    columns = slice(max(0, int(geometry.x - reach)), min(w, int(geometry.x + reach) + 2))
    y, x = np.mgrid[rows, columns]
    radius, sector = _polar(y, x, geometry)
    free = ~ring[rows, columns]
    inner, outer = profile.inner[sector], profile.outer[sector]
    view = classes[rows, columns]
    view[free & (radius < inner - 0.25)] = ClassCode.CORE
    if stop_sectors is not None:
        shadow = stop_sectors[sector] & (radius >= inner - 0.25) & (radius <= outer)
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
