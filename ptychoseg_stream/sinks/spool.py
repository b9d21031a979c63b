"""The local spool: what Tiled did not take yet, as files that outlive this process.

::

    <SpoolOptions.masks>/<uid of the derived run>/
        run.json                    what is needed to make its documents, and where it was to go
        rows-<first>-<last>.h5      rows [first, last): a segment, see `segment`
        stop.json                   what became of its frames, once the run is closed
        products.h5                 what it says as a whole, written before that
        lock                        locked for as long as a process owns the folder
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..node.disk import check_free, is_locked, locked, make_folder, sync_folder, write_whole
from ..node.ports import Account, Products, RunInfo
from ..node.spool import SpoolOptions
from .batch import Batch
from .derived import Derived
from .ending import Ending
from .products_file import load_products, save_products
from .segment import save

RUN, STOP, LOCK, PRODUCTS = "run.json", "stop.json", "lock", "products.h5"
DIGITS = 12


@dataclass(frozen=True, slots=True)
class Segment:
    """The file of rows [first, last)."""

    first: int
    last: int
    path: Path


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """A run in the spool.

    Parameters
    ----------
    raw, derived : str
        Uids of the raw and of the derived run.
    rows : int
        Rows that wait.
    closed : bool
        Whether the run ended: nothing will be added.
    path : Path
        Its folder.
    server, container : str
        Where it was to go.
    busy : bool
        Whether a living process owns it, and sends it.
    resumable : bool
        Whether a node goes on with the run: these rows are left to whoever owns its journal.
    """

    raw: str
    derived: str
    rows: int
    closed: bool
    path: Path
    server: str
    container: str
    busy: bool
    resumable: bool


class SpoolFolder:
    """The folder of one run, owned by this process until `release`.

    Parameters
    ----------
    path : Path
        The folder; made if it is not there.

    Raises
    ------
    OSError
        If the disk does not take it, or another process owns it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path)
        self._lock = locked(path / LOCK, os.O_CREAT, patience=0.2)

    def begin(self, derived: Derived, server: str, container: str) -> None:
        """Write down what the run is, once.

        Raises
        ------
        OSError
            If the disk does not take it.
        """
        if (self.path / RUN).exists():
            return
        about = {
            "version": 1,
            "raw": derived.raw.uid,
            "derived": derived.uid,
            "time": derived.time,
            "start": derived.clean(derived.raw.start),
            "processing": derived.clean(derived.raw.processing),
            "server": server,
            "container": container,
        }
        write_whole(self.path / RUN, derived.hide(json.dumps(about, indent=1)).encode())

    def add(self, batch: Batch, min_free: int) -> Path:
        """Write a segment, synced; return its path.

        Raises
        ------
        OSError
            If the disk does not take it, or is too full.
        """
        check_free(self.path, min_free)
        path = self.path / f"rows-{batch.first:0{DIGITS}d}-{batch.last:0{DIGITS}d}.h5"
        save(path, batch)
        return path

    def end(self, ending: Ending, derived: Derived, products: Products | None = None) -> None:
        """Write down how the run ended, and what it says as a whole, synced.

        Raises
        ------
        OSError
            If the disk does not take it.
        """
        if products is not None:
            save_products(self.path / PRODUCTS, products)
        told = json.dumps(asdict(ending), indent=1, default=str)
        write_whole(self.path / STOP, derived.hide(told).encode())

    def reopen(self) -> None:
        """Forget how the run ended: its missing rows are coming."""
        (self.path / STOP).unlink(missing_ok=True)
        sync_folder(self.path)

    def segments(self) -> list[Segment]:
        """Return the segments, in order of their rows."""
        return _segments(self.path)

    def derived(self, secret: str) -> Derived:
        """Return the run that is kept here.

        Raises
        ------
        StoreError
            If `run.json` is missing or damaged.
        """
        about = _about(self.path)
        raw = RunInfo(about["raw"], about["start"], about["processing"], about["derived"])
        return Derived(raw, about["derived"], float(about["time"]), secret)

    def target(self) -> tuple[str, str]:
        """Return server and container that the run was to go to."""
        about = _about(self.path)
        return about["server"], about["container"]

    def ending(self) -> Ending | None:
        """Return how the run ended; None if it did not, or was cut off."""
        return _ending(self.path)

    def products(self) -> Products | None:
        """Return what the run says as a whole; None if nothing is kept.

        Raises
        ------
        StoreError
            If it is damaged.
        """
        return load_products(self.path / PRODUCTS)

    def remove(self) -> None:
        """Remove the folder: all is in Tiled. What stands in the way stays."""
        with suppress(OSError):
            (self.path / RUN).unlink(missing_ok=True)  # first: without it, there is no run
            shutil.rmtree(self.path)
            sync_folder(self.path.parent)
        self.release()

    def release(self) -> None:
        """Let go of the folder."""
        handle, self._lock = self._lock, -1
        if handle >= 0:
            os.close(handle)


def leftovers(spool: SpoolOptions) -> Iterator[SpoolFolder]:
    """Yield the folders that dead processes left, now owned by this one.

    A folder whose run has a journal is left alone: a living node is at work on that run, or one to
    come goes on with it, and opens the folder then. Two writers of one run would double its rows.
    """
    kept = _journalled(spool)
    for path in _folders(spool):
        if _resumable(path, kept):
            continue
        try:
            yield SpoolFolder(path)
        except OSError:
            continue  # a living process owns it, or somebody else's files are there


def waiting(spool: SpoolOptions) -> list[WaitingRun]:
    """Return the runs in the spool, oldest first; those that cannot be read are left out."""
    found: list[tuple[float, WaitingRun]] = []
    kept = _journalled(spool)
    for path in _folders(spool):
        try:
            about, ending = _about(path), _ending(path)
        except StoreError:
            continue
        run = WaitingRun(
            str(about["raw"]),
            str(about["derived"]),
            sum(segment.last - segment.first for segment in _segments(path)),
            ending is not None,
            path,
            about["server"],
            about["container"],
            is_locked(path / LOCK),
            _resumable(path, kept),
        )
        found.append((float(about["time"]), run))
    return [run for _, run in sorted(found, key=lambda item: item[0])]


def _folders(spool: SpoolOptions) -> list[Path]:
    if not spool.masks.is_dir():
        return []
    return sorted(path for path in spool.masks.iterdir() if (path / RUN).is_file())


def _journalled(spool: SpoolOptions) -> set[str]:
    """Return raw and derived uids of the runs whose documents are kept."""
    found: set[str] = set()
    for path in spool.runs.glob(f"*/{RUN}"):
        found.add(path.parent.name)
        with suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
            found.add(str(json.loads(path.read_bytes())["raw"]))
    return found


def _resumable(folder: Path, kept: set[str]) -> bool:
    """Whether a node goes on with a run; its derived uid is another one after other settings."""
    with suppress(StoreError):
        return folder.name in kept or str(_about(folder)["raw"]) in kept
    return False


def _segments(folder: Path) -> list[Segment]:
    found: list[Segment] = []
    for path in folder.glob("rows-*-*.h5"):
        first, last = path.stem.split("-")[1:3]
        if first.isdecimal() and last.isdecimal():
            found.append(Segment(int(first), int(last), path))
    return sorted(found, key=lambda segment: (segment.first, segment.last))


def _about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / RUN).read_bytes())
        texts = all(isinstance(about[k], str) for k in ("raw", "derived", "server", "container"))
        if texts and isinstance(about["start"], dict) and about["derived"] == folder.name:
            return {**about, "time": float(about["time"]), "processing": dict(about["processing"])}
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise StoreError(f"{folder / RUN} cannot be read ({error}): move {folder} away") from error
    raise StoreError(f"{folder / RUN} is not that of a run: move {folder} away")


def _ending(folder: Path) -> Ending | None:
    path = folder / STOP
    if not path.exists():
        return None
    try:
        told = json.loads(path.read_bytes())
        return Ending(Account(**told["account"]), float(told["time"]), dict(told["counts"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read ({error}): remove it") from error
