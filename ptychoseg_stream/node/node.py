"""The node: frames of any number of runs in, masks out."""

from collections.abc import Callable, Sequence
from itertools import groupby

from ..science.frame import BoolArray, Frame, Mask
from .options import NodeOptions
from .run import RunLabeller
from .store import Store
from .trainer import Trainer
from .vitals import Progress


class Node:
    """Labels frames with cached centroids and a student that learns while the scan runs.

    Parameters
    ----------
    options : NodeOptions
    make_trainer : callable
        Makes the trainer of a run.
    store : Store
        Cache of centroids and students.
    user : ndarray of bool, optional
        ``(h, w)`` pixels that must never be used.
    """

    def __init__(
        self,
        options: NodeOptions,
        make_trainer: Callable[[], Trainer],
        store: Store,
        user: BoolArray | None = None,
    ) -> None:
        self._user = user
        self._options = options
        self._make_trainer = make_trainer
        self._store = store
        self._runs: dict[str, RunLabeller] = {}
        self._progress = Progress()

    def open(self, run_uid: str) -> None:
        """Begin a run."""
        self._runs[run_uid] = RunLabeller(
            self._options, self._make_trainer(), self._store, run_uid, self._user
        )

    def process(self, frames: Sequence[Frame]) -> list[Mask]:
        """Label frames, in order; a bad frame gets a mask of class 255 that says why.

        Raises
        ------
        KeyError
            If a frame belongs to a run that is not open.
        """
        masks: list[Mask] = []
        for run_uid, part in groupby(frames, key=lambda frame: frame.run):
            masks += self._runs[run_uid].label(list(part))
        return masks

    def close(self, run_uid: str) -> None:
        """Forget the run; training that is not finished is dropped."""
        run = self._runs.pop(run_uid, None)
        if run is not None:
            run.trainer.close()
            self._progress = run.trainer.progress()

    def progress(self) -> Progress:
        """Where learning is: in the newest open run, else as the last one left it."""
        for run in reversed(self._runs.values()):
            return run.trainer.progress()
        return self._progress
