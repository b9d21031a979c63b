"""What the frames of a run say together, for whoever reconstructs: arrays in, arrays out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .frame import BitMap, FloatArray

SUMS = ("bright_field", "dark_field", "dpc_y", "dpc_x")
"""What is summed of each frame, over class and validity: the columns of `RunProducts.sums`."""


@dataclass(frozen=True, slots=True, eq=False)
class RunProducts:
    """What the frames so far say together.

    Parameters
    ----------
    frames : int
        Frames of the run so far, those without a mask included.
    used : int
        Those of them that went into the products: with a mask and a beam.
    pixel_mask : ndarray of uint16
        ``(H, W)`` of `ptychoseg_stream.science.frame.ValidBit`: pixels that must not be used in any
        frame, and why. What holds for single frames (cosmic rays, saturation) is not in it.
    background : ndarray of float32
        ``(H, W)`` counts per frame that the sample has no part in: mean over the samples that were
        labelled empty. Above 0 everywhere; 1e-6 where it is not known.
    background_variance : ndarray of float32
        ``(H, W)`` variance of one such sample [counts^2]; NaN where it is not known.
    background_samples : ndarray of int32
        ``(H, W)`` number of samples.
    pupil : ndarray of uint8
        ``(H, W)`` 1 where most frames are ring: where the beam is without a sample.
    mean : ndarray of float32
        ``(H, W)`` mean of the frames, invalid pixels left out [counts]; 0 where none was valid.
    centre : tuple of float
        Of the beam, ``(y, x)``: median over the frames [px]; NaN without any.
    inner, outer : float
        Radii of the ring, medians [px]; `inner` is 0 for a disc; NaN without any.
    sums : ndarray of float64
        ``(frames, 4)``, columns `SUMS`; NaN for a frame without a mask. Bright field: counts of the
        valid pixels of the ring and its flanks (2 px), summed. Dark field: those of the other valid
        pixels, beam-stop left out. DPC: centre of mass of the bright field against `centre` [px].
    """

    frames: int
    used: int
    pixel_mask: BitMap
    background: FloatArray
    background_variance: FloatArray
    background_samples: NDArray[np.int32]
    pupil: NDArray[np.uint8]
    mean: FloatArray
    centre: tuple[float, float]
    inner: float
    outer: float
    sums: NDArray[np.float64]
