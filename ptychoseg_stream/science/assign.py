"""Pixels to prototypes: which are ring, which prototypes are hit, how well they fit."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .frame import BoolArray, FloatArray

PIXELS = 1 << 14
"""Pixels labelled at a time: bounds the memory that a large frame takes."""

LIT = 0.15
"""Of the plateau: prototypes below are dark field."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """What the teacher makes of a micro-batch.

    Parameters
    ----------
    rings : ndarray of bool
        ``(n, h, w)`` ring pixels, cleaned of specks and pinholes.
    hits : ndarray of int64
        ``(n, m)`` pixels nearest to each prototype that is lit; 0 for the others.
    errors : ndarray of float64
        ``(n,)`` root mean square quantisation error in the weighted feature space.
    """

    rings: BoolArray
    hits: NDArray[np.int64]
    errors: NDArray[np.float64]

    def __getitem__(self, item: slice) -> "Labels":
        """Return a part of the micro-batch."""
        return Labels(self.rings[item], self.hits[item], self.errors[item])


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Prototypes made ready for labelling, ring prototypes first.

    ``bias - gain @ features`` is the squared distance but for a term common to all prototypes;
    ``border[r, o]`` is by how much o must be farther than r for the pixel to be ring.

    Parameters
    ----------
    order : ndarray of int
        ``(m,)`` which prototype stands where.
    gain : ndarray of float32
        ``(m, 9)``.
    bias : ndarray of float32
        ``(m,)``.
    border : ndarray of float32
        ``(rings, others)``.
    rings : int
        How many are ring.
    """

    order: NDArray[np.intp]
    gain: FloatArray
    bias: FloatArray
    border: FloatArray
    rings: int


def assign(features: FloatArray, table: Table) -> tuple[BoolArray, NDArray[np.int64], float]:
    """Assign pixels to prototypes.

    Between the nearest ring prototype and the nearest other one the border lies where the
    intensity, interpolated along the line that joins them, crosses `edge_level`: midway, it would
    depend on where the map happened to put its prototypes.

    Parameters
    ----------
    features : ndarray of float32
        ``(9, pixels)``.
    table : Table

    Returns
    -------
    ring : ndarray of bool
        ``(pixels,)``.
    hits : ndarray of int64
        ``(m,)`` pixels nearest to each prototype.
    least : float
        Sum over pixels of the squared distance to the nearest, but for the common term.
    """
    m, pixels = len(table.bias), features.shape[1]
    answer = np.zeros(pixels, bool)
    hits, least = np.zeros(m, np.int64), 0.0
    for begin in range(0, pixels, PIXELS):
        part = slice(begin, begin + PIXELS)
        distance = table.gain @ features[:, part]  # (m, pixels)
        np.subtract(table.bias[:, None], distance, out=distance)
        nearest, near = _nearest(distance, table, answer[part])
        hits += np.bincount(nearest, minlength=m)
        least += float(near.sum(dtype=np.float64))
    ordered = np.empty_like(hits)
    ordered[table.order] = hits
    return answer, ordered, least


def _nearest(
    distance: FloatArray, table: Table, ring_pixels: BoolArray
) -> tuple[NDArray[np.intp], FloatArray]:
    """Nearest prototype ``(pixels,)`` and its distance; fills in which pixels are ring."""
    if table.rings == 0 or table.rings == len(table.bias):
        return _least(distance)
    ring, to_ring = _least(distance[: table.rings])
    other, to_other = _least(distance[table.rings :])
    lead = to_other - to_ring
    np.greater_equal(lead, table.border[ring, other], out=ring_pixels)
    return np.where(lead >= 0, ring, other + table.rings), np.minimum(to_ring, to_other)


def _least(distance: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """Return where the least of each column stands, the first one, and what it is."""
    # Across rows NumPy is quick with extremes, of bytes above all, and slow with their places: the
    # first row in which the least stands is the greatest of numbers that count down.
    least = distance.min(axis=0)
    rows = len(distance)
    countdown = np.arange(rows, 0, -1, dtype=np.min_scalar_type(rows))
    found = ((distance == least) * countdown[:, None]).max(axis=0)
    return rows - np.maximum(found, 1).astype(np.intp), least  # NaN: the last row
