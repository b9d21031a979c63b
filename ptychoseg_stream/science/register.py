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
    """Move an image ``(h, w)`` by ``(dy, dx)`` [px], borders repeated.

    Cubic convolution with a = -1/2 (Keys, IEEE Trans. ASSP 29, 1153 (1981)): unlike linear
    interpolation it hardly blurs an edge, but it may overshoot by a few per cent.
    """
    return _along(_along(image, shift[0], 0), shift[1], 1)


def _along(image: FloatArray, shift: float, axis: int) -> FloatArray:
    whole = int(np.floor(shift))
    part = shift - whole
    n = image.shape[axis]
    if part == 0:
        return np.take(image, np.arange(n) - whole, axis=axis, mode="clip")
    wide = np.take(image, np.arange(-2, n + 1) - whole, axis=axis, mode="clip")
    moved = np.zeros_like(image)
    for first, weight in zip((3, 2, 1, 0), _keys(part), strict=True):
        pixels = slice(first, first + n)
        moved += weight * (wide[pixels] if axis == 0 else wide[:, pixels])
    return moved


def _keys(part: float) -> NDArray[np.float32]:
    """Weights of the pixels at +1, 0, -1, -2 for a point `part` of a pixel before pixel 0."""
    far, near = np.array([1 + part, 2 - part]), np.array([part, 1 - part])
    outer = -0.5 * far**3 + 2.5 * far**2 - 4 * far + 2
    inner = 1.5 * near**3 - 2.5 * near**2 + 1
    return np.array([outer[0], inner[0], inner[1], outer[1]], np.float32)
