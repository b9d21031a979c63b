"""Figures of merit of masks against a reference, as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..science.frame import ClassCode, ClassMap, Mask
from ..science.metrics import boundary_f1, iou, temporal_consistency


@dataclass(frozen=True, slots=True)
class Score:
    """How well one kind of mask agrees with the reference.

    Parameters
    ----------
    name : str
        Of the kind.
    ring, ring_min : float
        Ring IoU: mean over frames and seeds, and the worst frame.
    core : float
        Mean core IoU over the frames whose reference has a core; NaN if none has.
    boundary : float
        Mean boundary F1 of the ring at 1 px.
    consistency : float
        Mean IoU of each ring with that of the frame before.
    by_seed : tuple of float
        Mean ring IoU of each seed.
    """

    name: str
    ring: float
    ring_min: float
    core: float
    boundary: float
    consistency: float
    by_seed: tuple[float, ...]


def held_out(n: int, staged: Sequence[int]) -> list[int]:
    """Return the frames that count: those not learned from, or all where there are no others."""
    learned = set(staged)
    return [i for i in range(n) if i not in learned] or list(range(n))


def staged_frames(masks: Sequence[Mask], stages: Sequence[int]) -> list[int]:
    """Return the frames of a run that were learned from, ascending.

    Those that its stages name; where no mask carries a stage, those that `stages` calls for, each
    refused one replaced by the next frame that has a mask.
    """
    recorded = {i for mask in masks for stage in mask.stages for i in stage.frames}
    if recorded:
        return sorted(recorded)
    staged: list[int] = []
    for mask in masks:
        at = len(staged)
        if at < len(stages) and mask.frame.index >= stages[at] and mask.status == "ok":
            staged.append(mask.frame.index)
    return staged


def ring_ious(maps: Sequence[ClassMap], reference: Sequence[ClassMap]) -> NDArray[np.float64]:
    """Ring IoU of each frame, ``(n,)``."""
    code = ClassCode.RING
    return np.array([iou(a == code, b == code) for a, b in zip(maps, reference, strict=True)])


def score(
    name: str,
    maps_by_seed: Sequence[Sequence[ClassMap]],
    reference: Sequence[ClassMap],
    scored: Sequence[int],
) -> Score:
    """Score one kind of mask.

    Parameters
    ----------
    name : str
    maps_by_seed : sequence of sequence of ndarray
        For each seed, one class map per frame.
    reference : sequence of ndarray
        One class map per frame.
    scored : sequence of int
        Frames that count: not those that were learned from. If there are none, figures are NaN.
    """
    if not scored:
        return Score(name, *[float("nan")] * 5, by_seed=())
    ring, core, boundary, consistency = [], [], [], []
    truth = [reference[i] for i in scored]
    for maps in maps_by_seed:
        found = [maps[i] for i in scored]
        ring.append(ring_ious(found, truth))
        core += [_core_iou(a, b) for a, b in zip(found, truth, strict=True) if _has_core(b)]
        pairs = zip(found, truth, strict=True)
        boundary.append(np.mean([boundary_f1(_ring(a), _ring(b)) for a, b in pairs]))
        consistency.append(temporal_consistency([_ring(a) for a in found]))
    return Score(
        name,
        float(np.mean(ring)),
        float(np.min(ring)),
        float(np.mean(core)) if core else float("nan"),
        float(np.mean(boundary)),
        float(np.mean(consistency)),
        tuple(float(np.mean(r)) for r in ring),
    )


def by_stage(
    ious: Mapping[str, NDArray[np.float64]],
    revisions: Sequence[int],
    scored: Sequence[int],
) -> list[tuple[int, int, dict[str, float]]]:
    """Mean ring IoU over the frames that each student labelled.

    Returns
    -------
    list of tuple
        Revision of the student, number of scored frames, mean IoU by kind of mask.
    """
    rows: list[tuple[int, int, dict[str, float]]] = []
    for revision in sorted({revisions[i] for i in scored}):
        at = [i for i in scored if revisions[i] == revision]
        rows.append((revision, len(at), {k: float(np.mean(v[at])) for k, v in ious.items()}))
    return rows


def _ring(classes: ClassMap) -> NDArray[np.bool_]:
    return classes == ClassCode.RING


def _has_core(classes: ClassMap) -> bool:
    return bool((classes == ClassCode.CORE).any())


def _core_iou(found: ClassMap, truth: ClassMap) -> float:
    return iou(found == ClassCode.CORE, truth == ClassCode.CORE)
