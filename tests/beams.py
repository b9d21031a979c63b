"""Beams drawn with a pair of compasses, options that learn in no time, frames with an identity."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychoseg_stream.science.frame import ClassCode, Frame
from ptychoseg_stream.science.geometry import Geometry
from ptychoseg_stream.science.learning import StudentOptions
from ptychoseg_stream.science.metrics import iou

QUICK = StudentOptions(base=4, first_steps=6, steps=3, batch=2, patch=32, rounds=1, round_steps=2)
"""A student that learns a stage in a tenth of a second, and is worth little."""


def radius(shape: tuple[int, int], centre: tuple[float, float]) -> NDArray[np.float64]:
    y, x = np.indices(shape)
    return np.hypot(y - centre[0], x - centre[1])


def degrees(shape: tuple[int, int], centre: tuple[float, float]) -> NDArray[np.float64]:
    """Angle around the centre, 0..360, 0 along +x, 90 along +y."""
    y, x = np.indices(shape)
    return np.degrees(np.arctan2(y - centre[0], x - centre[1])) % 360


def annulus(
    shape: tuple[int, int], centre: tuple[float, float], inner: float, outer: float
) -> NDArray[np.bool_]:
    r = radius(shape, centre)
    return (r >= inner) & (r < outer)


def beam_of(
    shape: tuple[int, int], centre: tuple[float, float], inner: float, outer: float
) -> tuple[NDArray[np.bool_], Geometry]:
    return annulus(shape, centre, inner, outer), Geometry(*centre, outer)


def frames_of(
    images: Iterable[NDArray[Any] | None], run: str = "run", shape: tuple[int, int] = (104, 104)
) -> list[Frame]:
    return [
        Frame(run, i, image, shape if image is None else image.shape, fault="file is gone")
        for i, image in enumerate(images)
    ]


def ring_iou(classes: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    return iou(classes == ClassCode.RING, truth == ClassCode.RING)
