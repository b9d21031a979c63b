"""What the staged frames agree on: their registered mean and the teacher's ring on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .classes import polar_profile, shadowed_sectors
from .counts import PrepareOptions
from .frame import BoolArray, FloatArray
from .geometry import Geometry, find_beam
from .prepare import Prepared, prepare_counts
from .register import ShiftFinder, translate
from .som import Centroids


@dataclass(frozen=True, slots=True, eq=False)
class StagedFrame:
    """A frame kept for learning.

    Parameters
    ----------
    prepared : Prepared
        Of the one frame.
    shift : tuple of float
        Against the reference ``(dy, dx)`` [px].
    """

    prepared: Prepared
    shift: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Consensus:
    """The reference that frames are registered to.

    Parameters
    ----------
    relative : ndarray of float32
        ``(h, w)`` plateau-scaled registered mean of the staged frames.
    ring : ndarray of bool
        ``(h, w)`` the teacher's ring on it.
    geometry : Geometry
        Of the mean.
    stop_sectors : ndarray of bool
        ``(90,)`` sectors where the ring is shadowed in the mean.
    """

    relative: FloatArray
    ring: BoolArray
    geometry: Geometry
    stop_sectors: BoolArray

    @cached_property
    def finder(self) -> ShiftFinder:
        """Finds shifts against the mean."""
        return ShiftFinder(self.relative)

    def label_for(self, shift: tuple[float, float]) -> BoolArray:
        """Return the ring moved to a frame with this shift."""
        return translate(self.ring.astype(np.float32), shift) >= 0.5


def agree(
    staged: Sequence[StagedFrame], centroids: Centroids, options: PrepareOptions
) -> Consensus:
    """Average the staged frames, each scaled to its plateau and moved back by its shift.

    The mean is given the counts of all frames together, so that it is smoothed less than they are.
    Pixels unusable in some frames are averaged over the others.

    Parameters
    ----------
    staged : sequence of StagedFrame
        At least one; all of one size.
    centroids : Centroids
        The teacher.
    options : PrepareOptions

    Raises
    ------
    FrameError
        If the frames do not show the same beam: their mean has none.
    """
    total = np.zeros(staged[0].prepared.counts.shape[1:], np.float32)
    weight = np.zeros_like(total)
    for s in staged:
        back = (-s.shift[0], -s.shift[1])
        scaled = s.prepared.counts[0] / s.prepared.plateau[0]
        usable = translate((~s.prepared.bad[0]).astype(np.float32), back)
        total += usable * translate(scaled, back)
        weight += usable
    never = weight < 0.5
    mean = np.where(never, 0, total / np.maximum(weight, 0.5))
    counts = mean * sum(float(s.prepared.plateau[0]) for s in staged)
    spikes = np.zeros(1, np.intp)
    prepared = prepare_counts(counts[None].astype(np.float32), never[None], spikes, options)
    level = centroids.options.edge_level
    geometry = find_beam(prepared.relative[0], level)
    ring = centroids.ring(prepared, [geometry])[0]
    profile = polar_profile(ring, geometry)
    stop = shadowed_sectors(profile, prepared.relative[0], geometry)
    return Consensus(prepared.relative[0], ring, geometry, stop)
