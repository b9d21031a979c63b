"""Where the beam is: its centre, its reference radius, and the polar maps around it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .frame import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class Geometry:
    """Beam centre and reference radius [px]; y is the row, x the column.

    The reference radius is that of a disc with the area of the filled bright field.
    """

    y: float
    x: float
    radius: float

    def moved(self, shift: tuple[float, float]) -> "Geometry":
        """Return the geometry of a frame shifted by ``(dy, dx)`` [px]."""
        return Geometry(self.y + shift[0], self.x + shift[1], self.radius)


def find_beam(relative: FloatArray, level: float = 0.5) -> Geometry:
    """Find the beam in a plateau-scaled frame.

    The half-maximum region (parts of at least 20 % of the largest), closed and hole-filled; its
    centroid and ``sqrt(area / pi)``.

    Parameters
    ----------
    relative : ndarray of float32
        ``(h, w)`` S/p.
    level : float
        Fraction of the plateau that bounds the bright field.

    Returns
    -------
    Geometry
    """
    region = ndimage.gaussian_filter(relative, 0.7) > level
    region = keep_large(region, 0.2)
    square = np.ones((3, 3), bool)
    # Padded, so that closing does not erode a beam at the border of the frame.
    closed = ndimage.binary_closing(np.pad(region, 5), square, iterations=4)[5:-5, 5:-5]
    filled = ndimage.binary_fill_holes(closed | region)
    if filled is None or not filled.any():
        h, w = relative.shape
        return Geometry((h - 1) / 2, (w - 1) / 2, min(h, w) / 4)
    y, x = ndimage.center_of_mass(filled)
    return Geometry(float(y), float(x), float(np.sqrt(filled.sum() / np.pi)))


def keep_large(region: BoolArray, fraction: float) -> BoolArray:
    """Keep the connected parts that have at least `fraction` of the largest part's area."""
    parts, n = ndimage.label(region)
    if n <= 1:
        return region
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    return (areas >= fraction * areas.max())[parts]


def radius_map(shape: tuple[int, int], y: NDArray, x: NDArray) -> FloatArray:
    """Distance from the centres: ``(n, h, w)`` float32 [px] for ``(n,)`` centres."""
    dy, dx = _offsets(shape, y, x)
    return np.sqrt(np.square(dy) + np.square(dx))


def angle_map(shape: tuple[int, int], y: NDArray, x: NDArray) -> FloatArray:
    """Angle around the centres: ``(n, h, w)`` float32 in [-pi, pi], 0 along +x, pi/2 along +y."""
    dy, dx = _offsets(shape, y, x)
    return np.arctan2(dy, dx)


def _offsets(shape: tuple[int, int], y: NDArray, x: NDArray) -> tuple[FloatArray, FloatArray]:
    rows = np.arange(shape[0], dtype=np.float32)[None, :, None]
    columns = np.arange(shape[1], dtype=np.float32)[None, None, :]
    y32 = np.asarray(y, np.float32)[:, None, None]
    x32 = np.asarray(x, np.float32)[:, None, None]
    return rows - y32, columns - x32
