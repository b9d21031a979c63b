"""A sink that writes one HDF5 file per run: on its own, or for what Tiled does not take."""

import atexit
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonschema import ValidationError

from ..errors import StoreError
from ..node.ports import Account, Clock, RunInfo
from ..science.frame import Mask
from .arrays import DEFAULT, nbytes
from .derived import Derived
from .rows import Row
from .run_file import RunFile
from .side_tables import Entry
from .worker import Worker

logger = logging.getLogger("ptychoseg_stream.sinks")

KEPT = 256  # closed runs whose place and size are remembered


@dataclass(slots=True, eq=False)
class _Filed:
    """A run as the caller's thread and the writer's share it."""

    derived: Derived
    path: Path
    elsewhere: int = 0
    stored: int = 0
    account: Account | None = None
    file: RunFile | None = None
    buffer: list[Row] = field(default_factory=list[Row])
    pages: Mapping[str, Sequence[Entry[Any]]] = field(default_factory=dict)
    since: float = 0.0
    failed: bool = False


class HDF5Sink:
    """Writes the masks of each run to ``<folder>/<uid of the derived run>.h5``.

    Files are written by a thread, flushed and synced with each batch; `run_file` draws the layout.

    Parameters
    ----------
    folder : Path or str
        Where files go; made on demand.
    arrays : sequence of str
        What to store: "mask", and any other of `arrays.ARRAYS`.
    batch_rows, batch_seconds : int, float
        Rows are written when so many wait, or when one has waited so long [s].
    clock : Clock
        Time of documents and rows.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        arrays: Sequence[str] = DEFAULT,
        batch_rows: int = 64,
        batch_seconds: float = 1.0,
        clock: Clock = time.time,
    ) -> None:
        self._folder = Path(folder).expanduser()
        self._clock = clock
        self._open: dict[str, Derived] = {}  # by uid of the raw run
        self._filed: dict[str, _Filed] = {}  # by uid of the derived run
        self._clerk = _FileClerk(tuple(arrays), batch_rows, batch_seconds, clock)
        self._worker: Worker[_Filed] = Worker(self._clerk, "ptychoseg-hdf5")

    def open(self, run: RunInfo) -> None:
        """Begin a run."""
        if not self._open:
            atexit.register(self.shutdown)
        self._open[run.uid] = Derived.of(run, self._clock)
        self.begin(self._open[run.uid])

    def write(self, run_uid: str, masks: Sequence[Mask]) -> None:
        """Take the next masks of a run.

        Raises
        ------
        StoreError
            If the run was not opened.
        """
        now = self._clock()
        self.add(self._derived(run_uid), [Row(mask, now) for mask in masks])

    def close(self, run_uid: str, account: Account) -> None:
        """End a run."""
        self.end(self._derived(run_uid), account)

    def stored(self, run_uid: str) -> int:
        """Return how many rows of a run are on disk."""
        derived = self._open.get(run_uid)
        return 0 if derived is None else self.stored_of(derived)

    def address(self, run_uid: str) -> str:
        """Return the path of a run's file; empty if unknown."""
        derived = self._open.get(run_uid)
        return "" if derived is None else str(self.path(derived))

    def fault(self) -> str:
        """Return the last thing that went wrong; empty if nothing did."""
        return self._clerk.fault

    def drain(self, timeout: float) -> bool:
        """Wait until all that was given is on disk; False after `timeout` [s]."""
        return self._worker.drain(timeout)

    def shutdown(self) -> None:
        """Write what is left and end the thread."""
        self._worker.stop()
        atexit.unregister(self.shutdown)

    @property
    def pending_bytes(self) -> int:
        """Arrays of masks that wait for the disk [bytes]."""
        return self._worker.pending_bytes

    def path(self, derived: Derived) -> Path:
        """Return the file of a derived run."""
        return self._folder / f"{derived.uid}.h5"

    def stored_of(self, derived: Derived) -> int:
        """Return how many rows of a derived run are on disk."""
        filed = self._filed.get(derived.uid)
        return 0 if filed is None else filed.stored

    def begin(self, derived: Derived, elsewhere: int = 0) -> None:
        """Begin a derived run whose first `elsewhere` rows are stored somewhere else."""
        filed = self._filed.setdefault(derived.uid, _Filed(derived, self.path(derived)))
        filed.elsewhere = elsewhere
        for uid in [uid for uid, old in self._filed.items() if old.account][:-KEPT]:
            del self._filed[uid]
        self._worker.begin(filed)

    def add(self, derived: Derived, rows: Sequence[Row]) -> None:
        """Take rows of a derived run, in any order."""
        filed = self._filed.setdefault(derived.uid, _Filed(derived, self.path(derived)))
        self._worker.take(filed, rows, sum(nbytes(row.mask) for row in rows))

    def end(
        self,
        derived: Derived,
        account: Account,
        pages: Mapping[str, Sequence[Entry[Any]]] | None = None,
    ) -> None:
        """End a derived run; `pages` are its alarms and stages that the rows may not have told."""
        filed = self._filed[derived.uid]
        filed.account, filed.pages = account, pages or {}
        self._worker.end(filed)

    def _derived(self, run_uid: str) -> Derived:
        if run_uid not in self._open:
            raise StoreError(f"run {run_uid} was not opened: call open() before write() or close()")
        return self._open[run_uid]


class _FileClerk:
    """Does the writing, on the thread of a `Worker`."""

    def __init__(
        self, arrays: tuple[str, ...], batch_rows: int, batch_seconds: float, clock: Clock
    ) -> None:
        self.fault = ""
        self._arrays = arrays
        self._batch_rows = batch_rows
        self._batch_seconds = batch_seconds
        self._clock = clock
        self._open: dict[str, _Filed] = {}

    def begin(self, run: _Filed) -> None:
        self._open[run.derived.uid] = run
        self._guard(run, lambda: self._file(run))

    def take(self, run: _Filed, rows: Sequence[Row]) -> None:
        self._open[run.derived.uid] = run
        if not run.buffer:
            run.since = time.monotonic()
        run.buffer.extend(rows)
        if len(run.buffer) >= self._batch_rows:
            self._store(run)

    def end(self, run: _Filed) -> None:
        self._store(run, last=True)
        self._guard(run, lambda: self._stop(run))
        self._open.pop(run.derived.uid, None)

    def flush(self) -> None:
        for run in self._open.values():
            self._store(run)

    def tick(self) -> float | None:
        waits: list[float] = []
        for run in self._open.values():
            if run.buffer and self._left(run) <= 0:
                self._store(run)
            if run.buffer:
                waits.append(max(0.0, self._left(run)))
        return min(waits, default=None)

    def _left(self, run: _Filed) -> float:
        return run.since + self._batch_seconds - time.monotonic()

    def _file(self, run: _Filed) -> RunFile:
        if run.file is None:
            run.file = RunFile(run.path, run.derived, self._arrays)
        run.file.elsewhere = run.elsewhere
        return run.file

    def _store(self, run: _Filed, *, last: bool = False) -> None:
        run.since = time.monotonic()
        if run.buffer:
            self._guard(run, lambda: self._append(run, last))

    def _append(self, run: _Filed, last: bool) -> None:
        file = self._file(run)
        if file.append(run.buffer, last=last):
            run.stored = file.rows
            run.buffer = []

    def _stop(self, run: _Filed) -> None:
        file, account = self._file(run), run.account or Account()
        file.append_notes(run.pages)
        file.end(run.derived.stop(account, file.events(), self._clock()))

    def _guard(self, run: _Filed, action: Callable[[], object]) -> None:
        try:
            action()
        except (
            OSError,
            ValueError,
            TypeError,
            LookupError,
            RuntimeError,
            ValidationError,
        ) as error:
            # h5py raises any but the last, which comes from event-model.
            lost, run.buffer = len(run.buffer), []
            self.fault = f"{run.path} cannot be written ({error}): free or choose another folder"
            if not run.failed:
                logger.error(
                    "%s; %d masks of run %s are lost", self.fault, lost, run.derived.raw.uid
                )
            run.failed = True
