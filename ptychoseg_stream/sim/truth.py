"""True class maps of simulated frames: of the beam, never of the frame."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from ..science.frame import BoolArray, ClassCode, ClassMap

EDGE_LEVEL = 0.5  # of the plateau; where a soft edge begins is a convention


def plateau(empty: NDArray[np.float32], edge_level: float = EDGE_LEVEL) -> float:
    """Return the level of the ring: the upper quartile of the pixels that belong to it.

    A ring of 5 px with soft edges has no flat top whose median could be taken. On the pupil of
    CXIDB 65 the upper quartile is the level that the reference labels of that set are made with.

    Parameters
    ----------
    empty : ndarray of float32
        ``(H, W)`` empty-beam intensity.
    edge_level : float
        Pixels of at least this part of the plateau belong to the ring.
    """
    level = float(empty.max())
    for _ in range(10):  # each pass moves it less; two are enough for a ring
        ring = empty[empty >= edge_level * level]
        previous, level = level, float(np.quantile(ring, 0.75))
        if level == previous:
            break
    return level


def class_map(
    empty: NDArray[np.float32], beam_stop: BoolArray | None = None, edge_level: float = EDGE_LEVEL
) -> ClassMap:
    """Classify the pixels of one frame from the beam without a sample.

    Ring is where the empty beam reaches `edge_level` of its plateau, core the hole that the ring
    encloses; the beam stop overrides both.

    Parameters
    ----------
    empty : ndarray of float32
        ``(H, W)`` empty-beam intensity without beam stop, in any unit.
    beam_stop : ndarray of bool, optional
        ``(H, W)`` where the beam stop lies.
    edge_level : float
        Where the ring begins.

    Returns
    -------
    ndarray of uint8
        ``(H, W)`` of `ClassCode`.
    """
    ring = empty >= edge_level * plateau(empty, edge_level)
    classes = np.full(ring.shape, ClassCode.BACKGROUND, np.uint8)
    classes[np.asarray(binary_fill_holes(ring), bool)] = ClassCode.CORE
    classes[ring] = ClassCode.RING
    if beam_stop is not None:
        classes[beam_stop] = ClassCode.BEAM_STOP
    return classes


def stop_arm(
    shape: tuple[int, int], center: tuple[float, float], width: float, angle: float
) -> BoolArray:
    """Return ``(H, W)`` where a straight arm lies that reaches from the frame's edge to `center`.

    Parameters
    ----------
    shape : tuple of int
        ``(H, W)``.
    center : tuple of float
        ``(row, column)`` where the arm ends [px].
    width : float
        Of the arm [px]; 0 gives none.
    angle : float
        Where the arm comes from: 0 right, 90 top [degrees].
    """
    dy = np.arange(shape[0])[:, None] - center[0]
    dx = np.arange(shape[1])[None, :] - center[1]
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    along, across = dx * cos - dy * sin, dx * sin + dy * cos
    return (along >= 0) & (np.abs(across) < width / 2)
