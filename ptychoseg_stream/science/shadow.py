"""The shadow of a beam-stop's arm or wire, in the mean of many frames."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .frame import BoolArray, FloatArray
from .geometry import Geometry, find_beam
from .persistent import SIGNIFICANT, Accumulated, enough

REACHES = (3, 5, 7, 10)
"""How far from a pixel in a shadow the light on both its sides is looked for [px]."""
SMALLEST = 16
"""Pixels."""
FEWEST = 18
"""Frames: the mean of fewer shows shadows that the sample throws."""
SQUARE = np.ones((3, 3), bool)


def find_shadow(seen: Accumulated, bad: BoolArray) -> BoolArray:
    """Find the shadow of a beam-stop's arm or wire, ``(h, w)``.

    A pixel is in it whose 3x3 mean is below 0.4 of the light on both its sides (in some direction)
    and of the median of its circle around the beam, significantly. Both are needed: the hole of an
    annulus is as dark as the rest of its circle, the edge of a moving beam has light on one side
    only. Connected parts of at least 16 pixels that are long, not round, and reach the beam are a
    shadow. It is widened by 1 px, for the point spread lights its edge, and prolonged outward to
    the border of the frame as far as no light contradicts: something holds a stop.

    Parameters
    ----------
    seen : Accumulated
    bad : ndarray of bool
        ``(h, w)`` pixels to leave out.
    """
    nothing = np.zeros(bad.shape, bool)
    frames = np.where(bad, np.float32(0), seen.frames)
    if float(frames.max()) < FEWEST or not enough(seen, bad).any():
        return nothing
    exposure = _box(frames)
    rate = _box(frames * np.maximum(seen.mean, 0)) / np.maximum(exposure, 1e-6)
    beam = find_beam(rate / max(float(np.quantile(rate, 0.99)), 1e-6))
    expected = np.minimum(_sides(rate), _circle(rate, exposure > 0, beam))
    missing = (expected - rate) * exposure
    variance = _box(frames * seen.variance)
    error = np.sqrt(np.maximum(variance, _sides(variance)) + 1)
    sure = (rate < 0.4 * expected) & (missing > SIGNIFICANT * error) & (exposure > 0)
    may = sure | ((rate < 0.6 * expected) & (missing > 2 * error))
    lit = (rate > 0.8 * expected) & (rate * exposure > 10)
    shadow = nothing
    parts, _ = ndimage.label(may, SQUARE)
    for part, place in enumerate(ndimage.find_objects(parts), 1):
        if int((sure[place] & (parts[place] == part)).sum()) < SMALLEST:
            continue
        inside = parts == part
        if _distance(inside, beam) > 1.5 * beam.radius:
            continue  # what holds a stop reaches the beam
        bar = _bar(inside, beam)
        if bar is not None:
            shadow = shadow | ndimage.binary_dilation(inside, SQUARE)
            shadow |= ndimage.binary_propagation(inside, mask=inside | (bar & ~lit))
    return shadow


def _distance(part: BoolArray, beam: Geometry) -> float:
    """Least distance of a part from the centre of the beam [px]."""
    y, x = np.nonzero(part)
    return float(np.hypot(y - beam.y, x - beam.x).min())


def _bar(part: BoolArray, beam: Geometry) -> BoolArray | None:
    """Return the straight bar ``(h, w)`` that goes on where a part ends, away from the beam.

    None if the part is not at least twice as long as wide.
    """
    y, x = np.nonzero(part)
    points = np.stack([y, x])
    middle = points.mean(axis=1)
    variance, axes = np.linalg.eigh(np.cov(points))
    if variance[1] < 4 * max(variance[0], 1 / 12):
        return None
    along, across = axes[:, 1], axes[:, 0]
    half = np.sqrt(3 * variance[0]) + 0.5  # of a bar of this variance across
    grid = np.indices(part.shape) - middle[:, None, None]
    t, u = np.tensordot(along, grid, 1), np.tensordot(across, grid, 1)
    centre = float(along @ (np.array([beam.y, beam.x]) - middle))
    ends = t[y, x].min(), t[y, x].max()
    outward = np.zeros(part.shape, bool)
    if ends[1] > centre + half:
        outward |= t > ends[1] - half
    if ends[0] < centre - half:
        outward |= t < ends[0] + half
    return outward & (np.abs(u) <= half)


def _box(image: FloatArray) -> FloatArray:
    """Sum over 3x3 pixels."""
    return ndimage.uniform_filter(image, 3, output=np.float32) * 9


def _sides(rate: FloatArray) -> FloatArray:
    """Most light that there is on both sides, in some direction and at some distance."""
    h, w = rate.shape
    most = np.zeros_like(rate)
    for reach in REACHES:
        padded = np.pad(rate, reach, mode="constant")
        oblique = max(1, round(0.7 * reach))
        for dy, dx in ((0, reach), (reach, 0), (oblique, oblique), (oblique, -oblique)):
            one = padded[reach + dy :, reach + dx :][:h, :w]
            other = padded[reach - dy :, reach - dx :][:h, :w]
            np.maximum(most, np.minimum(one, other), out=most)
    return most


def _circle(rate: FloatArray, usable: BoolArray, beam: Geometry) -> FloatArray:
    """Median of the circle around the beam that each pixel lies on, or of a darker one next to it.

    Next to it, in a large beam: its centre is known to a twentieth of its radius only.
    """
    y, x = np.indices(rate.shape)
    index: NDArray[np.intp] = np.rint(np.hypot(y - beam.y, x - beam.x)).astype(np.intp)
    order = np.lexsort((rate[usable], index[usable]))
    count = np.bincount(index[usable], minlength=int(index.max()) + 1)
    middle = np.cumsum(count) - count + count // 2
    values = np.append(rate[usable][order], np.float32(0))
    median = np.where(count > 0, values[np.minimum(middle, len(values) - 1)], np.float32(0))
    size = 1 + 2 * int(beam.radius / 20)
    return ndimage.minimum_filter1d(median, size, mode="nearest")[index]
