"""Numbers of frames as a map in real positions: raster or irregular scans, jitter, holes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from .experiment import Positions

LARGEST = 1 << 22
"""Cells of a map at most; positions that would need more are no scan."""
REGULAR = 0.2
"""Spread of the lines of a raster, relative to their distance, up to which it is one."""


@dataclass(frozen=True, slots=True, eq=False)
class ScanMap:
    """A map of some numbers of each frame.

    Parameters
    ----------
    values : ndarray of float32
        ``(m, ny, nx)`` mean over the frames in each cell; where there is none, that of the nearest
        frame within a step, else NaN. Row 0 has the smallest y.
    origin : tuple of float
        ``(y, x)`` of the centre of the first cell [m].
    step : tuple of float
        ``(y, x)`` size of a cell [m].
    """

    values: NDArray[np.float32]
    origin: tuple[float, float]
    step: tuple[float, float]


def scan_map(positions: Positions, numbers: NDArray[np.float64]) -> ScanMap:
    """Return numbers of frames as a map.

    A raster gets one cell per point. Any other scan gets square cells, as many as there are points.

    Parameters
    ----------
    positions : ndarray of float64
        ``(n, 2)`` y and x [m]; frames with NaN are left out.
    numbers : ndarray of float64
        ``(n, m)``; NaN: the frame has none.

    Returns
    -------
    ScanMap
        Of one cell of NaN where there is no position.
    """
    known = np.isfinite(positions).all(1)
    places, values = positions[known], numbers[known]
    grid = _grid(places) if len(places) else None
    if grid is None:
        nothing = np.full((numbers.shape[1], 1, 1), np.nan, np.float32)
        return ScanMap(nothing, (np.nan, np.nan), (np.nan, np.nan))
    (y0, ny, dy), (x0, nx, dx) = grid
    rows = np.clip(np.rint((places[:, 0] - y0) / dy), 0, ny - 1).astype(int)
    columns = np.clip(np.rint((places[:, 1] - x0) / dx), 0, nx - 1).astype(int)
    maps = [_mean(rows, columns, column, (ny, nx)) for column in values.T]
    cells = np.indices((ny, nx)).reshape(2, -1).T
    beside = cKDTree((places - (y0, x0)) / (dy, dx))
    away, nearest = beside.query(cells, distance_upper_bound=1.0)
    within = np.isfinite(away)
    filled: list[NDArray[np.float64]] = []
    for plain, column in zip(maps, values.T, strict=True):
        flat = plain.reshape(-1)
        hole = np.isnan(flat) & within
        flat[hole] = column[nearest[hole]]
        filled.append(flat.reshape(ny, nx))
    return ScanMap(np.stack(filled).astype(np.float32), (y0, x0), (dy, dx))


def _mean(
    rows: NDArray[np.int_],
    columns: NDArray[np.int_],
    values: NDArray[np.float64],
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """Return ``(ny, nx)`` mean of the values in each cell; NaN without any."""
    known = np.isfinite(values)
    flat = rows[known] * shape[1] + columns[known]
    size = shape[0] * shape[1]
    count = np.bincount(flat, minlength=size)
    total = np.bincount(flat, values[known], size)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).reshape(shape)


def _grid(places: Positions) -> tuple[tuple[float, int, float], tuple[float, int, float]] | None:
    """Return first place, number and distance of the lines of the map, along y and x."""
    low, high = places.min(0), places.max(0)
    lines = [_lines(places[:, axis]) for axis in (0, 1)]
    y, x = lines
    if y is not None and x is not None and y[1] * x[1] <= 2 * len(places) + 8:
        return (y[0], y[1], y[2] or x[2] or 1.0), (x[0], x[1], x[2] or y[2] or 1.0)
    span = high - low
    if not span.all():  # a line, irregular along it
        step = float(span.max()) / max(len(places) - 1, 1)
    else:
        step = float(np.sqrt(span.prod() / len(places)))
    ny, nx = (int(np.rint(side / step)) + 1 for side in span)
    if ny * nx > LARGEST:
        return None
    return (float(low[0]), ny, step), (float(low[1]), nx, step)


def _lines(values: NDArray[np.float64]) -> tuple[float, int, float] | None:
    """Return first place, number and distance of the lines that values lie on; None if on none.

    Sorted, the values of a raster rise within a line by the jitter, and from line to line by a
    step: the distances between neighbours are of two kinds, far apart.
    """
    ordered = np.sort(values)
    span = float(ordered[-1] - ordered[0])
    rises = np.diff(ordered)
    if not span > 0:
        return float(ordered[0]), 1, 0.0
    sizes = np.sort(np.maximum(rises, 1e-6 * span))
    ratio = sizes[1:] / sizes[:-1]
    limit = 1e-6 * span
    if len(ratio) and ratio.max() > 4:
        place = int(ratio.argmax())
        limit = float(np.sqrt(sizes[place] * sizes[place + 1]))
    ends = np.flatnonzero(rises > limit)
    groups = np.split(ordered, ends + 1)
    centres = np.array([group.mean() for group in groups])
    if len(centres) < 2:
        return None
    steps = np.diff(centres)
    step = float(np.median(steps))
    spread = max(float(group.max() - group.min()) for group in groups)
    # A line may be missing where the scan was broken off, or not have begun.
    whole = np.rint(steps / step)
    regular = np.abs(steps / step - whole).max() < REGULAR and whole.min() >= 1
    if not regular or spread > 2 * REGULAR * step:
        return None
    return float(centres[0]), int(whole.sum()) + 1, float((centres[-1] - centres[0]) / whole.sum())
