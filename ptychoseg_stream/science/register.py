"""How far a frame has moved against the staged mean, to a twentieth of a pixel.

Cross-correlation by Fourier transform, then a matrix-multiplied transform around its maximum
(Guizar-Sicairos, Thurman and Fienup, Optics Letters 33, 156 (2008)), with the transform of the
reference kept: `skimage.registration.phase_cross_correlation` gives the same shifts and transforms
the reference anew for every frame.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from .frame import FloatArray
from .prepare import Prepared


def log_image(relative: FloatArray) -> FloatArray:
    """``ln(1 + gauss(S/p, 0.7) / 0.02)``: what is correlated, ``(..., h, w)``."""
    sigma = (0.0,) * (relative.ndim - 2) + (0.7, 0.7)
    smooth = ndimage.gaussian_filter(relative, sigma, output=np.float32)
    return np.log1p(np.maximum(smooth, 0) * np.float32(50))


class ShiftFinder:
    """Finds the shift of frames against one reference.

    Parameters
    ----------
    reference : ndarray of float32
        ``(h, w)`` plateau-scaled image S/p of the staged mean.
    upsample : int
        Parts of a pixel resolved.
    """

    def __init__(self, reference: FloatArray, upsample: int = 20) -> None:
        self._shape = reference.shape
        self._reference = np.conj(fft.fft2(log_image(reference)))
        self._upsample = upsample

    def find(self, prepared: Prepared) -> NDArray[np.float64]:
        """Return ``(n, 2)`` shifts ``(dy, dx)`` [px]: frame = reference moved by the shift."""
        shifts = [self._find(log_image(frame)) for frame in prepared.relative]
        return np.array(shifts).reshape(-1, 2)

    def _find(self, image: FloatArray) -> tuple[float, float]:
        product = fft.fft2(image) * self._reference  # (h, w) complex64
        correlation = fft.ifft2(product).real
        peak = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
        whole = [
            int(p) - n if p > n // 2 else int(p) for p, n in zip(peak, self._shape, strict=True)
        ]
        half = int(np.ceil(self._upsample * 1.5 / 2))
        steps = np.arange(-half, half + 1) / self._upsample
        rows = _kernel(whole[0] + steps, self._shape[0])
        columns = _kernel(whole[1] + steps, self._shape[1])
        fine = (rows @ product @ columns.T).real
        at = np.unravel_index(int(np.argmax(fine)), fine.shape)
        return whole[0] + float(steps[at[0]]), whole[1] + float(steps[at[1]])


def _kernel(positions: NDArray[np.float64], n: int) -> NDArray[np.complex64]:
    frequencies = np.fft.fftfreq(n)
    return np.exp(2j * np.pi * positions[:, None] * frequencies).astype(np.complex64)


def translate(image: FloatArray, shift: tuple[float, float]) -> FloatArray:
    """Move an image ``(h, w)`` by ``(dy, dx)`` [px], bilinear, borders repeated."""
    return _along(_along(image, shift[0], 0), shift[1], 1)


def _along(image: FloatArray, shift: float, axis: int) -> FloatArray:
    whole = int(np.floor(shift))
    part = np.float32(shift - whole)
    n = image.shape[axis]
    at = np.arange(n) - whole
    near = np.take(image, np.clip(at, 0, n - 1), axis=axis)
    if part == 0:
        return near
    far = np.take(image, np.clip(at - 1, 0, n - 1), axis=axis)
    return (1 - part) * near + part * far
