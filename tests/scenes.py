"""Frames of what is and what is no ring, in Poisson counts, with a seed."""

import numpy as np
from beams import degrees, radius
from numpy.typing import NDArray
from scipy import ndimage

Counts = NDArray[np.uint16]
SHAPE = (104, 104)


def counts_of(mean: NDArray, seed: int = 0, blur: float = 0.7) -> Counts:
    """Poisson counts of a mean image, blurred a little as a detector does."""
    soft = ndimage.gaussian_filter(np.asarray(mean, float), blur)
    return np.random.default_rng(seed).poisson(soft).astype(np.uint16)


def drawn(
    region: NDArray[np.bool_], plateau: float = 100, background: float = 0.1, seed: int = 0
) -> Counts:
    """A frame with a region of `plateau` counts per pixel."""
    return counts_of(background + plateau * region, seed)


def peaks(n: int, seed: int = 0, width: float = 1.6, shape: tuple[int, int] = SHAPE) -> Counts:
    """Bragg peaks of one height at random, not on the border."""
    rng = np.random.default_rng(seed)
    return at_places(rng.uniform(8, np.array(shape) - 8, (n, 2)), width, shape, seed)


def powder(n: int, r: float = 30, width: float = 1.6, seed: int = 0) -> Counts:
    """Bragg peaks at random on a circle."""
    turn = np.random.default_rng(seed).uniform(0, 2 * np.pi, n)
    return at_places(52 + r * np.stack([np.sin(turn), np.cos(turn)], axis=1), width, SHAPE, seed)


def lattice(spacing: int = 12, width: float = 1.4, seed: int = 0) -> Counts:
    """Bragg peaks on a square lattice."""
    y, x = np.mgrid[8 : 104 - 8 : spacing, 8 : 104 - 8 : spacing]
    return at_places(np.stack([y.ravel(), x.ravel()], axis=1), width, SHAPE, seed)


def at_places(places: NDArray, width: float, shape: tuple[int, int], seed: int) -> Counts:
    """Gaussian peaks of 300 counts at ``(n, 2)`` places."""
    mean = np.full(shape, 0.2)
    for place in places:
        mean += 300 * np.exp(-(radius(shape, tuple(place)) ** 2) / (2 * width**2))
    return np.random.default_rng(seed).poisson(mean).astype(np.uint16)


def streak(angle: float, length: float = 80, width: float = 4, seed: int = 0) -> Counts:
    """One straight streak through the middle of the frame."""
    y, x = np.indices(SHAPE) - 51.5
    a = np.deg2rad(angle)
    along, across = x * np.cos(a) + y * np.sin(a), y * np.cos(a) - x * np.sin(a)
    return drawn((np.abs(along) < length / 2) & (np.abs(across) < width / 2), seed=seed)


def half_lit(part: float = 0.45, angle: float = 0.0, seed: int = 0) -> Counts:
    """A frame whose one side is lit, with a straight edge."""
    y, x = np.indices(SHAPE) - 51.5
    a = np.deg2rad(angle)
    return drawn(x * np.cos(a) + y * np.sin(a) > (0.5 - part) * 104, seed=seed)


def blob(width: float, seed: int = 0, shape: tuple[int, int] = SHAPE) -> Counts:
    """A round Gaussian."""
    return counts_of(0.1 + 100 * np.exp(-(radius(shape, (50.3, 53.1)) ** 2) / (2 * width**2)), seed)


def ellipse(
    shape: tuple[int, int],
    centre: tuple[float, float],
    outer: float,
    ratio: float,
    hole: float = 0.5,
    tilt: float = 30.0,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Ring and core of an elliptical annulus: longer half axis `outer`, `ratio` times the other."""
    y, x = np.indices(shape, float)
    y, x, a = y - centre[0], x - centre[1], np.deg2rad(tilt)
    along, across = x * np.cos(a) + y * np.sin(a), ratio * (y * np.cos(a) - x * np.sin(a))
    rho = np.hypot(along, across) / outer
    return (rho >= hole) & (rho < 1), rho < hole


def sector(
    shape: tuple[int, int], centre: tuple[float, float], begin: float, end: float
) -> NDArray[np.bool_]:
    """Pixels in a range of directions [degrees]."""
    angle = degrees(shape, centre)
    return (angle >= begin) & (angle < end)
