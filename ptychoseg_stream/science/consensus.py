"""What the frames of a run agree on: their registered mean, and the teacher's ring on it."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import ndimage

from .classes import clean_ring, shadowed_sectors
from .counts import PrepareOptions
from .frame import BoolArray, FloatArray, ValidBit
from .geometry import Geometry, find_beam
from .level import interior_factor, levelled
from .prepare import Prepared, prepare_counts, smoothing
from .register import ShiftFinder, translate
from .som import Centroids
from .track import Shift
from .verdict import PolarProfile, judge

LEAST_WEIGHT = 0.02
"""Of the newest frame in a long run: the mean remembers about fifty frames."""
ENOUGH = 25.0
"""Counts per pixel from which the sample, not the counting, is what makes frames differ."""


@dataclass(frozen=True, eq=False)
class RunningMean:
    """Weighted mean of frames, each scaled to its plateau and moved back by its shift; immutable.

    A frame of plateau p weighs p/(p + 25): frames of few counts are noisy, those of many alike.
    Pixels unusable in some frames are averaged over the others.

    Parameters
    ----------
    total, weight : ndarray of float32
        ``(h, w)`` weighted sum of S/p and sum of weights.
    counts : float
        Counts per pixel of the plateau, over all frames in the mean.
    n : int
        Frames taken.
    """

    total: FloatArray
    weight: FloatArray
    counts: float = 0.0
    n: int = 0

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> "RunningMean":
        """Return the mean of no frame."""
        zero = np.zeros(shape, np.float32)
        return cls(zero, zero)

    def plus(self, prepared: Prepared, shift: Shift) -> "RunningMean":
        """Return the mean with one more frame (a `Prepared` of one) at its shift."""
        back = (-shift[0], -shift[1])
        plateau = float(prepared.plateau[0])
        keep = 1.0 if self.n < 1 / LEAST_WEIGHT else 1 - LEAST_WEIGHT
        usable = np.clip(translate((~prepared.bad[0]).astype(np.float32), back), 0, 1)
        weight = np.float32(plateau / (plateau + ENOUGH)) * usable
        scaled = translate(prepared.counts[0] / prepared.plateau[0], back)
        return RunningMean(
            np.float32(keep) * self.total + weight * scaled,
            np.float32(keep) * self.weight + weight,
            keep * self.counts + plateau,
            self.n + 1,
        )

    def image(self, options: PrepareOptions) -> FloatArray:
        """Return the mean ``(h, w)`` in plateaus, smoothed as its counts call for."""
        mean = self._mean()
        sigma = smoothing(self.counts, options)
        return ndimage.gaussian_filter(mean, sigma, output=np.float32) if sigma > 0 else mean

    def consensus(self, centroids: Centroids, options: PrepareOptions) -> "Consensus":
        """Have the teacher read the mean.

        Raises
        ------
        FrameError
            If the frames do not show the same beam: their mean has none.
        """
        never = self.weight < 0.25 * self.weight.max()
        counts = np.where(never, 0, self._mean() * np.float32(self.counts))
        spikes = np.zeros(1, np.intp)
        bits = np.where(never, np.uint16(ValidBit.GAP), np.uint16(0))[None]
        prepared = prepare_counts(counts[None].astype(np.float32), bits, spikes, options)
        level = centroids.options.edge_level
        geometry = find_beam(prepared.relative[0], level)
        factor = interior_factor(prepared.relative[0], geometry, level)
        prepared = levelled(prepared, factor)
        ring = centroids.ring(prepared, [geometry])[0]
        profile = judge(ring, geometry, never)
        stop = shadowed_sectors(profile, prepared.relative[0], geometry)
        unit = float(prepared.plateau[0]) / self.counts
        return Consensus(prepared, ring, geometry, profile, stop, factor, level, unit)

    def _mean(self) -> FloatArray:
        return self.total / np.maximum(self.weight, np.float32(1e-6))


@dataclass(frozen=True, eq=False)
class Consensus:
    """The reference that frames are registered to, and what the student learns from.

    Parameters
    ----------
    prepared : Prepared
        The registered mean, a `Prepared` of one.
    ring : ndarray of bool
        ``(h, w)`` the teacher's ring on it.
    geometry : Geometry
        Of the mean.
    profile : PolarProfile
        Of the ring; its verdict is what the run shows.
    stop_sectors : ndarray of bool
        ``(90,)`` sectors where the ring is shadowed in the mean.
    factor : float
        By which the plateau of each frame is to be multiplied (`level.interior_factor`).
    level : float
        Fraction of the plateau that bounds the ring.
    unit : float
        Plateau of the mean, in the unit of `RunningMean.image`.
    """

    prepared: Prepared
    ring: BoolArray
    geometry: Geometry
    profile: PolarProfile
    stop_sectors: BoolArray
    factor: float
    level: float
    unit: float

    @property
    def relative(self) -> FloatArray:
        """The mean in plateaus, ``(h, w)``."""
        return self.prepared.relative[0]

    @cached_property
    def finder(self) -> ShiftFinder:
        """Finds shifts against the mean."""
        return ShiftFinder(self.relative)

    def at(self, shift: Shift) -> FloatArray:
        """Return the mean in plateaus, moved to a frame with this shift, ``(h, w)``.

        Cut at `level` it differs by 1 or 2 % from what the teacher says there; moving the binary
        ring by half a pixel would differ by 5 to 14 %.
        """
        return translate(self.relative, shift)

    def ring_at(self, shift: Shift) -> BoolArray:
        """Return where the moved mean exceeds `level`, cleaned, ``(h, w)``."""
        return clean_ring(self.at(shift) > self.level)

    def label_for(self, shift: Shift, centroids: Centroids) -> BoolArray:
        """Return the label of a frame with this shift, ``(h, w)``.

        The teacher's ring on the moved mean; within a pixel of its border the mean itself decides,
        by `level`. Many frames were averaged there, and the prototypes, learned from one, are less
        exact: they made the ring of a strong sample 5 % too large.
        """
        moved = replace(
            self.prepared,
            counts=translate(self.prepared.counts[0], shift)[None],
            smooth=translate(self.prepared.smooth[0], shift)[None],
        )
        ring = centroids.ring(moved, [self.geometry.moved(shift)])[0]
        square = np.ones((3, 3), bool)
        inside = ndimage.binary_erosion(ring, square, border_value=1)
        near = ndimage.binary_dilation(ring, square) & ~inside
        return clean_ring(np.where(near, moved.relative[0] > self.level, ring))
