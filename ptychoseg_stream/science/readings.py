"""What the drift monitors read of a frame: a dozen numbers, a third of a millisecond.

All are made to stay where they are while the experiment does. What the sample does to every frame
is in their scatter, which `ptychoseg_stream.science.drift` calibrates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .assign import Labels
from .frame import BoolArray, Verdict
from .metrics import iou
from .prepare import Prepared
from .verdict import PolarProfile

DARK_FIELD = 0.15
"""Of the plateau: what is below is not beam."""


@dataclass(frozen=True, slots=True)
class Readings:
    """Of one frame; logarithms are natural.

    Parameters
    ----------
    plateau : float
        ln of the bright-field plateau [counts per pixel].
    total : float
        ln of the counts of the frame (at least 1).
    scatter : float
        ln of the part of the counts that lies in the dark field (below 0.15 of the plateau; at
        least 1e-4): what sample and stray light add.
    error : float
        ln of the teacher's root mean square quantisation error.
    js : float
        Jensen-Shannon divergence of the prototype hits from the usual ones, 0 to 1 [bits].
    area : float
        ln of the ring area (at least 1) [px^2].
    radius : float
        ln of the radius of a disc with the area that the ring's outer edge encloses (at least 1)
        [px].
    shift_y, shift_x : float
        Against the reference [px].
    ciou : float
        IoU of the ring with that of the reference, moved by the shift of the frame.
    spikes : float
        ln(1 + spikes).
    verdict : {"annulus", "disc", "none", "no beam"}
        What the teacher's ring looks like.
    """

    plateau: float
    total: float
    scatter: float
    error: float
    js: float
    area: float
    radius: float
    shift_y: float
    shift_x: float
    ciou: float
    spikes: float
    verdict: Verdict = "annulus"


def read(
    prepared: Prepared,
    shift: tuple[float, float],
    labels: Labels,
    profile: PolarProfile,
    expected: BoolArray,
    usual: NDArray[np.number],
) -> Readings:
    """Take the readings of a frame.

    Parameters
    ----------
    prepared : Prepared
        Of the one frame.
    shift : tuple of float
        ``(dy, dx)`` against the reference [px].
    labels : Labels
        Of the one frame, by the teacher: what the student says depends on its training.
    profile : PolarProfile
        Of the teacher's ring.
    expected : ndarray of bool
        ``(h, w)`` ring of the reference, moved by the shift.
    usual : ndarray
        ``(m,)`` hits of earlier frames, summed. All zeros: js is 0.
    """
    ring = labels.rings[0]
    counts = prepared.counts[0]
    total = max(float(counts.sum(dtype=np.float64)), 1.0)
    lit = counts[counts >= DARK_FIELD * prepared.plateau[0]].sum(dtype=np.float64)
    return Readings(
        plateau=_log(float(prepared.plateau[0]), 1e-6),
        total=_log(total, 1.0),
        scatter=_log(1 - float(lit) / total, 1e-4),
        error=_log(float(labels.errors[0]), 1e-6),
        js=jensen_shannon(labels.hits[0], usual),
        area=_log(float(np.count_nonzero(ring)), 1.0),
        radius=_log(_outer_radius(profile), 1.0),
        shift_y=float(shift[0]),
        shift_x=float(shift[1]),
        ciou=iou(ring, expected),
        spikes=float(np.log1p(prepared.spikes[0])),
        verdict=profile.verdict,
    )


def jensen_shannon(p: NDArray[np.number], q: NDArray[np.number]) -> float:
    """Jensen-Shannon divergence of two histograms of any scale [bits]; 0 if either is empty.

    Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37, 145 (1991).
    """
    if p.sum() <= 0 or q.sum() <= 0:
        return 0.0
    a, b = p / p.sum(), q / q.sum()
    middle = 0.5 * (a + b)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(a > 0, a * np.log2(a / middle), 0) + np.where(
            b > 0, b * np.log2(b / middle), 0
        )
    return max(0.0, 0.5 * float(terms.sum()))


def _outer_radius(profile: PolarProfile) -> float:
    """Root mean square of the outer radius over the sectors; 0 without a ring.

    Not from filling the ring: a broken ring (beam-stop arm) would jump between filled and not.
    """
    outer = profile.outer[np.isfinite(profile.outer)]
    return float(np.sqrt(np.square(outer).mean())) if len(outer) else 0.0


def _log(value: float, least: float) -> float:
    return float(np.log(max(value, least)))
