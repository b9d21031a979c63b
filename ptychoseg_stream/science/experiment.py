"""What is known of the experiment beside the frames: all that a reconstruction needs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EV = 1.602176634e-19
"""J per eV (exact, SI)."""
HC = 1.23984198433e-6
"""Photon energy times wavelength [eV m]."""


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


Positions = NDArray[np.float64]
"""``(n, 2)`` of the probe on the sample, y and x [m]; row i is frame i, NaN where not known."""
