"""Small records that travel with a mask: how good it is, what was noticed, what was learned."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

NAN = float("nan")

Action: TypeAlias = Literal["note", "re-register", "restart", "bad pixels", "no beam"]


@dataclass(frozen=True, slots=True)
class Quality:
    """Numbers that say how far the mask of a frame can be trusted; NaN where unknown.

    Parameters
    ----------
    iou_to_teacher, iou_to_student : float
        Ring IoU of the served mask with the teacher's and the student's of the same frame.
    entropy : float
        Mean binary entropy of the served probability over the ring pixels and as many pixels
        around them [bits]; 0 is certain.
    centre : tuple of float
        Beam centre ``(y, x)`` [px].
    inner, outer : float
        Median inner and outer radius of the ring [px]; inner is 0 for a disc.
    """

    iou_to_teacher: float = NAN
    iou_to_student: float = NAN
    entropy: float = NAN
    centre: tuple[float, float] = (NAN, NAN)
    inner: float = NAN
    outer: float = NAN


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something changed that the operator (or the node) has to act on.

    Parameters
    ----------
    index : int
        Frame at which it was noticed.
    monitor : str
        Which monitor, as in `ptychoseg_stream.science.drift.MONITORS`; "window" for a beam that
        leaves the part of a large frame that is looked at.
    value, expected : float
        What the monitor read (averaged over the last frames), and what it was calibrated to.
    score : float
        How far that is, in calibrated standard deviations.
    action : {"note", "re-register", "restart", "bad pixels", "no beam"}
        What the node does about it.
    text : str
        One line for the operator.
    """

    index: int
    monitor: str
    value: float
    expected: float
    score: float
    action: Action
    text: str


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One stage of learning: what went in, how it ended, whether its student serves.

    Parameters
    ----------
    stage : int
        Counted over the run, from 0; also the revision of its student.
    frames : tuple of int
        Indices of the staged frames.
    rounds : int
        Self-consistency rounds done.
    delta : float
        1 - IoU between the masks of the last two rounds; NaN for none.
    converged : bool
        Whether delta fell below its limit. Not converging is a legal outcome.
    promoted : bool
        Whether the student serves.
    reason : str
        Why it does not; empty if it does.
    iou_to_anchor, area_change : float
        On the check set: mean ring IoU with the anchor label; relative change of ring area.
    student_hash, parent_hash, centroids_hash : str
        Of the student, of the student it began from ("" for none), and of the teacher.
    """

    stage: int
    frames: tuple[int, ...]
    rounds: int
    delta: float
    converged: bool
    promoted: bool
    reason: str
    iou_to_anchor: float
    area_change: float
    student_hash: str
    parent_hash: str
    centroids_hash: str
