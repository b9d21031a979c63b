"""`ptychoseg evaluate`: the whole method over a stack, next to the cheap ways, with a reference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..node.options import NodeOptions
from ..node.store import MemoryStore
from ..node.trainer import OnStep
from ..science.frame import METHODS, ClassMap, Mask
from ..science.som import Centroids
from ..sim.detection import thin
from .baselines import Stack, baselines, half_maximum, mean_image, usable_frames
from .offline import label_all
from .score import Score, by_stage, held_out, ring_ious, score, staged_frames


@dataclass(frozen=True, slots=True)
class Request:
    """What to evaluate.

    Parameters
    ----------
    options : NodeOptions
    seeds : tuple of int
        Of teacher and student; figures are means over them.
    centroids : Centroids or None
        Fitted elsewhere: the teacher is also scored with them.
    dose : float
        Fraction of the counts: the teacher is also scored on thinned frames; 1 leaves it out.
    quick : bool
        Leave out the slow baselines, as in `baselines`.
    """

    options: NodeOptions
    seeds: tuple[int, ...] = (0, 1, 2)
    centroids: Centroids | None = None
    dose: float = 1.0
    quick: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The outcome.

    Parameters
    ----------
    scores : list of Score
        Methods first, then baselines.
    staged, scored : list of int
        Frames that were learned from (in any seed), and frames that counted.
    masks : list of Mask
        Of the first seed; the methods are among the alternatives.
    baselines : dict
        Class maps of each baseline by name.
    ious : dict
        Ring IoU of each frame, first seed, by method and baseline; NaN where there is no student.
    stages : list
        As `by_stage`.
    reference : list of ndarray
        Class map of each frame.
    """

    scores: list[Score]
    staged: list[int]
    scored: list[int]
    masks: list[Mask]
    baselines: dict[str, list[ClassMap]]
    ious: dict[str, NDArray[np.float64]]
    stages: list[tuple[int, int, dict[str, float]]]
    reference: list[ClassMap]

    @property
    def refused(self) -> list[int]:
        """Frames without a mask."""
        return [mask.frame.index for mask in self.masks if mask.status != "ok"]

    @property
    def best_baseline(self) -> str:
        """Name of the baseline with the highest mean ring IoU."""
        return max((s for s in self.scores if s.name in self.baselines), key=lambda s: s.ring).name

    def curves(self) -> dict[str, NDArray[np.float64]]:
        """IoU over frames of what a picture has room for: methods, constant masks, best way."""
        names = [*METHODS, *list(self.baselines)[:2], self.best_baseline]
        return {name: self.ious[name] for name in names}

    def worst(self, count: int) -> list[int]:
        """Scored frames with the lowest ring IoU of the served mask, first seed, worst first."""
        served = ring_ious([mask.classes for mask in self.masks], self.reference)
        labelled = [i for i in self.scored if self.masks[i].status == "ok"]
        return sorted(labelled, key=lambda i: (served[i], i))[:count]


def reference_of(frames: Stack, options: NodeOptions) -> ClassMap:
    """Half-maximum of the mean of all usable frames: the reference where nothing better is known.

    It favours half-maximum and mean baselines.

    Raises
    ------
    FrameError
        If no frame can be labelled.
    """
    mean = mean_image(frames, usable_frames(frames, options.prepare))
    return half_maximum(mean, options.prepare, options.teacher.edge_level)


def evaluate(
    frames: Stack,
    reference: Sequence[ClassMap],
    request: Request,
    on_frame: Callable[[Mask], None] | None = None,
    on_step: OnStep | None = None,
) -> Evaluation:
    """Run the method for each seed and score it and the baselines.

    Staged frames do not count.

    Parameters
    ----------
    frames : sequence of ndarray
    reference : sequence of ndarray
        One class map per frame.
    request : Request
    on_frame, on_step : callable, optional
        Progress, as in `label_all`.
    """
    options = replace(request.options, also=METHODS)
    runs = [
        label_all(frames, with_seed(options, s), MemoryStore(), on_frame, on_step)
        for s in request.seeds
    ]
    staged = sorted({i for run in runs for i in staged_frames(run, options.stages)})
    scored = held_out(len(frames), staged)
    # Means are over what the student learns from first, however often it begins anew.
    ladder = staged_frames(runs[0], options.stages)[: len(options.stages)]
    cheap = baselines(frames, ladder, options.prepare, request.quick)
    scores = [_scored(m, runs, reference, scored) for m in METHODS]
    scores += _extra(frames, reference, request, scored, on_frame)
    scores += [score(name, [maps], reference, scored) for name, maps in cheap.items()]
    served = np.array([mask.student_revision >= 0 or mask.status != "ok" for mask in runs[0]])
    ious = {m: ring_ious(maps_of(runs[0], m), reference) for m in METHODS}
    ious |= {m: np.where(served, ious[m], np.nan) for m in METHODS[1:]}
    ious |= {name: ring_ious(maps, reference) for name, maps in cheap.items()}
    revisions = [mask.student_revision for mask in runs[0]]
    stages = by_stage({m: ious[m] for m in METHODS}, revisions, scored)
    return Evaluation(scores, staged, scored, runs[0], cheap, ious, stages, list(reference))


def _scored(
    method: str,
    runs: Sequence[Sequence[Mask]],
    reference: Sequence[ClassMap],
    scored: Sequence[int],
) -> Score:
    """Score a method where it has masks: before the first student there is only the teacher's."""
    there = [
        i
        for i in scored
        if method == METHODS[0]
        or all(run[i].student_revision >= 0 or run[i].status != "ok" for run in runs)
    ]
    name = method
    if len(there) < len(scored):
        name = f"{method} (the {len(there)} frames that have one)"
    return score(name, [maps_of(run, method) for run in runs], reference, there)


def with_seed(options: NodeOptions, seed: int) -> NodeOptions:
    """Return options with the seed of teacher and student set."""
    return replace(
        options,
        teacher=replace(options.teacher, seed=seed),
        student=replace(options.student, seed=seed),
    )


def maps_of(masks: Sequence[Mask], method: str) -> list[ClassMap]:
    """Return the class maps of one method."""
    return [mask.alternatives[method] for mask in masks]


def _extra(
    frames: Stack,
    reference: Sequence[ClassMap],
    request: Request,
    scored: Sequence[int],
    on_frame: Callable[[Mask], None] | None,
) -> list[Score]:
    """Score the teacher with given centroids, and at another dose."""
    teacher_only = replace(request.options, stages=(), serve="teacher", also=("teacher",))
    rows: list[Score] = []
    if request.centroids is not None:
        store = MemoryStore(request.centroids)
        maps = maps_of(label_all(frames, teacher_only, store, on_frame), "teacher")
        rows.append(score("teacher, given centroids", [maps], reference, scored))
    if request.dose != 1:
        first = usable_frames(frames, teacher_only.prepare)[0]
        own = Centroids.fit(frames[first], teacher_only.teacher, teacher_only.prepare)
        for dose in (1.0, request.dose):
            fainter = _thinned(frames, dose)
            maps = maps_of(label_all(fainter, teacher_only, MemoryStore(own), on_frame), "teacher")
            name = f"teacher alone, centroids of frame {first}, dose x{dose:g}"
            rows.append(score(name, [maps], reference, scored))
    return rows


def _thinned(frames: Stack, dose: float) -> Stack:
    if dose == 1:
        return frames
    rng = np.random.default_rng(0)
    return [thin(frame, dose, rng) for frame in frames]
