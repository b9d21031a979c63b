"""What is known of the experiment beside the frames: all that a reconstruction needs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

EV = 1.602176634e-19
"""J per eV (exact, SI)."""
HC = 1.23984198433e-6
"""Photon energy times wavelength [eV m] (CODATA 2018)."""

Positions: TypeAlias = NDArray[np.float64]
"""``(n, 2)`` of the probe on the sample, y and x [m]; row i is frame i, NaN where not known."""

ENERGY_KEYS = {
    **dict.fromkeys(("energy_eV", "photon_energy_eV", "incident_energy_eV"), 1.0),
    **dict.fromkeys(("energy_keV", "photon_energy_keV"), 1e3),
}
DISTANCE_KEYS = {"detector_distance_m": 1.0, "distance_m": 1.0, "detector_distance_mm": 1e-3}
PIXEL_KEYS = {
    **dict.fromkeys(("detector_pixel_size_m", "pixel_size_m"), 1.0),
    **dict.fromkeys(("detector_pixel_size_um", "pixel_size_um"), 1e-6),
}
"""Keys of a start document that are understood, and what they count in: eV, m."""


@dataclass(frozen=True, slots=True)
class ExperimentOptions:
    """What a beamline's runs have in common; what a start document says counts more.

    Parameters
    ----------
    energy_eV : float
        Photon energy [eV]; 0: unknown, here and below.
    distance_m : float
        From the sample to the detector [m].
    pixel_size_m : tuple of float
        Of the detector, ``(y, x)`` [m].
    """

    energy_eV: float = 0.0
    distance_m: float = 0.0
    pixel_size_m: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name in ("energy_eV", "distance_m"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: {getattr(self, name)} must be above 0, or 0 if unknown")
        if not all(0 <= side < 1e-2 for side in self.pixel_size_m):
            raise ValueError(f"pixel_size_m: {self.pixel_size_m} are no sizes of pixels in metres")


@dataclass(frozen=True, slots=True)
class Experiment:
    """Geometry of a run; what is not known is 0.

    Parameters
    ----------
    energy : float
        Photon energy [eV].
    distance : float
        From the sample to the detector [m].
    pixel_size : tuple of float
        Of the detector, ``(y, x)`` [m].
    """

    energy: float = 0.0
    distance: float = 0.0
    pixel_size: tuple[float, float] = (0.0, 0.0)

    @property
    def wavelength(self) -> float:
        """[m]; 0 if the energy is not known."""
        return HC / self.energy if self.energy > 0 else 0.0


def experiment_of(start: Mapping[str, Any], options: ExperimentOptions) -> Experiment:
    """Return what a start document says of the experiment, else what the options say."""
    size = _sizes(start) or options.pixel_size_m
    return Experiment(
        _first(start, ENERGY_KEYS) or options.energy_eV,
        _first(start, DISTANCE_KEYS) or options.distance_m,
        size,
    )


def _first(start: Mapping[str, Any], keys: Mapping[str, float]) -> float:
    found = (_positive(start.get(key)) * factor for key, factor in keys.items())
    return next(filter(None, found), 0.0)


def _sizes(start: Mapping[str, Any]) -> tuple[float, float] | None:
    for key, factor in PIXEL_KEYS.items():
        given: Any = start.get(key)
        pair = isinstance(given, Sequence) and not isinstance(given, str)
        both = list(cast(Sequence[Any], given)) if pair else [given, given]
        sizes = [_positive(side) * factor for side in both]
        if len(sizes) == 2 and all(sizes):
            return sizes[0], sizes[1]
    return None


def _positive(value: Any) -> float:
    """Return a number above 0; 0 for anything else."""
    known = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    number = float(value) if known else 0.0
    return number if 0 < number < math.inf else 0.0
