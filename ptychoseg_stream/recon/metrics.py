"""How good a reconstruction is, against an object that is known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from ..science.frame import FloatArray

Complex = NDArray[np.complexfloating]
RIM = 3
"""Pixels at the border that are not scored: a shift moves what lies outside into them."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A reconstruction beside the object that it should be.

    Parameters
    ----------
    aligned : ndarray of complex
        ``(h, w)`` scale, phase, ramp and shift removed, without its rim.
    truth : ndarray of complex
        ``(h, w)`` the same part of the object.
    """

    aligned: Complex
    truth: Complex

    @property
    def nrmse(self) -> float:
        """Root mean square of the error, relative to what the object differs from its mean.

        0 is perfect; 1 is what a constant would reach.
        """
        return _distance(self.aligned, self.truth)

    @property
    def frc(self) -> FloatArray:
        """``(k,)`` Fourier ring correlation; entry i belongs to i / min(h, w) cycles per pixel."""
        return ring_correlation(self.aligned, self.truth)

    @property
    def resolution(self) -> float:
        """First frequency at which the ring correlation falls below 0.5 [cycles per pixel]."""
        curve = self.frc
        below = np.flatnonzero(curve[1:] < 0.5)
        return (float(below[0]) + 1 if below.size else len(curve)) / min(self.truth.shape)


def score(recon: Complex, truth: Complex) -> Scored:
    """Align a reconstruction with the object and put them side by side.

    Ptychography leaves open: a complex factor, a phase ramp (with a probe that lies elsewhere on
    the detector) and a shift (with a probe that lies elsewhere in its window). They are removed.

    Parameters
    ----------
    recon, truth : ndarray of complex
        ``(h, w)`` the same part of the sample, to within a few pixels.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if recon.shape != truth.shape:
        raise ValueError(f"recon is {recon.shape}, truth {truth.shape}: they must be the same")
    inner = _inner(truth)
    ramp = _peak(truth) - _peak(recon)
    shift = _coarse_shift(_moved(recon, np.zeros(2), ramp), truth)
    start = np.concatenate([shift, ramp])
    simplex = np.concatenate([start[None], start + np.diag([0.5, 0.5, 0.3, 0.3])])

    def cost(p: NDArray[np.float64]) -> float:
        return _distance(_fitted(_inner(_moved(recon, p[:2], p[2:])), inner), inner)

    options = {"initial_simplex": simplex, "maxiter": 400, "xatol": 1e-3, "fatol": 1e-5}
    best = optimize.minimize(cost, start, method="Nelder-Mead", options=options).x
    return Scored(_fitted(_inner(_moved(recon, best[:2], best[2:])), inner), inner)


def ring_correlation(a: Complex, b: Complex) -> FloatArray:
    """Return ``(min(h, w) // 2,)`` Fourier ring correlation of two aligned images, real part.

    Both are tapered first, so that their borders do not correlate.
    """
    window = np.outer(*(np.hanning(size) for size in a.shape))
    fa, fb = (np.fft.fft2((x - x.mean()) * window) for x in (a, b))
    fy, fx = (np.fft.fftfreq(size) for size in a.shape)
    ring = np.rint(np.hypot(fy[:, None], fx) * min(a.shape)).astype(int)
    last = min(a.shape) // 2

    def over_rings(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(ring.ravel(), values.ravel())[:last], np.float64)

    power = over_rings(np.abs(fa) ** 2) * over_rings(np.abs(fb) ** 2)
    cross = over_rings((fa * fb.conj()).real)
    return (cross / np.sqrt(np.maximum(power, 1e-30))).astype(np.float32)


def _distance(recon: Complex, truth: Complex) -> float:
    return float(np.linalg.norm(recon - truth) / np.linalg.norm(truth - truth.mean()))


def _inner(image: Complex) -> Complex:
    return image[RIM:-RIM, RIM:-RIM]


def _fitted(recon: Complex, truth: Complex) -> Complex:
    """Multiply by the complex factor that comes nearest to the truth."""
    return recon * (np.vdot(recon, truth) / np.vdot(recon, recon))


def _moved(image: Complex, shift: NDArray[np.float64], ramp: NDArray[np.float64]) -> Complex:
    """Multiply by a ramp [turns over the image] and shift [px]; splines between the pixels."""
    y, x = (np.arange(size) / size for size in image.shape)
    turned = image * np.exp(2j * np.pi * (ramp[0] * y[:, None] + ramp[1] * x))
    real, imaginary = (
        ndimage.shift(part, shift, order=3, mode="nearest") for part in (turned.real, turned.imag)
    )
    return real + 1j * imaginary


def _peak(image: Complex) -> NDArray[np.float64]:
    """Where the light that is not scattered lies in the Fourier transform [turns]."""
    window = np.outer(*(np.hanning(size) for size in image.shape))
    power = np.abs(np.fft.fft2(image * window))
    place = np.array(np.unravel_index(np.argmax(power), image.shape))
    size = np.array(image.shape)
    return np.asarray(np.where(place > size // 2, place - size, place), np.float64)


def _coarse_shift(recon: Complex, truth: Complex) -> NDArray[np.float64]:
    """Shift by whole pixels, a quarter of the image at most."""
    fa, fb = (np.fft.fft2(x - x.mean()) for x in (recon, truth))
    match = np.abs(np.fft.ifft2(fb * fa.conj()))
    size = np.array(match.shape)
    away = [np.fft.fftfreq(n, 1 / n) for n in match.shape]
    far = (np.abs(away[0])[:, None] > size[0] / 4) | (np.abs(away[1]) > size[1] / 4)
    place = np.unravel_index(np.argmax(np.where(far, 0, match)), match.shape)
    return np.array([away[0][place[0]], away[1][place[1]]], np.float64)
