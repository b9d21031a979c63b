"""The cheap ways to the same masks: what the method has to be compared with."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from ..errors import FrameError
from ..science.classes import class_map, clean_ring
from ..science.counts import PrepareOptions
from ..science.frame import BoolArray, ClassCode, ClassMap
from ..science.geometry import find_beam
from ..science.prepare import Prepared, prepare
from ..science.prototypes import TeacherOptions
from ..science.som import Centroids

Stack: TypeAlias = Sequence[NDArray[Any]] | NDArray[Any]  # (n, h, w)


def half_maximum(image: NDArray[Any], options: PrepareOptions, level: float = 0.5) -> ClassMap:
    """Class map of the pixels above `level` of the bright-field plateau, cleaned, ``(h, w)``.

    Raises
    ------
    FrameError
        If the image has no beam.
    """
    return _classes(prepare(image, options), lambda p: p.relative[0] > level)


def mean_image(frames: Stack, indices: Sequence[int]) -> NDArray[np.float64]:
    """Plain mean of some frames, in detector units."""
    return np.mean([np.asarray(frames[i], np.float64) for i in indices], axis=0)


def usable_frames(frames: Stack, options: PrepareOptions) -> list[int]:
    """Return the indices of the frames that can be labelled.

    Raises
    ------
    FrameError
        If there is none; says what is wrong with the first.
    """
    indices: list[int] = []
    reasons: list[str] = []
    for i in range(len(frames)):
        try:
            prepare(frames[i], options)
            indices.append(i)
        except FrameError as error:
            reasons.append(f"frame {i}: {error}")
    if not indices:
        raise FrameError(f"none of the {len(frames)} frames can be labelled; {reasons[0]}")
    return indices


def baselines(
    frames: Stack, stages: Sequence[int], options: PrepareOptions
) -> dict[str, list[ClassMap]]:
    """Label all frames in each of the cheap ways.

    Parameters
    ----------
    frames : sequence of ndarray
    stages : sequence of int
        Frames that the mean is taken of: those that the student learns from. Frames that cannot be
        labelled are left out.
    options : PrepareOptions

    Returns
    -------
    dict
        Name of the baseline -> one class map per frame.
    """
    n = len(frames)
    usable = usable_frames(frames, options)
    staged = [i for i in stages if i in usable] or usable[:1]
    first = half_maximum(frames[staged[0]], options)
    mean = half_maximum(mean_image(frames, staged), options)
    seed = Centroids.fit(frames[staged[0]], TeacherOptions(features="seed"), options)
    return {
        f"constant mask of frame {staged[0]}": [first] * n,
        f"constant mask of the mean of {len(staged)} frames": [mean] * n,
        "half-maximum of each frame": [
            _or_invalid(x, lambda x: half_maximum(x, options)) for x in frames
        ],
        "threshold at half the brightest pixel": [
            _or_invalid(x, lambda x: _threshold(x, options)) for x in frames
        ],
        "Otsu of each frame": [_or_invalid(x, lambda x: _otsu(x, options)) for x in frames],
        "literal seed recipe": [_or_invalid(x, lambda x: seed.label(x, options)) for x in frames],
    }


def _or_invalid(image: NDArray[Any], label: Callable[[NDArray[Any]], ClassMap]) -> ClassMap:
    try:
        return label(image)
    except FrameError:
        return np.full(image.shape, ClassCode.INVALID, np.uint8)


def _otsu(image: NDArray[Any], options: PrepareOptions) -> ClassMap:
    return _classes(prepare(image, options), lambda p: p.counts[0] > threshold_otsu(p.counts[0]))


def _threshold(image: NDArray[Any], options: PrepareOptions) -> ClassMap:
    return _classes(prepare(image, options), lambda p: p.counts[0] > 0.5 * p.counts[0].max())


def _classes(prepared: Prepared, ring_of: Callable[[Prepared], BoolArray]) -> ClassMap:
    ring = clean_ring(ring_of(prepared))
    return class_map(ring, find_beam(prepared.relative[0]), prepared.bad[0])
