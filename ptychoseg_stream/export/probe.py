"""A first guess of the probe, from what the pupil lets through."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ..science.products import RunProducts


def first_probe(products: RunProducts) -> NDArray[np.complex64]:
    """Return ``(H, W)`` complex64, the probe in the plane of the sample, in focus.

    Its far field is the root of the mean frame inside the pupil, background subtracted, with flat
    phase. Zero frequency is at ``(H // 2, W // 2)`` of the frame and the probe in the middle of the
    array; the transform is unitary (as `far_field` of cdtools), so that the sum of its squares is
    the number of photons of a frame inside the pupil. A beam off the middle of the frame is a phase
    ramp of the probe.

    Parameters
    ----------
    products : RunProducts
        A pupil without any pixel gives zeros.
    """
    background = np.where(np.isfinite(products.background), products.background, 0)
    light = np.where(products.pupil != 0, np.maximum(products.mean - background, 0), 0)
    wave = fft.ifft2(fft.ifftshift(np.sqrt(light)), norm="ortho")
    return np.asarray(fft.fftshift(wave), np.complex64)
