"""Zone-plate pupil, probe and far field of the gold-ball scan of CXIDB 65.

Waves live on a window twice as wide as the frames resolve (208 px for 104); its intensity is binned
2x2, which is what the area of a detector pixel does.
"""

from dataclasses import dataclass
from math import pi
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter
from scipy.special import erf

from .sample import WAVELENGTH, ComplexArray

OVERSAMPLING = 2


@dataclass(frozen=True, slots=True)
class Pupil:
    """The annulus that a zone plate with a central stop lights up on the detector.

    The defaults are a least-squares fit to the pupil reconstructed from the measured frames;
    blurred, its half-maximum radii are 4.62 and 9.63 px.

    Parameters
    ----------
    center : tuple of float
        ``(row, column)`` on the detector [px].
    r_in, r_out : float
        Radii at half the intensity before `psf` blurs it [px].
    edge : float
        Softness of both edges: standard deviation of the error function [px].
    leak : float
        Intensity that the central stop lets through, relative to the ring.
    psf : float
        Standard deviation of the detector's Gaussian point spread [px].
    defocus : float
        Distance of the sample from the focus [m].
    """

    center: tuple[float, float] = (51.46, 49.20)
    r_in: float = 4.78
    r_out: float = 9.65
    edge: float = 0.6
    leak: float = 0.012
    psf: float = 0.85
    defocus: float = 2e-6


@dataclass(frozen=True, slots=True)
class Beam:
    """Where the beam is and how large, for each of ``n`` frames.

    Parameters
    ----------
    shifts : ndarray
        ``(n, 2)`` rows and columns from the pupil's centre [px].
    scales : ndarray
        ``(n,)`` factor on the radii of the pupil.
    """

    shifts: NDArray[np.float64]
    scales: NDArray[np.float64]

    def __getitem__(self, which: slice | NDArray[np.intp]) -> "Beam":
        """Return the beam of some of the frames."""
        return Beam(self.shifts[which], self.scales[which])


def ring_profile(
    pupil: Pupil, beam: Beam, rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return intensity (1 on the ring) and squared radius [px^2] of an unblurred pupil.

    Parameters
    ----------
    pupil : Pupil
        The annulus.
    beam : Beam
        Of ``n`` frames.
    rows, columns : ndarray
        ``(h,)`` and ``(w,)`` detector coordinates of the samples [px].

    Returns
    -------
    intensity, square : ndarray of float32
        ``(n, h, w)`` each.
    """
    dy = (rows - pupil.center[0] - beam.shifts[:, :1]).astype(np.float32)  # (n, h)
    dx = (columns - pupil.center[1] - beam.shifts[:, 1:]).astype(np.float32)  # (n, w)
    square = dy[:, :, None] ** 2 + dx[:, None, :] ** 2
    scale = beam.scales.astype(np.float32)[:, None, None]
    # The cast keeps float32: a Python float would not widen, a numpy float64 scalar would.
    width = np.float32(np.sqrt(2) * pupil.edge)
    radius = np.sqrt(square)
    outer = 0.5 - 0.5 * erf((radius - np.float32(pupil.r_out) * scale) / width)
    inner = 0.5 + 0.5 * erf((radius - np.float32(pupil.r_in) * scale) / width)
    leak = np.float32(pupil.leak)
    return np.asarray(outer * (leak + (1 - leak) * inner), np.float32), square


def empty_beam(pupil: Pupil, beam: Beam, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return ``(n, H, W)`` what the detector sees without a sample; 1 on the flat of the ring."""
    rows, columns = (_fine_axis(size) for size in shape)
    fine, _ = ring_profile(pupil, beam, rows, columns)
    return blur(_bin(fine), pupil.psf)


def far_field(
    transmission: ComplexArray,
    corners: NDArray[np.float64],
    pupil: Pupil,
    beam: Beam,
    shape: tuple[int, int],
    pixel: float,
) -> NDArray[np.float32]:
    """Propagate probe times sample to the detector.

    Parameters
    ----------
    transmission : ndarray of complex64
        Of the whole sample.
    corners : ndarray
        ``(n, 2)`` where in `transmission` the window of each frame begins [px]; fractions are kept.
    pupil : Pupil
        What makes the probe.
    beam : Beam
        Of the ``n`` frames.
    shape : tuple of int
        ``(H, W)`` of a frame.
    pixel : float
        Object pixel [m], which fixes the angle that a detector pixel spans.

    Returns
    -------
    ndarray of float32
        ``(n, H, W)`` intensity before the point spread; 1 on the flat of the ring where the
        sample is empty.
    """
    window = tuple(OVERSAMPLING * size for size in shape)
    whole = np.floor(corners).astype(int)
    probe = _probe(pupil, beam, shape, pixel, corners - whole)  # (n, 2H, 2W)
    for wave, (row, column) in zip(probe, whole, strict=True):
        wave *= transmission[row : row + window[0], column : column + window[1]]
    spread = cast(ComplexArray, fft.fft2(probe, overwrite_x=True))
    intensity = np.asarray(spread.real**2 + spread.imag**2, np.float32)
    return np.fft.fftshift(_bin(intensity), axes=(1, 2))


def blur(intensity: NDArray[np.float32], psf: float) -> NDArray[np.float32]:
    """Spread ``(n, H, W)`` by a Gaussian of standard deviation `psf` [px]."""
    return np.asarray(gaussian_filter(intensity, psf, axes=(1, 2)), np.float32)


def _fine_axis(size: int) -> NDArray[np.float64]:
    """Detector coordinates [px] of the window's samples; two of them make a pixel."""
    return (np.arange(OVERSAMPLING * size) - (OVERSAMPLING - 1) / 2) / OVERSAMPLING


def _probe(
    pupil: Pupil,
    beam: Beam,
    shape: tuple[int, int],
    pixel: float,
    fractions: NDArray[np.float64],
) -> ComplexArray:
    """Return ``(n, 2H, 2W)`` probes in the middle of the window, moved by `fractions` [px]."""
    rows, columns = (fft.ifftshift(_fine_axis(size)) for size in shape)
    ring, square = ring_profile(pupil, beam, rows, columns)
    # Fresnel phase pi lambda z q^2 with q = r / (H pixel): a detector pixel spans 1 / (H pixel).
    bend = pi * WAVELENGTH * pupil.defocus / (shape[0] * pixel) ** 2
    wave = np.sqrt(ring) * np.exp(np.complex64(-1j * bend) * square)
    for axis, size in ((1, shape[0]), (2, shape[1])):
        place = fractions[:, axis - 1] + size  # `size` is the middle of a window of 2 * size
        ramp = np.exp(-2j * pi * np.outer(place, fft.fftfreq(OVERSAMPLING * size)))
        wave *= np.expand_dims(ramp.astype(np.complex64), 3 - axis)
    return cast(ComplexArray, fft.ifft2(wave, overwrite_x=True))


def _bin(fine: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average 2x2 samples, ``(n, 2H, 2W)`` to ``(n, H, W)``."""
    rows = fine[:, ::2] + fine[:, 1::2]
    mean = np.float32(1 / OVERSAMPLING**2) * (rows[:, :, ::2] + rows[:, :, 1::2])
    return np.asarray(mean, np.float32)
