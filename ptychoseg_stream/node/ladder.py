"""What the frames of a run have taught: their mean, the reference, the stages of learning."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import FrameError
from ..science.augment import Example
from ..science.consensus import Consensus, RunningMean
from ..science.level import find_level
from ..science.prepare import Prepared
from ..science.promotion import CheckSet
from ..science.som import Centroids
from ..science.track import Shift
from .options import NodeOptions
from .trainer import Stage

KEPT = 4
"""Frames that are not learned from, kept to examine a student on."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A frame that is remembered.

    Parameters
    ----------
    index : int
    prepared : Prepared
        Of the one frame, its plateau as prepared.
    shift : tuple of float
        Against the reference ``(dy, dx)`` [px].
    """

    index: int
    prepared: Prepared
    shift: Shift


class Ladder:
    """Decides which frames are learned from, and what is learned from them.

    Depends on the frames only, never on a student or on how long training takes: a replay stages
    the same frames.

    Parameters
    ----------
    options : NodeOptions
    offset : int
        Frame from which the stages are counted.
    """

    _options: NodeOptions
    _offset: int
    _first: int
    _staged: list[Kept]
    _others: deque[Kept]
    mean: RunningMean | None
    consensus: Consensus | None

    def __init__(self, options: NodeOptions, offset: int = 0) -> None:
        self._options = options
        self._offset = offset
        self._first = -1
        self._staged = []
        self._others = deque(maxlen=KEPT)
        self.mean = None
        self.consensus = None

    @property
    def has_ring(self) -> bool:
        """Whether the reference shows a ring; without one it is no reference."""
        return self.consensus is not None and self.consensus.profile.verdict != "none"

    @property
    def finished(self) -> bool:
        """Whether all stages were submitted: the reference stays as it is from now on."""
        return len(self._staged) >= len(self._options.stages)

    def wants(self, index: int) -> bool:
        """Whether a stage is to be learned at this frame."""
        return not self.finished and index >= (
            self._offset + self._options.stages[len(self._staged)]
        )

    def begin(self, frame: Kept, centroids: Centroids) -> Consensus:
        """Make a frame the first one, and its own reference; return that.

        Raises
        ------
        FrameError
            If the teacher finds no beam in it; nothing has changed then.
        """
        h, w = frame.prepared.counts.shape[1:]
        mean = RunningMean.empty((h, w)).plus(frame.prepared, frame.shift)
        self.consensus = mean.consensus(centroids, self._options.prepare)
        self.mean = mean
        self._first = frame.index
        return self.consensus

    def restart(self, frame: Kept, centroids: Centroids) -> None:
        """Begin anew at a frame: the beam is another one.

        Raises
        ------
        FrameError
            As `begin`.
        """
        self.begin(frame, centroids)
        self._staged.clear()
        self._others.clear()
        if self._options.stages:
            self._offset = frame.index - self._options.stages[0]

    def add(self, frame: Kept) -> None:
        """Take one more frame into the mean, unless it began it."""
        if self.mean is not None and frame.index != self._first:
            self.mean = self.mean.plus(frame.prepared, frame.shift)
            self._others.append(frame)

    def stage(self, frame: Kept, centroids: Centroids) -> Stage | None:
        """Stage a frame: renew the reference with it, return what is to be learned.

        Returns
        -------
        Stage or None
            None if the mean shows no ring that could be learned: the next frame takes its place.
        """
        if self.mean is None:
            return None
        begun = frame.index == self._first  # then it is in the mean already
        mean = self.mean if begun else self.mean.plus(frame.prepared, frame.shift)
        try:
            consensus = mean.consensus(centroids, self._options.prepare)
        except FrameError:  # the frames together show no beam
            return None
        if consensus.profile.verdict == "none":
            return None
        self.mean, self.consensus = mean, consensus
        self._staged.append(frame)
        return Stage(
            [self._example(kept, centroids) for kept in self._staged],
            self._check([*self._staged, *self._others], centroids),
            tuple(kept.index for kept in self._staged),
            centroids.hash,
        )

    def _example(self, kept: Kept, centroids: Centroids) -> Example:
        reference = self._reference
        return Example(
            kept.prepared.counts[0],
            float(kept.prepared.plateau[0]) * reference.factor,
            reference.label_for(kept.shift, centroids),
            reference.geometry.moved(kept.shift),
            self._options.prepare,
            factor=reference.factor,
            mean=reference.at(kept.shift),
            level=reference.level,
        )

    def _check(self, frames: Sequence[Kept], centroids: Centroids) -> CheckSet:
        return CheckSet.of([self._example(kept, centroids) for kept in frames])

    @property
    def _reference(self) -> Consensus:
        if self.consensus is None:
            raise LookupError("no frame has begun the run yet")
        return self.consensus


def fit_teacher(prepared: Prepared, options: NodeOptions) -> Centroids:
    """Fit centroids on one frame."""
    geometry, frame = find_level(prepared, options.teacher.edge_level)
    return Centroids.fit_prepared(frame, geometry, options.teacher)
