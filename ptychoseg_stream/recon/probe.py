"""The first probe: the run's pupil, lit by the mean frame, back at the sample."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..science.frame import BoolArray, ClassCode, FloatArray, ValidBit
from .growing import GrowingScan, estimated_mean

EDGE = 0.7
"""Softness of the pupil's edge: standard deviation [px]. A sharp edge rings in the probe."""


def first_pupil(scan: GrowingScan) -> BoolArray:
    """Return ``(H, W)`` where the beam is: of the products, else where most frames are ring.

    What a beam-stop hides of the annulus is put in: the beam is there at the sample.
    """
    products = scan.products
    if products is None or not products.pupil.any():
        ring = scan.classes[scan.some] == ClassCode.RING
        return np.asarray(ring.mean(axis=0) > 0.5, bool)
    pupil = products.pupil > 0
    if not np.isfinite(products.outer):
        return pupil
    y, x = np.indices(scan.shape)
    radius = np.hypot(y - products.centre[0], x - products.centre[1])
    annulus = (radius <= products.outer) & (radius >= products.inner)
    return pupil | (annulus & ((products.pixel_mask & np.uint16(ValidBit.STOP)) > 0))


def first_probe(scan: GrowingScan, bend: float, pupil: BoolArray | None = None) -> NDArray:
    """Return ``(H, W)`` complex64, a guess of the probe at the sample [sqrt(counts)].

    Parameters
    ----------
    scan : GrowingScan
        With frames that are ready.
    bend : float
        Phase of the defocus: pi * wavelength * defocus / (side of the window)^2 [rad/px^2].
    pupil : ndarray of bool, optional
        ``(H, W)`` where the beam is; None: what the scan knows.
    """
    pupil = first_pupil(scan) if pupil is None else pupil
    amplitude = _amplitude(scan, pupil)
    centre = ndimage.center_of_mass(pupil) if pupil.any() else np.array(scan.shape) / 2
    y, x = np.indices(scan.shape)
    square = (y - centre[0]) ** 2 + (x - centre[1]) ** 2
    wave = np.fft.ifftshift(amplitude * np.exp(-1j * bend * square))
    return np.fft.fftshift(np.fft.ifft2(wave, norm="ortho")).astype(np.complex64)


def _amplitude(scan: GrowingScan, pupil: BoolArray) -> FloatArray:
    """Root of the mean frame inside the pupil; where nothing was measured, that of its ring."""
    mean = np.maximum(estimated_mean(scan), 0)
    measured = scan.usable(scan.some).any(axis=0)
    if not pupil.any():
        return np.sqrt(mean)
    lit = pupil & measured
    level = np.median(mean[lit]) if lit.any() else np.float32(1)
    soft = ndimage.gaussian_filter(pupil.astype(np.float32), EDGE)
    return np.sqrt(np.where(measured, mean, level) * soft)
