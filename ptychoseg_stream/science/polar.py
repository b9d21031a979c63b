"""The ring seen from the beam centre: rays, sectors, and a smooth radius through them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .frame import BoolArray
from .geometry import Geometry

SECTORS = 90
"""Sectors of four degrees."""

STEP = 0.5
"""Between two samples along a ray [px]."""

ORDER = 4
"""Highest harmonic of the smooth radius: an ellipse of axis ratio 1.5 needs the second and 4th."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PolarView:
    """Ring mask on rays from the beam centre, and what each sector says of it.

    Parameters
    ----------
    radius : ndarray of float64
        ``(n,)`` of the samples [px].
    lit, shown : ndarray of float64
        ``(n, 90)`` fraction of the rays of a sector on the ring; on measured pixels of the frame.
    inner, outer : ndarray of float64
        ``(90,)`` first and last radius on the ring [px]; inf and -inf where there is none.
    inner_known, outer_known : ndarray of bool
        ``(90,)`` whether that is where the ring begins and ends, not where the frame does.
    """

    radius: Floats
    lit: Floats
    shown: Floats
    inner: Floats
    outer: Floats
    inner_known: BoolArray
    outer_known: BoolArray


def polar_view(ring: BoolArray, geometry: Geometry, hidden: BoolArray | None = None) -> PolarView:
    """Sample a ring mask on rays from the beam centre, one or three to a sector.

    Parameters
    ----------
    ring : ndarray of bool
        ``(h, w)``.
    geometry : Geometry
        Its centre may lie outside the frame.
    hidden : ndarray of bool, optional
        ``(h, w)`` pixels of which nothing is known; they are treated like pixels off the frame.
    """
    h, w = ring.shape
    y, x = np.nonzero(ring)
    reach = float(np.hypot(y - geometry.y, x - geometry.x).max(initial=0.0))
    # Sectors wider than a pixel need more than one ray.
    rays = 1 if reach * 2 * np.pi / SECTORS < 1.5 else 3
    angle = (np.arange(SECTORS * rays) + 0.5) * (2 * np.pi / (SECTORS * rays))
    radius = np.arange(0, reach + 4 * STEP, STEP)
    row = np.rint(geometry.y + radius[:, None] * np.sin(angle)).astype(int)
    column = np.rint(geometry.x + radius[:, None] * np.cos(angle)).astype(int)
    shown = (row >= 0) & (row < h) & (column >= 0) & (column < w)
    row, column = np.clip(row, 0, h - 1), np.clip(column, 0, w - 1)
    if hidden is not None:
        shown &= ~hidden[row, column]
    lit = shown & ring[row, column]  # (n, 90 * rays)
    first, last = _ends(lit)
    enters, leaves = _ends(shown)
    some = lit.any(axis=0)
    begins = some & ((enters == 0) | (first > enters + 2))
    ends = some & ((leaves == len(radius) - 1) | (last < leaves - 2))
    inner, outer = np.where(some, radius[first], np.inf), np.where(some, radius[last], -np.inf)
    return PolarView(
        radius,
        _per_sector(lit.astype(float), rays).mean(axis=2),
        _per_sector(shown.astype(float), rays).mean(axis=2),
        np.median(_per_sector(inner, rays), axis=1),
        np.median(_per_sector(outer, rays), axis=1),
        2 * _per_sector(begins, rays).sum(axis=1) > rays,
        2 * _per_sector(ends, rays).sum(axis=1) > rays,
    )


def _ends(mask: BoolArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last index along axis 0 where a mask holds (0 and n - 1 where nowhere)."""
    return np.argmax(mask, axis=0), len(mask) - 1 - np.argmax(mask[::-1], axis=0)


def _per_sector(values: NDArray, rays: int) -> NDArray:
    return values.reshape(*values.shape[:-1], SECTORS, rays)


def smooth_radius(values: Floats, usable: BoolArray, tolerance: float) -> Floats:
    """Fit a smooth closed curve radius(theta) through sectors, outliers set aside.

    Harmonics up to the order 0, 2 or 4: the lowest with which nearly as many sectors agree as with
    the best, so that a gap in a circle is bridged by a circle and not by waves.

    Parameters
    ----------
    values : ndarray of float64
        ``(90,)`` [px].
    usable : ndarray of bool
        ``(90,)``; at least one.
    tolerance : float
        What counts as agreeing, at most [px].

    Returns
    -------
    ndarray of float64
        ``(90,)`` [px], not below 0.
    """
    target = values[usable]
    # Sectors of the edge itself lie within a pixel; what the sample or an arm shifts does not.
    near = float(np.clip(0.06 * np.median(target), 1.0, max(tolerance, 1.0)))
    curves: list[Floats] = []
    agree: list[int] = []
    for order in (0, 2, ORDER):
        curves.append(_fitted(target, usable, order, near))
        agree.append(int((np.abs(target - curves[-1][usable]) <= near).sum()))
        if agree[-1] > 0.9 * len(target):  # no other can be that much better
            break
    enough = next(i for i, n in enumerate(agree) if n >= 0.9 * max(agree))
    return np.maximum(curves[enough], 0)


def _fitted(target: Floats, usable: BoolArray, order: int, near: float) -> Floats:
    """Fit by weights of Geman and McClure, whose width shrinks to `near`.

    Graduated non-convexity: Blake and Zisserman, *Visual Reconstruction* (1987).
    """
    basis, hold = _BASIS[:, : 2 * order + 1], _HOLD[: 2 * order + 1]
    matrix, penalty = basis[usable], np.diag(hold * len(target))
    middle = float(np.median(target))
    width = max(near, 2 * float(np.median(np.abs(target - middle))))
    curve = np.full(SECTORS, middle)
    for _ in range(8):
        weight = 1 / np.square(1 + np.square((target - curve[usable]) / width))
        weighted = matrix * weight[:, None]
        # Held towards the median: with few sectors it stays a circle.
        terms = np.linalg.solve(weighted.T @ matrix + penalty, weighted.T @ (target - middle))
        curve = middle + basis @ terms
        width = max(near, 0.7 * width)
    return curve


def _basis() -> tuple[Floats, Floats]:
    angle = (np.arange(SECTORS) + 0.5) * (2 * np.pi / SECTORS)
    columns, hold = [np.ones(SECTORS)], [1e-6]
    for k in range(1, ORDER + 1):
        columns += [np.cos(k * angle), np.sin(k * angle)]
        hold += [0.002 * k * k] * 2
    return np.stack(columns, axis=1), np.array(hold)


_BASIS, _HOLD = _basis()


def completed(values: Floats, usable: BoolArray, curve: Floats) -> Floats:
    """Keep usable values as far as they lie near the curve, take the curve elsewhere."""
    slack = np.maximum(1.0, 0.1 * curve)
    return np.where(usable, np.clip(values, curve - slack, curve + slack), curve)


def band_cover(view: PolarView, inner: Floats, outer: Floats) -> tuple[Floats, Floats]:
    """How much of the ring's band each sector fills.

    The band lies between two curves. It is cut into layers of about one pixel; only those count
    that are half as full as the fullest: so the space between two concentric rings does not.

    Returns
    -------
    cover : ndarray of float64
        ``(90,)`` ring area over band area of what is shown; 0 where nothing is.
    shown : ndarray of float64
        ``(90,)`` part of the band that the frame shows.
    """
    thickness = np.maximum(outer - inner, 1.0)
    layers = int(np.clip(np.round(np.median(thickness)), 1, 24))
    depth = (view.radius[:, None] - inner) / thickness
    layer = np.clip((depth * layers).astype(int), 0, layers - 1)  # (n, 90)
    inside = (depth >= 0) & (depth <= 1)
    area = view.radius[:, None] * inside
    lit, shown = area * view.lit, area * view.shown
    fill = np.bincount(layer.ravel(), lit.ravel(), layers)
    fill /= np.maximum(np.bincount(layer.ravel(), shown.ravel(), layers), 1e-9)
    counts = (fill >= 0.5 * fill.max())[layer]
    total, seen = (area * counts).sum(axis=0), (shown * counts).sum(axis=0)
    cover = (lit * counts).sum(axis=0) / np.maximum(seen, 1e-9)
    return cover, seen / np.maximum(total, 1e-9)
