"""A sink that writes one HDF5 file per run, where there is no server: for files to be passed on.

::

    /                attributes: class_codes, bit_legend (JSON), raw_run
    /start, /stop    documents (JSON)
    /mask ...        see `segment`; row i is frame i of the raw run
    /products        see `products`
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py

from ..errors import StoreError
from ..node.ports import Account, Clock, Products, RunInfo
from ..science.frame import Mask, bit_legend, legend
from .arrays import DEFAULT
from .batch import make_batch
from .derived import STREAM, Derived
from .products_file import put_products
from .rows import Intake, Row, Shape, run_shape
from .segment import TEXT, append
from .side_tables import SIDE_TABLES, Notebook


@dataclass(slots=True, eq=False)
class _File:
    derived: Derived
    path: Path
    intake: Intake = field(default_factory=Intake)
    notebook: Notebook = field(default_factory=Notebook)
    waiting: list[Row] = field(default_factory=list[Row])  # no frame had a size yet
    shape: Shape | None = None
    events: dict[str, int] = field(default_factory=lambda: {STREAM: 0})
    closed: bool = False


class HDF5Sink:
    """Writes the masks of each run to ``<folder>/<uid of the derived run>.h5``, at once.

    Parameters
    ----------
    folder : Path or str
        Where files go; made on demand.
    arrays : sequence of str
        What to store: "mask", and any other of `arrays.ARRAYS`.
    clock : Clock
        Time of documents and rows.

    Raises
    ------
    StoreError
        All that write: if the disk does not take it, or the run is not open.
    """

    def __init__(
        self, folder: Path | str, *, arrays: Sequence[str] = DEFAULT, clock: Clock = time.time
    ) -> None:
        self._folder = Path(folder).expanduser()
        self._arrays = tuple(arrays)
        self._clock = clock
        self._files: dict[str, _File] = {}

    def open(self, run: RunInfo) -> None:
        """Begin a run."""
        derived = Derived.of(run, self._clock)
        file = _File(derived, self._folder / f"{derived.uid}.h5")
        self._files[run.uid] = file
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with h5py.File(file.path, "w") as target:
                target.attrs["class_codes"] = json.dumps(legend())
                target.attrs["bit_legend"] = json.dumps(bit_legend())
                target.attrs["raw_run"] = run.uid
                # A dataset, since an attribute holds 64 kB at most.
                target.create_dataset("start", data=json.dumps(derived.start()), dtype=TEXT)
        except OSError as error:
            raise _refused(file, error) from error

    def write(self, run_uid: str, masks: Sequence[Mask]) -> None:
        """Take the next masks of a run."""
        file, now = self._file(run_uid), self._clock()
        rows = [Row(mask, now) for mask in masks]
        file.notebook.take(rows)
        fresh = [ordered for row in rows for ordered in file.intake.take(row)]
        file.shape = file.shape or run_shape(fresh)
        file.waiting += fresh
        self._store(file)

    def publish(self, run_uid: str, products: Products) -> None:
        """Take what a run says as a whole, in place of what it said before."""
        file = self._file(run_uid)
        try:
            with h5py.File(file.path, "a") as target:
                put_products(target, products)
        except (OSError, RuntimeError) as error:
            raise _refused(file, error) from error

    def close(self, run_uid: str, account: Account) -> None:
        """End a run."""
        file = self._file(run_uid)
        self._store(file, last=True)
        stop = file.derived.stop(account, file.events, self._clock(), repeated=file.intake.repeated)
        with h5py.File(file.path, "a") as target:
            target.create_dataset("stop", data=json.dumps(stop), dtype=TEXT)
        file.closed = True

    def stored(self, run_uid: str) -> int:
        """Return how many rows of a run are in its file."""
        file = self._files.get(run_uid)
        return 0 if file is None else file.events[STREAM]

    def settled(self, run_uid: str) -> bool:
        """Return whether a run is closed; True if it is not known."""
        file = self._files.get(run_uid)
        return file is None or file.closed

    def address(self, run_uid: str) -> str:
        """Return the path of a run's file; empty if unknown."""
        file = self._files.get(run_uid)
        return "" if file is None else str(file.path)

    def fault(self) -> str:
        """Return nothing: what goes wrong is raised."""
        return ""

    def drain(self, timeout: float) -> bool:
        """Return True: nothing is ever waiting."""
        return True

    def shutdown(self) -> None:
        """Do nothing: there is nothing to release."""

    def _file(self, run_uid: str) -> _File:
        file = self._files.get(run_uid)
        if file is None or file.closed:
            raise StoreError(f"run {run_uid} is not open: call open() before write() or close()")
        return file

    def _store(self, file: _File, *, last: bool = False) -> None:
        if file.shape is None and last:
            file.shape = (1, 1)
        if file.shape is None:
            return
        rows, file.waiting = file.waiting, []
        notes = {name: page for name, page in file.notebook.tear_off().items() if page}
        if not rows and not notes:
            return
        first = file.intake.next - len(rows)
        batch = make_batch(first, rows, file.shape, self._arrays, notes)
        try:
            with h5py.File(file.path, "a") as target:
                append(target, batch)
        except (OSError, RuntimeError) as error:
            raise _refused(file, error) from error
        file.events[STREAM] += len(rows)
        for name in SIDE_TABLES:
            if name in batch.notes:
                file.events[name] = file.events.get(name, 0) + batch.notes[name].num_rows


def _refused(file: _File, error: Exception) -> StoreError:
    return StoreError(f"{file.path} cannot be written ({error}): free or choose another folder")
