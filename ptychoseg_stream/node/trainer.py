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
from typing import Protocol, TypeAlias, runtime_checkable

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


@dataclass(frozen=True, slots=True, eq=False)
class TrainerState:
    """All that a trainer knows; another that is given it goes on with the same students.

    Parameters
    ----------
    stage : int
        Number of the next stage to end.
    serving : Student or None
        The student that the next stage begins from.
    outcomes : sequence of Outcome
        Stages that ended and were not collected yet.
    pending : sequence of Stage
        Stages that were submitted and did not end; they are learned again from their beginning.
    progress : Progress
    """

    stage: int
    serving: Student | None
    outcomes: Sequence[Outcome]
    pending: Sequence[Stage]
    progress: Progress


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


@runtime_checkable
class Resumable(Trainer, Protocol):
    """A trainer whose learning can be gone on with in another process."""

    def state(self) -> TrainerState:
        """Return all that it knows, as of now."""
        ...

    def resume(self, state: TrainerState) -> None:
        """Go on from there, before anything else is asked of it."""
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
        self._outcomes: list[Outcome] = []
        self._pending: list[Stage] = []
        self._progress = Progress()
        self._lock = threading.Lock()  # a stage ends in one step, for who looks from outside

    def submit(self, stage: Stage) -> None:
        """Learn the stage now."""
        self._learn(stage, lambda: False)

    def collect(self) -> list[Outcome]:
        """Return the stages that ended since the last call, in order."""
        with self._lock:
            ended, self._outcomes = self._outcomes, []
        return ended

    def progress(self) -> Progress:
        """Where learning is."""
        return self._progress

    def close(self) -> None:
        """Nothing runs between two calls."""

    def state(self) -> TrainerState:
        """Return all that it knows, as of now."""
        with self._lock:
            ended, pending = tuple(self._outcomes), tuple(self._pending)
            return TrainerState(self._stage, self._serving, ended, pending, self._progress)

    def resume(self, state: TrainerState) -> None:
        """Go on from there, before anything else is asked of it; learns what was pending."""
        self._stage, self._serving, self._progress = state.stage, state.serving, state.progress
        self._outcomes = list(state.outcomes)
        for stage in state.pending:
            self.submit(stage)

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
        told = self._progress if learned else Progress(stage=self._stage)
        with self._lock:
            self._serving = student or parent
            self._outcomes.append(Outcome(record, student))
            self._pending = [other for other in self._pending if other is not stage]
            self._stage += 1
        self._tell(replace(told, training=False, fault=exam.reason))

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
        with self._lock:
            self._pending.append(stage)
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
