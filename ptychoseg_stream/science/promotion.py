"""Whether a student may serve: an examination on kept frames.

A candidate is refused for what no good student does: weights or outputs that are not numbers, a
ring that is gone or everywhere, one that lies where the frame is dark, one that is far from the
teacher's, one clearly worse than what the serving student does on the same frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .augment import Example, whole_inputs
from .frame import BoolArray, FloatArray
from .learning import Student
from .refine import mean_iou
from .unet import PRIOR_CHANNEL

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Of batch normalisation: measured, not learned."""


@dataclass(frozen=True, slots=True, eq=False)
class CheckSet:
    """Kept frames with the teacher's ring on each, the *anchor*.

    Parameters
    ----------
    inputs : ndarray of float32
        ``(n, 5, h, w)`` the student's input of each frame.
    anchors : ndarray of bool
        ``(n, h, w)``.
    """

    inputs: FloatArray
    anchors: BoolArray

    def __post_init__(self) -> None:
        """Refuse what cannot be examined."""
        n, (h, w) = len(self.inputs), self.inputs.shape[-2:]
        if n == 0 or self.anchors.shape != (n, h, w):
            raise ValueError(
                f"anchors must be one map for each of the kept frames, {(n, h, w)} with at least "
                f"one frame; they are {self.anchors.shape}"
            )

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "CheckSet":
        """Make a check set of frames with their labels."""
        return cls(whole_inputs(examples), np.stack([e.ring for e in examples]))


@dataclass(frozen=True, slots=True)
class PromotionOptions:
    """What a student must reach on the check set.

    Parameters
    ----------
    min_iou : float
        Mean ring IoU with the anchor.
    max_area_change : float
        Relative change of the ring area against the anchor's.
    max_loss : float
        By how much its mean IoU with the anchor may be below the serving student's.
    min_bright_iou : float
        Mean ring IoU with the half-maximum of the frames themselves: far below what the strongest
        sample leaves, it is there for labels that are wrong altogether.
    max_cover : float
        Fraction of a frame from which on a ring is everywhere.
    max_weight : float
        Largest weight (absolute). Training that ran away leaves large ones, behind batch
        normalisation that hides them: its masks can look almost right.
    """

    min_iou: float = 0.6
    max_area_change: float = 0.25
    max_loss: float = 0.05
    min_bright_iou: float = 0.5
    max_cover: float = 0.9
    max_weight: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in ("min_iou", "max_loss", "min_bright_iou", "max_cover"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0 to 1")
        if self.max_area_change < 0 or self.max_weight <= 0:
            raise ValueError("max_area_change must be 0 or more, max_weight above 0")


@dataclass(frozen=True, slots=True)
class Examination:
    """How a candidate did.

    Parameters
    ----------
    accepted : bool
    reason : str
        Why not, in one line; empty if accepted.
    iou_to_anchor, area_change : float
        Over the check set: mean ring IoU with the anchor; change of the summed ring area, relative
        to the anchor's. NaN where there are no masks to compare.
    iou_of_serving : float
        Mean ring IoU of the serving student with the anchor; NaN if none serves.
    """

    accepted: bool
    reason: str
    iou_to_anchor: float = float("nan")
    area_change: float = float("nan")
    iou_of_serving: float = float("nan")


def examine(
    candidate: Student,
    serving: Student | None,
    check: CheckSet,
    options: PromotionOptions | None = None,
) -> Examination:
    """Examine a candidate on the check set.

    Parameters
    ----------
    candidate : Student
    serving : Student or None
        The student that would be replaced.
    check : CheckSet
    options : PromotionOptions, optional
    """
    options = options or PromotionOptions()
    if reason := _runaway(candidate, options):
        return Examination(False, reason)
    probability = candidate.predict(check.inputs)
    if not np.isfinite(probability).all():
        return Examination(False, "the student's answers to the check set are not finite")
    masks = probability > 0.5
    agreement, area = mean_iou(masks, check.anchors), _area_change(masks, check)
    served = (
        float("nan")
        if serving is None
        else mean_iou(serving.predict(check.inputs) > 0.5, check.anchors)
    )
    reason = (
        _collapse(masks, check, options)
        or _departure(agreement, area, options)
        or _loss(agreement, served, options)
    )
    return Examination(not reason, reason, agreement, area, served)


def _runaway(candidate: Student, options: PromotionOptions) -> str:
    for name, values in sorted(candidate.weights.items()):
        if not np.isfinite(values).all():
            return f"weights are not finite: {name}"
        largest = float(np.abs(values).max())
        if not name.endswith(STATISTICS) and largest > options.max_weight:
            return f"training ran away: {name} reaches {largest:.3g}, over {options.max_weight:g}"
    return ""


def _collapse(masks: BoolArray, check: CheckSet, options: PromotionOptions) -> str:
    cover = masks.mean(axis=(1, 2))
    if float(cover.min()) == 0:
        return f"the ring is gone in kept frame {int(cover.argmin())}"
    if float(cover.max()) >= options.max_cover:
        return f"the ring covers {cover.max():.0%} of kept frame {int(cover.argmax())}"
    bright = check.inputs[:, PRIOR_CHANNEL] > 0.5
    if (agreement := mean_iou(masks, bright)) < options.min_bright_iou:
        return f"the ring lies where the frames are dark: IoU with bright pixels {agreement:.2f}"
    return ""


def _departure(agreement: float, area: float, options: PromotionOptions) -> str:
    if abs(area) > options.max_area_change:
        return (
            f"the ring's area is {area:+.0%} off the teacher's on the check set, more than "
            f"{options.max_area_change:.0%}"
        )
    if agreement < options.min_iou:
        return (
            f"ring IoU with the teacher is {agreement:.2f} on the check set, below "
            f"{options.min_iou:.2f}"
        )
    return ""


def _loss(agreement: float, served: float, options: PromotionOptions) -> str:
    if served - agreement > options.max_loss:  # False for NaN
        return (
            f"ring IoU with the teacher is {agreement:.2f} on the check set; the student that "
            f"serves has {served:.2f}"
        )
    return ""


def _area_change(masks: BoolArray, check: CheckSet) -> float:
    anchored = int(check.anchors.sum())
    return int(masks.sum()) / anchored - 1 if anchored else float("nan")
