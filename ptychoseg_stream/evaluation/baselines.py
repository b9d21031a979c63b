"""The cheap ways to the same masks: what the method has to be compared with."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from ..science.classes import class_map
from ..science.counts import PrepareOptions
from ..science.frame import BoolArray, ClassCode, ClassMap
from ..science.prepare import prepare
from .rules import (
    Rule,
    View,
    above_brightest,
    above_plateau,
    clustered,
    fit_clusters,
    fit_mixture,
    largest_blob,
    multi_otsu,
    otsu,
    seed_recipe,
    tracked_mean,
    view_of,
    walked,
)

Stack: TypeAlias = Sequence[NDArray[Any]] | NDArray[Any]  # (n, h, w)


def half_maximum(image: NDArray[Any], options: PrepareOptions, level: float = 0.5) -> ClassMap:
    """Class map of the pixels above `level` of the bright-field plateau, cleaned, ``(h, w)``.

    Raises
    ------
    FrameError
        If the image has no beam.
    """
    view = view_of(prepare(image, options))
    return _classes(view, above_plateau(view, level))


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
    frames: Stack, stages: Sequence[int], options: PrepareOptions, quick: bool = False
) -> dict[str, list[ClassMap]]:
    """Label all frames in each of the cheap ways.

    Whatever is fitted is fitted on the first of the staged frames. A frame that a way cannot label
    gets a mask of `ClassCode.INVALID` from it.

    Parameters
    ----------
    frames : sequence of ndarray
    stages : sequence of int
        Frames that the mean is taken of: those that the student learns from. Frames that cannot be
        labelled are left out.
    options : PrepareOptions
    quick : bool
        Leave out the ways that take longest: clusterings and the random walker.

    Returns
    -------
    dict
        Name of the baseline -> one class map per frame.

    Raises
    ------
    FrameError
        If no frame can be labelled.
    """
    usable = usable_frames(frames, options)
    staged = [i for i in stages if i in usable] or usable[:1]
    views = [view_of(prepare(frames[i], options)) for i in staged]
    rules = {name: _made(make) for name, make in _rules(views, options, quick).items()}
    found: dict[str, list[ClassMap]] = {name: [] for name in rules}
    shape = views[0].counts.shape
    for i in range(len(frames)):
        view = view_of(prepare(frames[i], options)) if i in usable else None
        for name, rule in rules.items():
            found[name].append(_labelled(rule, view, shape))
    n, many = len(frames), len(staged)
    first = _labelled(above_plateau, views[0], shape)
    return {
        f"constant mask of frame {staged[0]}": [first] * n,
        f"constant mask of the mean of {many} frames": [_mean_mask(frames, staged, options)] * n,
        **found,
    }


def _rules(
    staged: Sequence[View], options: PrepareOptions, quick: bool
) -> dict[str, Callable[[], Rule]]:
    """How to make every way that looks at the frame, by name, in the order of the table."""
    fit_on = staged[0]
    fast: dict[str, Callable[[], Rule]] = {
        f"mean of {len(staged)} frames, moved with the beam": lambda: tracked_mean(staged, options),
        "half-maximum of each frame": lambda: above_plateau,
        "threshold at half the brightest pixel": lambda: above_brightest,
        "Otsu of each frame": lambda: otsu,
        "multi-Otsu (3 classes) of each frame": lambda: multi_otsu,
        "largest blob above 2 % of the peak": lambda: largest_blob,
        "literal seed recipe": lambda: seed_recipe(fit_on),
    }
    slow: dict[str, Callable[[], Rule]] = {
        "random walker": lambda: walked,
        "k-means, nine features": lambda: clustered(fit_clusters(fit_on)),
        "Gaussian mixture, nine features": lambda: clustered(fit_mixture(fit_on)),
    }
    return fast if quick else fast | slow


def _made(make: Callable[[], Rule]) -> Rule | None:
    try:
        return make()
    except (FrameError, ValueError):
        return None


def _labelled(rule: Rule | None, view: View | None, shape: tuple[int, ...]) -> ClassMap:
    """Class map of a frame, `ClassCode.INVALID` where the rule has no answer."""
    if rule is not None and view is not None:
        with suppress(FrameError, ValueError):
            return _classes(view, rule(view))
    return np.full(shape, ClassCode.INVALID, np.uint8)


def _mean_mask(frames: Stack, staged: Sequence[int], options: PrepareOptions) -> ClassMap:
    with suppress(FrameError):
        return half_maximum(mean_image(frames, staged), options)
    return np.full(frames[staged[0]].shape, ClassCode.INVALID, np.uint8)


def _classes(view: View, ring: BoolArray) -> ClassMap:
    """Class map in which the ring is what the rule says, be it none in the eyes of the verdict."""
    unknown = view.prepared.unknown[0]
    classes = class_map(ring, view.geometry, unknown)
    classes[ring & ~unknown] = ClassCode.RING
    return classes
