"""Where the beam is: its centre, its reference radius, and the polar maps around it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .circle import fit_circle
from .frame import BoolArray, FloatArray

MIN_AGREEMENT, MIN_AGREEMENT_CUT = 0.7, 0.35
"""Of the outer edge points with the circle, for it to count; of a beam that the border cuts, whose
centroid is wrong for certain."""
MIN_ARC = 0.42
"""Of what the frame shows of a circle that must be an edge; the side of an ellipse is less."""
MIN_SHOWN = 0.3
"""Of a circumference that must lie in the frame, for a ring or disc to be recognised."""
MIN_CUT = 0.3
"""Border pixels in a beam, relative to its radius, from which on the border cuts it."""


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
    centroid and ``sqrt(area / pi)``. Where the border of the frame cuts the region, or it does not
    fill the circle around it (a lost sector, the arm of a beam-stop), both mislead: then the circle
    through its outer edge counts, if most of the edge lies on one. The centre may so lie outside
    the frame.

    An elliptical beam that is cut or open is no circle and gets the centroid.

    Parameters
    ----------
    relative : ndarray of float32
        ``(h, w)`` S/p.
    level : float
        Fraction of the plateau that bounds the bright field.

    Returns
    -------
    Geometry
        The middle of the frame and a quarter of its shorter side if nothing is bright.
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
    whole = Geometry(float(y), float(x), float(np.sqrt(filled.sum() / np.pi)))
    return _from_edge(np.asarray(filled, bool), whole) or whole


def _from_edge(filled: BoolArray, whole: Geometry) -> Geometry | None:
    """Circle of a region that is cut or open; None if its area tells the truth, or nothing does."""
    cut = sum(int(side.sum()) for side in (filled[0], filled[-1], filled[:, 0], filled[:, -1]))
    cuts = cut > MIN_CUT * whole.radius
    if not cuts and _solid(filled):
        return None
    circle = fit_circle(filled, (whole.y, whole.x))
    if circle is None or circle.agreement < (MIN_AGREEMENT_CUT if cuts else MIN_AGREEMENT):
        return None
    found = Geometry(circle.y, circle.x, circle.radius)
    inside = _in_frame(found, filled.shape)
    if inside < MIN_SHOWN or circle.arc < MIN_ARC * inside * (0.5 if cuts else 1):
        return None
    opened = filled.sum() < 0.85 * np.pi * found.radius**2
    sure = circle.agreement > 0.85
    return found if cuts or opened or sure else None


def _solid(region: BoolArray) -> bool:
    """Whether a region is an ellipse without a gap: its area is 4 pi times its second moments."""
    covariance = np.cov(np.array(np.nonzero(region)), bias=True) + np.eye(2) / 12
    return float(region.sum()) > 0.985 * 4 * np.pi * float(np.sqrt(np.linalg.det(covariance)))


def _in_frame(geometry: Geometry, shape: tuple[int, ...]) -> float:
    """Fraction of the circumference inside a frame ``(h, w)``."""
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    y = geometry.y + geometry.radius * np.sin(angle)
    x = geometry.x + geometry.radius * np.cos(angle)
    return float(((y >= 0) & (y <= shape[0] - 1) & (x >= 0) & (x <= shape[1] - 1)).mean())


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
