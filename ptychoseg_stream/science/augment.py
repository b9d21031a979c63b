"""Training patches: staged frames made fainter, noisier, turned and cut."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .classes import clean_ring
from .counts import PrepareOptions
from .frame import BoolArray, FloatArray
from .geometry import Geometry
from .inputs import student_inputs
from .prepare import solve_plateau
from .register import translate

THINNING = 0.6
"""Probability that a frame is thinned to a lower dose."""
HOT = 0.3
"""Probability that a frame gets hot pixels."""
ON_RING = 0.75
"""Probability that a patch is placed on a ring pixel."""
MOVED = 0.5
"""Probability that a frame is moved by part of a pixel."""
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
    soft : ndarray of float32 or None
        ``(h, w)`` label in 0..1 that is learned instead of `ring`.
    factor : float
        By which plateaus found in this frame are to be multiplied (`level.interior_factor`).
    mean : ndarray of float32 or None
        ``(h, w)`` mean of the frames in plateaus, at the place of this frame: where it crosses
        `level` lies the label of a frame moved by part of a pixel. None: it is not moved.
    level : float
    """

    counts: FloatArray
    plateau: float
    ring: BoolArray
    geometry: Geometry
    options: PrepareOptions
    soft: FloatArray | None = None
    factor: float = 1.0
    mean: FloatArray | None = None
    level: float = 0.5

    @property
    def label(self) -> FloatArray:
        """``(h, w)`` float32: what is learned."""
        return self.ring.astype(np.float32) if self.soft is None else self.soft


def whole_inputs(examples: Sequence[Example]) -> FloatArray:
    """Return the student's input ``(n, 5, h, w)`` of whole staged frames as they were taken."""
    smooth = [solve_plateau(e.counts, e.options)[0] for e in examples]
    plateau = np.array([e.plateau for e in examples], np.float32)
    counts = np.stack([e.counts for e in examples])
    return student_inputs(counts, np.stack(smooth), plateau, [e.geometry for e in examples])


def batch_of(
    examples: Sequence[Example], size: int, patch: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw a training batch: inputs ``(n, 5, patch, patch)``, labels ``(n, patch, patch)``."""
    drawn = [_draw(examples[int(rng.integers(len(examples)))], patch, rng) for _ in range(size)]
    return np.stack([x for x, _ in drawn]), np.stack([y for _, y in drawn])


def _draw(example: Example, patch: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    example = _moved(example, rng)
    counts = _with_hot_pixels(_thinned(example, rng), example, rng)
    smooth, plateau = solve_plateau(counts, example.options)
    if plateau <= 0:
        counts = example.counts
        smooth, plateau = solve_plateau(counts, example.options)
    jittered = example.factor * plateau * 10 ** rng.uniform(-0.06, 0.06)
    level = np.array([jittered], np.float32)
    x = student_inputs(counts[None], smooth[None], level, [example.geometry])[0]
    rows, columns = _place(example.ring, patch, rng)
    x, y = x[:, rows, columns], example.label[rows, columns]
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    x, y = np.rot90(x, turns, (1, 2)), np.rot90(y, turns)
    if flip:
        x, y = x[:, :, ::-1], y[:, ::-1]
    return np.ascontiguousarray(x), np.ascontiguousarray(y)


def _moved(example: Example, rng: np.random.Generator) -> Example:
    """Move a frame by part of a pixel: beams drift, and the pixel pattern of the ring with them."""
    if example.mean is None or rng.random() >= MOVED:
        return example
    shift = float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.5, 0.5))
    if example.soft is None:
        ring = clean_ring(translate(example.mean, shift) > example.level)
        soft = None
    else:
        soft = np.clip(translate(example.soft, shift), 0, 1)
        ring = soft > 0.5
    return replace(
        example,
        counts=np.maximum(translate(example.counts, shift), 0),
        ring=ring,
        soft=soft,
        geometry=example.geometry.moved(shift),
    )


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
