"""How a run looks at a frame: through its window, where the beam is, with the teacher's eyes."""

from dataclasses import dataclass

import numpy as np

from ..errors import FrameError
from ..science.consensus import Consensus
from ..science.features import extract
from ..science.frame import BoolArray, FloatArray
from ..science.geometry import Geometry
from ..science.level import find_level, levelled
from ..science.metrics import iou
from ..science.prepare import Prepared, prepare_counts
from ..science.register import translate
from ..science.som import Centroids, Labels
from ..science.track import BeamTracker, Shift
from ..science.validity import COSMIC, GAP, SATURATED, Inspected
from ..science.verdict import PolarProfile, judge
from ..science.window import Window
from .options import NodeOptions

SEEN = 0.5
"""IoU with the ring of the reference from which on that ring is seen at some place."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """The teacher's view of a frame against the present reference.

    Parameters
    ----------
    scaled : Prepared
        Of the one frame, its plateau that of the ring's interior.
    shift : tuple of float
        Where the beam is taken to be ``(dy, dx)`` [px].
    geometry : Geometry
        Of the beam there.
    labels : Labels
        By the teacher.
    profile : PolarProfile
        Of the teacher's ring.
    expected : ndarray of bool
        ``(h, w)`` ring of the reference there.
    """

    scaled: Prepared
    shift: Shift
    geometry: Geometry
    labels: Labels
    profile: PolarProfile
    expected: BoolArray

    @property
    def agreement(self) -> float:
        """IoU of the teacher's ring with that of the reference."""
        return iou(self.labels.rings[0], self.expected)


def through(window: Window, pixels: Inspected, options: NodeOptions) -> Prepared:
    """Prepare the part of a frame that a window shows.

    Raises
    ------
    FrameError
        If it shows no beam.
    """
    counts, unknown = window.take(pixels.counts, pixels.unknown)
    bits = pixels.bits if window.is_whole else np.where(unknown, GAP, np.uint16(0))
    spikes = np.array([pixels.spikes], np.intp)
    return prepare_counts(counts[None], bits[None], spikes, options.prepare, unknown[None])


def choose_window(pixels: Inspected, options: NodeOptions) -> Window:
    """Return the window that shows the beam of a frame."""
    level = options.teacher.edge_level
    return Window.choose(pixels.counts, pixels.unknown, options.prepare, level)


def look_at(prepared: Prepared, shift: Shift, reference: Consensus, centroids: Centroids) -> Look:
    """Look at a frame whose beam is moved by `shift` against the reference."""
    scaled = levelled(prepared, reference.factor)
    geometry = reference.geometry.moved(shift)
    labels = centroids.label_features(extract(scaled, [geometry], centroids.options.features))
    profile = judge(labels.rings[0], geometry, scaled.unknown[0])
    return Look(scaled, shift, geometry, labels, profile, reference.ring_at(shift))


def find_and_look(
    prepared: Prepared, tracker: BeamTracker, reference: Consensus, centroids: Centroids
) -> tuple[Shift, Look]:
    """Return the measured shift, and the look at the frame where the beam is.

    A measurement far off is an error, or the beam has jumped: it is where its ring is seen.
    """
    dy, dx = reference.finder.find(levelled(prepared, reference.factor))[0]
    measured = float(dy), float(dx)
    look = look_at(prepared, tracker.expected(measured), reference, centroids)
    if tracker.is_far(measured):
        there = look_at(prepared, measured, reference, centroids)
        if there.agreement > max(look.agreement, SEEN):
            return measured, there
    return measured, look


def beam_outside(
    window: Window, pixels: Inspected, options: NodeOptions, centroids: Centroids
) -> Geometry | None:
    """Find a ring or disc in a frame whose window shows none, in pixels of the frame."""
    if window.is_whole:
        return None
    other = choose_window(pixels, options)
    try:
        geometry, frame = find_level(through(other, pixels, options), options.teacher.edge_level)
    except FrameError:
        return None
    beam = other.to_full(geometry)
    ring = centroids.ring(frame, [geometry])[0]
    shows_one = judge(ring, geometry, frame.unknown[0]).verdict != "none"
    return beam if shows_one and not window.holds(window.to_window(beam)) else None


def without_broken(mean: FloatArray, look: Look) -> FloatArray:
    """Take pixels that are bad for good from the repaired frame.

    The mean of the frames holds what they were before that was known.

    Parameters
    ----------
    mean : ndarray of float32
        ``(h, w)`` in plateaus, in the frame of the reference.
    look : Look
    """
    broken = (look.scaled.bits[0] & ~(COSMIC | SATURATED)) != 0
    if not broken.any():
        return mean
    back = (-look.shift[0], -look.shift[1])
    there = translate(broken.astype(np.float32), back) > 0.5
    return np.where(there, translate(look.scaled.relative[0], back), mean)
