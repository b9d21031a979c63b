"""The sample of CXIDB 65 as a complex transmission: 50 nm gold balls on silicon nitride.

Optical constants are those of Chantler's tables at 1000 eV.
"""

from dataclasses import dataclass
from math import pi
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

ENERGY_EV = 1000.0
WAVELENGTH = 1.2398e-9  # m, at ENERGY_EV
MEMBRANE_THICKNESS = 50e-9  # m

ComplexArray: TypeAlias = NDArray[np.complex64]


@dataclass(frozen=True, slots=True)
class Material:
    """Refractive index ``1 - delta + i beta`` of a material.

    Parameters
    ----------
    delta, beta : float
        Dispersion and absorption.
    """

    delta: float
    beta: float

    def transmission(self, thickness: NDArray[np.float64]) -> ComplexArray:
        """Return ``exp(-k beta t - i k delta t)`` of a thickness map `thickness` [m]."""
        k = 2 * pi / WAVELENGTH
        return np.exp(-k * (self.beta + 1j * self.delta) * thickness).astype(np.complex64)


GOLD = Material(delta=2.127e-3, beta=8.47e-4)
SILICON_NITRIDE = Material(delta=6.38e-4, beta=6.7e-5)


@dataclass(frozen=True, slots=True)
class Balls:
    """How the gold balls lie on the membrane.

    Parameters
    ----------
    diameter : float
        Mean diameter of a ball [m].
    spread : float
        Standard deviation of the diameter, relative to it.
    coverage : float
        Part of the area that one layer of balls covers, away from overlaps.
    layers : int
        Layers dropped one on the other; within a layer balls do not overlap.
    cluster : float
        Mean number of balls in a cluster.
    """

    diameter: float = 50e-9
    spread: float = 0.06
    coverage: float = 0.12
    layers: int = 1
    cluster: float = 25.0


def gold_on_membrane(
    shape: tuple[int, int], pixel: float, balls: Balls, rng: np.random.Generator
) -> ComplexArray:
    """Draw a sample.

    Parameters
    ----------
    shape : tuple of int
        ``(H, W)`` of the object.
    pixel : float
        Object pixel [m].
    balls : Balls
        What lies on the membrane.
    rng : numpy.random.Generator
        Where the balls lie and how large they are.

    Returns
    -------
    ndarray of complex64
        ``(H, W)`` transmission of the exit wave, membrane included.
    """
    gold = np.zeros(shape)
    for _ in range(balls.layers):
        centres = _scatter(shape, pixel, balls, rng)
        radii = balls.diameter / 2 * (1 + balls.spread * rng.standard_normal(len(centres)))
        _add_spheres(gold, centres, radii / pixel, pixel)
    membrane = SILICON_NITRIDE.transmission(np.full((1, 1), MEMBRANE_THICKNESS))
    return GOLD.transmission(gold) * membrane


def _scatter(
    shape: tuple[int, int], pixel: float, balls: Balls, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return ``(n, 2)`` centres [px] of balls that lie in clusters and do not overlap."""
    diameter = balls.diameter / pixel
    wanted = balls.coverage * shape[0] * shape[1] / (pi * diameter**2 / 4)
    n_clusters = max(1, round(wanted / balls.cluster))
    members = 1 + rng.poisson(1.6 * balls.cluster, n_clusters)  # some are lost to overlaps below
    heart = rng.uniform((0, 0), shape, (n_clusters, 2)).repeat(members, axis=0)
    width = 0.5 * diameter * np.sqrt(members).repeat(members)[:, None]
    centres = heart + width * rng.standard_normal((len(heart), 2))
    keep = np.ones(len(centres), bool)
    for first, second in sorted(KDTree(centres).query_pairs(0.95 * diameter)):
        keep[second] &= not keep[first]
    return centres[keep]


def _add_spheres(
    thickness: NDArray[np.float64],
    centres: NDArray[np.float64],
    radii: NDArray[np.float64],
    pixel: float,
) -> None:
    """Add projected spheres to ``(H, W)`` `thickness` [m]; `centres`, `radii` in pixels.

    Each is averaged over 3x3 points of a pixel: with 4.5 px per ball, plain sampling would leave
    steps at its rim that scatter far outside the ring.
    """
    reach = int(np.ceil(radii.max(initial=0.0))) + 1
    offsets = np.arange(-reach, reach + 1)
    fine = (offsets[:, None] + np.array([-1, 0, 1]) / 3).ravel()
    nearest = np.rint(centres).astype(int)  # (n, 2)
    away = fine - (centres - nearest)[:, :, None]  # (n, 2, 3k)
    square = radii[:, None, None] ** 2 - away[:, 0, :, None] ** 2 - away[:, 1, None, :] ** 2
    chord = 2 * pixel * np.sqrt(np.maximum(square, 0.0))  # (n, 3k, 3k)
    k = len(offsets)
    chord = chord.reshape(-1, k, 3, k, 3).mean((2, 4))
    rows = np.broadcast_to((nearest[:, 0, None] + offsets)[:, :, None], chord.shape)
    columns = np.broadcast_to((nearest[:, 1, None] + offsets)[:, None, :], chord.shape)
    height, width = thickness.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    np.add.at(thickness, (rows[inside], columns[inside]), chord[inside])
