"""Who runs the stages: in line (deterministic) or beside the stream. One interface for both.

A stage is learned, refined, and its student examined. One that fails or is refused changes nothing:
the student before it goes on serving, and the next stage begins from that one.

Both trainers make the same students from the same stages; they differ in which frame first sees
them.
"""

import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from ..errors import LearningError
from ..science.augment import Example
from ..science.learning import Student, StudentOptions, TrainingStep
from ..science.promotion import CheckSet, Examination, PromotionOptions, examine
from ..science.records import StageRecord
from ..science.refine import Learned, learn_stage
from .vitals import Progress

LOWEST = 19
"""Priority of background training: frames come first where they share a core."""

FAILURES = (LearningError, RuntimeError, ValueError, ArithmeticError, LookupError, MemoryError)
"""What a stage may end with: our own error, and what PyTorch and NumPy raise."""

OnStep: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """A stage to learn.

    Parameters
    ----------
    examples : sequence of Example
        All staged frames so far with their labels.
    check : CheckSet or None
        Kept frames to examine the student on, beside the staged ones.
    frames : tuple of int
        Indices of the staged frames, for the record.
    centroids_hash : str
        Of the teacher, for the record.
    """

    examples: Sequence[Example]
    check: CheckSet | None = None
    frames: tuple[int, ...] = ()
    centroids_hash: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """How a stage ended.

    Parameters
    ----------
    record : StageRecord
    student : Student or None
        The student to serve from now on; None if it was refused or the stage failed.
    """

    record: StageRecord
    student: Student | None


class Trainer(Protocol):
    """Learns the stages of one run, in order."""

    def submit(self, stage: Stage) -> None:
        """Ask for a stage."""
        ...

    def collect(self) -> list[Outcome]:
        """Return the stages that ended since the last call, in order."""
        ...

    def progress(self) -> Progress:
        """Where learning is."""
        ...

    def close(self) -> None:
        """Stop learning; what is unfinished is dropped."""
        ...


class InlineTrainer:
    """Learns while the frame waits: deterministic, for replay, evaluation and tests.

    Parameters
    ----------
    options : StudentOptions
    on_step : callable, optional
        Told the progress after each step.
    promotion : PromotionOptions, optional
        What a student must reach to serve.
    """

    def __init__(
        self,
        options: StudentOptions,
        on_step: OnStep | None = None,
        promotion: PromotionOptions | None = None,
    ) -> None:
        self._options = options
        self._on_step = on_step
        self._promotion = promotion or PromotionOptions()
        self._stage = 0
        self._serving: Student | None = None
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._progress = Progress()

    def submit(self, stage: Stage) -> None:
        """Learn the stage now."""
        self._learn(stage, lambda: False)

    def collect(self) -> list[Outcome]:
        """Return the stages that ended since the last call, in order."""
        return [self._outcomes.get() for _ in range(self._outcomes.qsize())]

    def progress(self) -> Progress:
        """Where learning is."""
        return self._progress

    def close(self) -> None:
        """Nothing runs between two calls."""

    def _learn(self, stage: Stage, cancelled: Callable[[], bool]) -> None:
        learned: Learned | None = None
        exam = Examination(False, "")
        try:
            for record in learn_stage(self._serving, stage.examples, self._options, self._stage):
                if cancelled():
                    self._tell(replace(self._progress, training=False))
                    return
                if isinstance(record, Learned):
                    learned = record
                    exam = self._examined(learned.student, stage)
                else:
                    self._tell(_progress_of(record))
        except FAILURES as error:
            exam = Examination(False, f"{error}" or type(error).__name__)
        self._end(stage, learned, exam)

    def _examined(self, student: Student, stage: Stage) -> Examination:
        """Examine on the kept frames, then on the staged ones: did it learn what it was taught?"""
        own = CheckSet.of(stage.examples)
        exam = examine(student, self._serving, stage.check or own, self._promotion)
        if exam.accepted and stage.check is not None:
            taught = examine(student, None, own, self._promotion)
            reason = f"staged frames: {taught.reason}" if taught.reason else ""
            return replace(exam, accepted=taught.accepted, reason=reason)
        return exam

    def _end(self, stage: Stage, learned: Learned | None, exam: Examination) -> None:
        parent = self._serving
        record = StageRecord(
            stage=self._stage,
            frames=stage.frames,
            rounds=learned.rounds if learned else 0,
            delta=learned.delta if learned else float("nan"),
            converged=learned is not None and learned.converged,
            promoted=exam.accepted,
            reason=exam.reason,
            iou_to_anchor=exam.iou_to_anchor,
            area_change=exam.area_change,
            student_hash=learned.student.hash if learned else "",
            parent_hash=parent.hash if parent else "",
            centroids_hash=stage.centroids_hash,
        )
        student = learned.student if learned and exam.accepted else None
        self._serving = student or parent
        self._outcomes.put(Outcome(record, student))
        told = self._progress if learned else Progress(stage=self._stage)
        self._tell(replace(told, training=False, fault=exam.reason))
        self._stage += 1

    def _tell(self, progress: Progress) -> None:
        self._progress = progress
        if self._on_step:
            self._on_step(progress)


class BackgroundTrainer(InlineTrainer):
    """Learns in a thread of its own: a frame never waits for training.

    PyTorch's kernels release the interpreter lock, so frames are labelled meanwhile. Options are
    those of `InlineTrainer`.
    """

    def __init__(
        self,
        options: StudentOptions,
        on_step: OnStep | None = None,
        promotion: PromotionOptions | None = None,
    ) -> None:
        super().__init__(options, on_step, promotion)
        self._stages: queue.SimpleQueue[Stage | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def submit(self, stage: Stage) -> None:
        """Queue the stage."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ptychoseg-trainer", daemon=True)
            self._thread.start()
        self._stages.put(stage)

    def close(self) -> None:
        """Stop after the step that is running."""
        self._closing.set()
        self._stages.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        if sys.platform == "linux":  # elsewhere a thread has no priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
        while (stage := self._stages.get()) is not None and not self._closing.is_set():
            self._learn(stage, self._closing.is_set)


def _progress_of(step: TrainingStep) -> Progress:
    return Progress(
        stage=step.stage,
        step=step.step,
        steps=step.steps,
        loss=step.loss,
        iou=step.iou,
        training=True,
        round=step.round,
    )
