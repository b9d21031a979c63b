"""The node: frames of any number of runs in, masks out."""

from collections.abc import Callable, Sequence
from itertools import groupby

from ..errors import CheckpointError
from ..science.frame import BoolArray, Frame, Mask
from ..science.products import RunProducts
from .checkpoint import Owner, pack, unpack
from .options import NodeOptions
from .run import RunLabeller
from .state import RunState
from .store import Store
from .trainer import Resumable, Trainer
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

    def open(self, run_uid: str, checkpoint: bytes = b"") -> None:
        """Begin a run, or go on where `checkpoint` was taken, bit by bit.

        Stages that were being learned are learned again; so it may take as long as they do where
        the trainer works in line.

        Raises
        ------
        CheckpointError
            If the checkpoint is damaged, of another version or run, or made with other options.
            The run is not open then.
        """
        if not checkpoint:
            self._runs[run_uid] = self._labeller(run_uid, self._make_trainer())
            return
        state, learned = unpack(checkpoint, self._owner(run_uid))
        trainer = _resumable(self._make_trainer(), run_uid)
        trainer.resume(learned)
        self._runs[run_uid] = self._labeller(run_uid, trainer, state)

    def checkpoint(self, run_uid: str) -> bytes:
        """Return what is remembered of a run after the frames so far.

        Raises
        ------
        KeyError
            If the run is not open.
        CheckpointError
            If it cannot be written down.
        """
        run = self._runs[run_uid]
        trainer = _resumable(run.trainer, run_uid)
        return pack(run.state, trainer.state(), self._owner(run_uid))

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

    def products(self, run_uid: str) -> RunProducts | None:
        """Return what the frames of a run say together; None before the first.

        Raises
        ------
        KeyError
            If the run is not open.
        """
        return self._runs[run_uid].products()

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

    def _labeller(
        self, run_uid: str, trainer: Trainer, state: RunState | None = None
    ) -> RunLabeller:
        return RunLabeller(self._options, trainer, self._store, run_uid, self._user, state)

    def _owner(self, run_uid: str) -> Owner:
        return Owner(run_uid, self._options, self._user)


def _resumable(trainer: Trainer, run_uid: str) -> Resumable:
    if not isinstance(trainer, Resumable):
        raise CheckpointError(
            f"run {run_uid}: what a {type(trainer).__name__} learned cannot be gone on with"
        )
    return trainer
