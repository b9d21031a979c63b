"""The self-consistency loop: after a stage, the student learns from the teacher and from itself.

The label of a round is half the teacher's ring (the *anchor*, which is never replaced) and half the
student's own probability. The loop ends when the masks no longer change. Without the anchor the
student confirms its own errors, and its ring grows or shrinks round by round.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from .augment import Example, whole_inputs
from .frame import BoolArray, FloatArray
from .learning import Course, Student, StudentOptions, TrainingStep, fine_tune, train
from .metrics import iou

Masks: TypeAlias = Sequence[BoolArray] | BoolArray  # one (h, w) for each frame

MAX_AREA_CHANGE = 0.2
"""Largest change of the ring area on the staged frames, relative to the anchor's."""
LEAST_IOU = 0.8
"""Least mean IoU on the staged frames with the anchor."""


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """The outcome of a stage.

    Parameters
    ----------
    student : Student
        That of the last round that was kept.
    rounds : int
        Rounds of refinement done, the one that was taken back among them.
    delta : float
        1 - IoU between the masks of the last two rounds; NaN without a round.
    converged : bool
        Whether `delta` fell below its limit. Not converging is a legal outcome.
    note : str
        Why the last round was taken back, or why there was none; empty otherwise.
    """

    student: Student
    rounds: int = 0
    delta: float = float("nan")
    converged: bool = False
    note: str = ""


def learn_stage(
    previous: Student | None,
    examples: Sequence[Example],
    options: StudentOptions,
    stage: int | None = None,
) -> Iterator[TrainingStep | Learned]:
    """Learn a stage from beginning to end: fine-tuning, then refinement.

    The result depends on the arguments alone: the same student, bit for bit, whenever it is run
    (with one thread, on the same versions and kind of processor).

    Parameters
    ----------
    previous, examples, options, stage
        As of `fine_tune`.

    Yields
    ------
    TrainingStep
        After each step.
    Learned
        Once, at the end.

    Raises
    ------
    LearningError
        As `fine_tune`.
    """
    for record in fine_tune(previous, examples, options, stage):
        if isinstance(record, Student):
            yield from refine(record, examples, options)
        else:
            yield record


def refine(
    student: Student, examples: Sequence[Example], options: StudentOptions
) -> Iterator[TrainingStep | Learned]:
    """Refine the student of a stage; what is yielded and raised is as in `learn_stage`.

    Round r learns ``w anchor + (1 - w) P`` with P the student's probability before it, for
    `round_steps` steps at half the learning rate of the round before: without that the masks never
    come to rest. A round whose ring leaves the anchor (`MAX_AREA_CHANGE`, `LEAST_IOU`) is taken
    back, and is the last.

    Parameters
    ----------
    student : Student
        As fine-tuned.
    examples : sequence of Example
        Of its stage, with the anchor as `ring`.
    options : StudentOptions
    """
    learned = Learned(student)
    inputs = whole_inputs(examples)
    probability = student.predict(inputs)
    if options.rounds and (note := strayed(probability > 0.5, examples)):
        yield Learned(student, note=f"not refined: {note}")
        return
    for number in range(1, options.rounds + 1):
        rate = options.learning_rate * 0.5**number
        course = Course(student.revision, number, options.round_steps, rate)
        softened = soften(examples, probability, options.anchor_weight)
        before = probability > 0.5
        for record in train(learned.student, softened, options, course):
            if isinstance(record, TrainingStep):
                yield record
            else:
                student = record
        probability = student.predict(inputs)
        change = delta(probability > 0.5, before)
        if note := strayed(probability > 0.5, examples):
            learned = replace(learned, rounds=number, delta=change, note=f"taken back: {note}")
            break
        learned = Learned(student, number, change, change < options.epsilon)
        if learned.converged:
            break
    yield learned


def soften(
    examples: Sequence[Example], probability: FloatArray, anchor_weight: float
) -> list[Example]:
    """Return the examples with soft labels: the anchor mixed with the student's probability."""
    w = np.float32(anchor_weight)
    return [
        replace(e, soft=w * e.ring.astype(np.float32) + (1 - w) * p)
        for e, p in zip(examples, probability, strict=True)
    ]


def strayed(masks: Masks, examples: Sequence[Example]) -> str:
    """Say how the masks of the staged frames left their anchors; empty if they did not."""
    anchors = [e.ring for e in examples]
    area, anchored = sum(int(m.sum()) for m in masks), sum(int(a.sum()) for a in anchors)
    change = area / max(anchored, 1) - 1
    if abs(change) > MAX_AREA_CHANGE:
        return f"the ring's area is {change:+.0%} off its label's"
    agreement = mean_iou(masks, anchors)
    return f"IoU with its label is {agreement:.2f}" if agreement < LEAST_IOU else ""


def delta(masks: Masks, before: Masks) -> float:
    """Change from round to round: one minus the mean IoU of each mask with the one before it."""
    return 1 - mean_iou(masks, before)


def change_of_iou(masks: Masks, before: Masks, labels: Masks) -> float:
    """The other reading of the criterion: by how much the mean IoU with the label changed.

    Not used: masks can run through the frame while their IoU with the label stays the same. Kept so
    that a test can show it.
    """
    return abs(mean_iou(masks, labels) - mean_iou(before, labels))


def mean_iou(masks: Masks, others: Masks) -> float:
    """Mean of the IoU of each mask with the other of the same frame."""
    return float(np.mean([iou(m, o) for m, o in zip(masks, others, strict=True)]))
