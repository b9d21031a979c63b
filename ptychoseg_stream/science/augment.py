"""Training patches: staged frames made fainter, noisier, turned and cut."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .counts import PrepareOptions
from .frame import BoolArray, FloatArray
from .geometry import Geometry
from .inputs import student_inputs
from .prepare import solve_plateau

THINNING = 0.6
"""Probability that a frame is thinned to a lower dose."""
HOT = 0.3
"""Probability that a frame gets hot pixels."""
ON_RING = 0.75
"""Probability that a patch is placed on a ring pixel."""
LEAST_PLATEAU = 2.0
"""No frame is thinned below this plateau [counts per pixel]."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A staged frame with its pseudo-label.

    Parameters
    ----------
    counts : ndarray of float32
        ``(h, w)`` despiked counts.
    plateau : float
        Of the frame [counts per pixel].
    ring : ndarray of bool
        ``(h, w)`` pseudo-label.
    geometry : Geometry
        Of the beam in this frame.
    options : PrepareOptions
        That the frame was prepared with.
    """

    counts: FloatArray
    plateau: float
    ring: BoolArray
    geometry: Geometry
    options: PrepareOptions


def batch_of(
    examples: Sequence[Example], size: int, patch: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw a training batch: inputs ``(n, 5, patch, patch)``, labels ``(n, patch, patch)``."""
    drawn = [_draw(examples[int(rng.integers(len(examples)))], patch, rng) for _ in range(size)]
    return np.stack([x for x, _ in drawn]), np.stack([y for _, y in drawn])


def _draw(example: Example, patch: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    counts = _with_hot_pixels(_thinned(example, rng), example, rng)
    smooth, plateau = solve_plateau(counts, example.options)
    if plateau <= 0:
        counts = example.counts
        smooth, plateau = solve_plateau(counts, example.options)
    jittered = plateau * 10 ** rng.uniform(-0.06, 0.06)
    level = np.array([jittered], np.float32)
    x = student_inputs(counts[None], smooth[None], level, [example.geometry])[0]
    rows, columns = _place(example.ring, patch, rng)
    x, y = x[:, rows, columns], example.ring[rows, columns].astype(np.float32)
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    x, y = np.rot90(x, turns, (1, 2)), np.rot90(y, turns)
    if flip:
        x, y = x[:, :, ::-1], y[:, ::-1]
    return np.ascontiguousarray(x), np.ascontiguousarray(y)


def _thinned(example: Example, rng: np.random.Generator) -> FloatArray:
    """Binomial thinning: what the detector would have counted at a lower dose."""
    least = min(1.0, LEAST_PLATEAU / example.plateau)
    if rng.random() >= THINNING or least >= 1:
        return example.counts
    kept = max(10 ** rng.uniform(-1.5, 0), least)
    whole = np.rint(np.maximum(example.counts, 0)).astype(np.int64)
    return rng.binomial(whole, kept).astype(np.float32)


def _with_hot_pixels(counts: FloatArray, example: Example, rng: np.random.Generator) -> FloatArray:
    if rng.random() >= HOT:
        return counts
    n = int(rng.integers(1, 6))
    at: NDArray[np.intp] = rng.integers(0, counts.size, n)
    spoiled = counts.copy()
    spoiled.ravel()[at] = example.plateau * rng.uniform(0.5, 5, n)
    return spoiled


def _place(ring: BoolArray, patch: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Choose where to cut: around a ring pixel most of the time."""
    spans = []
    pixels = np.flatnonzero(ring)
    on_ring = len(pixels) > 0 and rng.random() < ON_RING
    centre = np.unravel_index(int(rng.choice(pixels)), ring.shape) if on_ring else None
    side = min(patch, *ring.shape)  # square, or a quarter turn would change the shape
    for axis, n in enumerate(ring.shape):
        if centre is None:
            start = int(rng.integers(0, n - side + 1))
        else:
            start = int(np.clip(int(centre[axis]) - rng.integers(0, side), 0, n - side))
        spans.append(slice(start, start + side))
    return spans[0], spans[1]
