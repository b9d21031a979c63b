"""Annulus, disc or none: what a ring mask shows, and why it is no ring.

Supported: annuli and discs, whole or cut by the border of the frame (the centre may lie outside it;
at least 30 % of the circumference must be inside), elliptical up to an axis ratio of about 1.6,
with a sector lost, a beam-stop's arm or spots, and two or more concentric rings (all of them ring;
core is what the innermost encloses). A square or rectangular pupil is a disc, one with a stop in
its middle an annulus.

Refused, with the reason: beams with an outer radius below 3.5 px, separate spots (Bragg peaks, also
on a powder ring if they leave more than 30 % of it dark), arcs of less than 40 % of the
circumference, streaks and beams more than twice as long as wide, an elliptical beam that is cut,
and a lit area without a round edge. A powder ring that is closed is a ring to us, and an isolated
round blob a disc: their shape is all that a mask tells.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .frame import BoolArray, Verdict
from .geometry import MIN_SHOWN, Geometry
from .polar import (
    SECTORS,
    Floats,
    PolarView,
    band_cover,
    completed,
    polar_view,
    smooth_radius,
)

MIN_OUTER = 3.5
"""Outer radius of the smallest beam [px]: what is smaller cannot be told from a peak."""
MIN_COVERED, MIN_COVERED_IN_PIECES = 0.4, 0.7
"""Of the circumference that must be lit; of one in more than `MAX_PIECES` pieces."""
MAX_PIECES, MAX_PARTS = 4, 6
"""Lit stretches that are parts of their own; parts at all if none is half of the ring."""
MAX_RATIO = 2.0
"""Longest over shortest diameter."""


@dataclass(frozen=True, slots=True, eq=False)
class PolarProfile:
    """The ring seen from the beam centre, and the verdict.

    Parameters
    ----------
    inner, outer : ndarray of float64
        ``(90,)`` first and last ring radius of each sector [px]; a smooth curve where a sector does
        not agree with it.
    good : ndarray of bool
        ``(90,)`` sectors with a ring that agrees with the smooth curve.
    seen : ndarray of bool
        ``(90,)`` sectors with any ring pixel.
    shown : ndarray of bool
        ``(90,)`` sectors of which the frame shows at least half of the ring's band.
    verdict : {"annulus", "disc", "none"}
    reason : str
        One line that says why there is no ring; empty for an annulus.
    """

    inner: Floats
    outer: Floats
    good: BoolArray
    seen: BoolArray
    shown: BoolArray
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class _Shape:
    """Numbers that the verdict is made of."""

    view: PolarView
    inner: Floats
    outer: Floats
    tolerance: float
    shown: BoolArray
    full: BoolArray
    inner_fits: BoolArray
    outer_fits: BoolArray


def judge(ring: BoolArray, geometry: Geometry, hidden: BoolArray | None = None) -> PolarProfile:
    """See the ring from the beam centre, sector by sector, and say what it is.

    Parameters
    ----------
    ring : ndarray of bool
        ``(h, w)``, cleaned.
    geometry : Geometry
        The frame's beam.
    hidden : ndarray of bool, optional
        ``(h, w)`` pixels of which nothing is known (`Prepared.unknown`); sectors that they hide
        are not missed.
    """
    view = polar_view(ring, geometry, hidden)
    seen = np.isfinite(view.inner)
    if not seen.any():
        nothing = np.zeros(SECTORS, bool)
        return PolarProfile(
            view.inner, view.outer, nothing, seen, nothing, "none", "nothing is as bright as a ring"
        )
    shape = _measure(view, seen)
    verdict, reason = _verdict(shape, ring, geometry)
    good = shape.inner_fits & shape.full
    inner = completed(view.inner, good, shape.inner)
    outer = completed(view.outer, shape.outer_fits & shape.full, shape.outer)
    return PolarProfile(inner, outer, good, seen, shape.shown, verdict, reason)


def _measure(view: PolarView, seen: BoolArray) -> _Shape:
    begins = view.inner_known if view.inner_known.any() else seen
    ends = view.outer_known if view.outer_known.any() else seen
    middle, edge = np.median(view.inner[begins]), np.median(view.outer[ends])
    # A quarter of a small beam's radius is less than 2.5 px.
    tolerance = max(min(2.5, 0.35 * edge), 0.35 * (edge - middle))
    inner = smooth_radius(view.inner, begins, tolerance)
    outer = np.maximum(smooth_radius(view.outer, ends, tolerance), inner + 1)
    cover, shown = band_cover(view, inner, outer)
    return _Shape(
        view,
        inner,
        outer,
        tolerance,
        shown >= 0.5,
        cover >= 0.5,
        begins & (np.abs(view.inner - inner) <= tolerance),
        ends & (np.abs(view.outer - outer) <= tolerance),
    )


def _verdict(shape: _Shape, ring: BoolArray, geometry: Geometry) -> tuple[Verdict, str]:
    reason = _too_little(shape, ring) or _not_round(shape, ring, geometry)
    if reason:
        return "none", reason
    if _reaches_centre(shape):
        return "disc", "the beam is bright up to its centre: no core"
    known = shape.inner_fits & shape.shown
    if known.sum() < 0.3 * shape.shown.sum():
        return "none", "no common inner edge: the bright region encloses no core"
    return "annulus", ""


def _too_little(shape: _Shape, ring: BoolArray) -> str:
    shown = shape.shown
    if shown.mean() < MIN_SHOWN:
        return f"the frame shows only {shown.mean():.0%} of the circumference of the beam"
    covered = float(shape.full[shown].mean())
    parts, largest = _parts(ring)
    # Dark stretches alone are what a sample does; spots are apart as well.
    pieces = min(_pieces(shape.full, shown), parts)
    enough = MIN_COVERED if pieces <= MAX_PIECES else MIN_COVERED_IN_PIECES
    scattered = parts > MAX_PARTS and largest < 0.5
    radius = float(np.median(shape.outer))
    if covered >= enough and not scattered and radius >= MIN_OUTER:
        return ""
    if parts > 1:
        return f"{parts} separate bright spots that fill {covered:.0%} of a circle, no closed ring"
    if (ratio := _elongation(ring)) > 3:
        return f"a streak, {ratio:.0f} times as long as wide"
    if radius < MIN_OUTER:
        return f"a spot of {radius:.1f} px radius, too small to be told from a peak"
    return f"bright on {covered:.0%} of a circle around the centre only, no closed ring"


def _not_round(shape: _Shape, ring: BoolArray, geometry: Geometry) -> str:
    view, shown = shape.view, shape.shown
    weight = view.lit * view.radius[:, None]
    beyond = view.radius[:, None] > shape.outer + shape.tolerance
    stray = float((weight * beyond).sum() / weight.sum())
    ends = view.outer_known & shown
    if ends.sum() < 0.2 * SECTORS:
        return "the lit area runs out of the frame on all sides: no edge of a beam is seen"
    ragged = stray > 0.3 or shape.outer_fits[ends].mean() < 0.5
    if ends[shown].mean() < 0.85:
        # What the frame hides must follow from what it shows: only a circle does that.
        allowed = max(2.5, 0.12 * geometry.radius)
        circle = np.abs(view.outer[ends] - geometry.radius) <= allowed
        if ragged or circle.mean() < 0.6:
            return (
                "the lit area runs out of the frame, and what is seen of its edge is no circle or "
                f"less than {MIN_SHOWN:.0%} of one"
            )
        return ""
    if ragged:
        ratio = _elongation(ring)
        if ratio > 3:
            return f"a streak, {ratio:.0f} times as long as wide"
        return "an irregular bright region without a round edge"
    half = SECTORS // 2
    diameter = shape.outer[:half] + shape.outer[half:]
    ratio = float(diameter.max() / diameter.min())
    return f"the bright region is {ratio:.1f} times as long as wide" if ratio > MAX_RATIO else ""


def _reaches_centre(shape: _Shape) -> bool:
    """Whether the ring begins within 1.5 px of the centre in most directions.

    With the centre outside the frame: whether it begins at the border nearly everywhere.
    """
    near = shape.view.radius <= 1.5
    if shape.view.shown[near].any():
        return float((shape.view.lit[near] > 0).any(axis=0).mean()) > 0.5
    known = shape.view.inner_known & shape.shown
    return bool(known.sum() < 0.3 * shape.shown.sum())


def _pieces(full: BoolArray, shown: BoolArray) -> int:
    """Number of lit stretches around the circle; what the frame does not show joins them."""
    lit = (full | ~shown).astype(int)
    return int((np.diff(lit, append=lit[0]) == 1).sum())


def _parts(ring: BoolArray) -> tuple[int, float]:
    """Number of connected parts and the fraction of the ring that the largest one is."""
    labels, n = ndimage.label(ring, np.ones((3, 3)))
    areas = np.bincount(labels.ravel())[1:]
    return int(n), float(areas.max() / areas.sum())


def _elongation(ring: BoolArray) -> float:
    """Length over width of a region, from its second moments."""
    values = np.linalg.eigvalsh(np.cov(np.array(np.nonzero(ring)), bias=True))
    return float(np.sqrt((values[1] + 1 / 12) / (max(values[0], 0.0) + 1 / 12)))
