"""Who runs the stages: in line (deterministic) or beside the stream. One interface for both.

Both make the same students from the same stages; they differ in which frame first sees them.
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
from ..science.learning import Student, StudentOptions, fine_tune
from .vitals import Progress

LOWEST = 19
"""Priority of background training: frames come first where they share a core."""

OnStep: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """A stage to learn.

    Parameters
    ----------
    examples : sequence of Example
        All staged frames so far with their labels.
    """

    examples: Sequence[Example]


class Trainer(Protocol):
    """Learns the stages of one run, in order."""

    def submit(self, stage: Stage) -> None:
        """Ask for a stage."""
        ...

    def collect(self) -> Student | None:
        """Return the newest student finished since the last call, if any."""
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
    """

    def __init__(self, options: StudentOptions, on_step: OnStep | None = None) -> None:
        self._options = options
        self._on_step = on_step
        self._last: Student | None = None
        self._fresh: Student | None = None
        self._progress = Progress()

    def submit(self, stage: Stage) -> None:
        """Learn the stage now."""
        self._learn(stage, lambda: False)

    def collect(self) -> Student | None:
        """Return the student of the last stage, once."""
        fresh, self._fresh = self._fresh, None
        return fresh

    def progress(self) -> Progress:
        """Where learning is."""
        return self._progress

    def close(self) -> None:
        """Nothing runs between two calls."""

    def _learn(self, stage: Stage, cancelled: Callable[[], bool]) -> None:
        try:
            for record in fine_tune(self._last, stage.examples, self._options):
                if cancelled():
                    break
                if isinstance(record, Student):
                    self._last = self._fresh = record
                else:
                    self._tell(
                        Progress(
                            record.stage, record.step, record.steps, record.loss, record.iou, True
                        )
                    )
        except (LearningError, RuntimeError, ValueError) as error:  # PyTorch raises the last two
            self._progress = replace(self._progress, fault=str(error))
        self._tell(replace(self._progress, training=False))

    def _tell(self, progress: Progress) -> None:
        self._progress = progress
        if self._on_step:
            self._on_step(progress)


class BackgroundTrainer(InlineTrainer):
    """Learns in a thread of its own: a frame never waits for training.

    PyTorch's kernels release the interpreter lock, so frames are labelled meanwhile.
    """

    def __init__(self, options: StudentOptions, on_step: OnStep | None = None) -> None:
        super().__init__(options, on_step)
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
