"""A circle through the outer edge of a bright region that is cut off, open or damaged."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .frame import BoolArray

RAYS = 120
STEP = 0.5
"""Between two samples along a ray [px]."""
BULGE = 3
"""Price of an edge point outside the circle; one inside costs 1."""
SEEDS = 18
"""Edge points of which every three make a candidate: 816 circles."""


@dataclass(frozen=True, slots=True)
class Circle:
    """A circle and how well it describes an edge.

    Parameters
    ----------
    y, x, radius : float
        [px]
    agreement : float
        Fraction of the edge points that lie on it.
    arc : float
        Fraction of the circle that has such a point.
    """

    y: float
    x: float
    radius: float
    agreement: float
    arc: float


def fit_circle(region: BoolArray, start: tuple[float, float]) -> Circle | None:
    """Fit a circle to the outer edge of a region, whatever is missing of it.

    The edge is sought along rays from `start`; points on the border of the frame are no edge. Of
    the circles through every three of 18 edge points (Fischler and Bolles, *Communications of the
    ACM* 24, 381 (1981), without chance) the one with the most edge points near it is refined by
    least squares on those (Kasa, *IEEE Trans. Instrum. Meas.* 25, 8 (1976)).

    Parameters
    ----------
    region : ndarray of bool
        ``(h, w)``; its holes do not matter.
    start : tuple of float
        ``(y, x)`` from which the edge can be seen [px], such as the centroid.

    Returns
    -------
    Circle or None
        None for fewer than 8 edge points, or no circle of a size that a frame can show.
    """
    y, x = outer_edge(region, start)
    if len(y) < 8:
        return None
    span = float(max(region.shape))
    circles = _candidates(y, x, span)
    if circles.shape[1] == 0:
        return None
    off = np.hypot(y - circles[0, :, None], x - circles[1, :, None]) - circles[2, :, None]
    off /= _tolerance(circles[2])[:, None]
    # Truncated squares: near points count, and all far ones alike. A sample makes dents in a beam,
    # hardly anything makes it bulge.
    score = np.minimum(np.square(off), np.where(off > 0, BULGE, 1)).sum(axis=1)
    cy, cx, radius = (float(v) for v in circles[:, int(np.argmin(score))])
    agreement, arc = 0.0, 0.0
    for again in range(4):
        # Seen from its centre, the inner edge of an open ring no longer passes for an outer one.
        y, x = (y, x) if again == 0 else outer_edge(region, (cy, cx))
        near = np.abs(np.hypot(y - cy, x - cx) - radius) <= _tolerance(radius)
        if near.sum() < 6:
            return None
        agreement, arc = float(near.mean()), float(near.sum()) / RAYS
        cy, cx, radius = _kasa(y[near], x[near])
    return Circle(cy, cx, radius, agreement, arc) if radius <= span else None


def _tolerance(radius: Any) -> Any:
    return np.maximum(1.0, 0.06 * radius)


def outer_edge(
    region: BoolArray, start: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``(y, x)`` [px] where rays from `start` leave a region for good, not at the border."""
    h, w = region.shape
    angle = (np.arange(RAYS) + 0.5) * (2 * np.pi / RAYS)
    radius = np.arange(0, np.hypot(h, w), STEP)[:, None]
    y, x = start[0] + radius * np.sin(angle), start[1] + radius * np.cos(angle)
    row, column = np.rint(y).astype(int), np.rint(x).astype(int)
    inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
    lit = inside & region[np.clip(row, 0, h - 1), np.clip(column, 0, w - 1)]
    last = len(radius) - 1 - np.argmax(lit[::-1], axis=0)
    # Half a step farther the nearest pixel is another one.
    edge = radius[last, 0] + STEP / 2
    y, x = start[0] + edge * np.sin(angle), start[1] + edge * np.cos(angle)
    within = (y > 1.5) & (y < h - 2.5) & (x > 1.5) & (x < w - 2.5)
    use = lit.any(axis=0) & within
    return y[use], x[use]


def _candidates(y: NDArray[np.float64], x: NDArray[np.float64], span: float) -> NDArray[np.float64]:
    """Circles ``(3, n)`` of y, x, radius through every three of some points."""
    some = np.unique(np.linspace(0, len(y) - 1, SEEDS).round().astype(int))
    a, b, c = np.array(list(combinations(some.tolist(), 3))).T
    # Centre relative to the first point: two linear equations.
    by, bx, cy, cx = y[b] - y[a], x[b] - x[a], y[c] - y[a], x[c] - x[a]
    twice = 2 * (bx * cy - by * cx)
    good = np.abs(twice) > 1e-6
    a, by, bx, cy, cx, twice = (v[good] for v in (a, by, bx, cy, cx, twice))
    bb, cc = by**2 + bx**2, cy**2 + cx**2
    dx, dy = (cy * bb - by * cc) / twice, (bx * cc - cx * bb) / twice
    circles = np.stack([y[a] + dy, x[a] + dx, np.hypot(dy, dx)])
    return circles[:, circles[2] <= span]


def _kasa(y: NDArray[np.float64], x: NDArray[np.float64]) -> tuple[float, float, float]:
    """Least squares of ``y^2 + x^2 = 2 a y + 2 b x + c``, around the mean for the digits."""
    my, mx = float(y.mean()), float(x.mean())
    v, u = y - my, x - mx
    matrix = np.stack([2 * v, 2 * u, np.ones_like(v)], axis=1)
    (a, b, c), *_ = np.linalg.lstsq(matrix, v**2 + u**2, rcond=None)
    return my + float(a), mx + float(b), float(np.sqrt(max(c + a**2 + b**2, 0.0)))
