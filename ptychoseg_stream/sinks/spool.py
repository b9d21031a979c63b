"""The local spool: what Tiled did not take yet, as files that outlive this process.

::

    <SpoolOptions.masks>/<uid of the derived run>/
        run.json                    what is needed to make its documents, and where it was to go
        rows-<first>-<last>.h5      rows [first, last): a segment, see `segment`
        stop.json                   what became of its frames, once the run is closed
        lock                        locked for as long as a process owns the folder
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..node.ports import Account, RunInfo
from ..node.spool import SpoolOptions
from .batch import Batch
from .derived import Derived
from .durable import make_folder, put, require_space, sync
from .segment import save

RUN, STOP, LOCK = "run.json", "stop.json", "lock"
DIGITS = 12


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended.

    Parameters
    ----------
    account : Account
        What became of its frames.
    time : float
        When it ended [s since the epoch].
    counts : mapping of str to int
        What the sink counted itself; "dropped" when rows are missing.
    """

    account: Account
    time: float
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all rows were taken."""
        return not self.counts.get("dropped", 0)


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
    target : str
        Where it was to go: server and container.
    busy : bool
        Whether a living process owns it, and sends it.
    """

    raw: str
    derived: str
    rows: int
    closed: bool
    path: Path
    target: str
    busy: bool


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
        self._lock = _locked(path / LOCK)

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
        put(self.path / RUN, derived.hide(json.dumps(about, indent=1)).encode())

    def add(self, batch: Batch, min_free: int) -> Path:
        """Write a segment, synced; return its path.

        Raises
        ------
        OSError
            If the disk does not take it, or is too full.
        """
        require_space(self.path, min_free)
        path = self.path / f"rows-{batch.first:0{DIGITS}d}-{batch.last:0{DIGITS}d}.h5"
        save(path, batch)
        return path

    def end(self, ending: Ending, derived: Derived) -> None:
        """Write down how the run ended, synced.

        Raises
        ------
        OSError
            If the disk does not take it.
        """
        told = json.dumps(asdict(ending), indent=1, default=str)
        put(self.path / STOP, derived.hide(told).encode())

    def reopen(self) -> None:
        """Forget how the run ended: its missing rows are coming."""
        (self.path / STOP).unlink(missing_ok=True)
        sync(self.path)

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

    def remove(self) -> None:
        """Remove the folder: all is in Tiled. What stands in the way stays."""
        with suppress(OSError):
            (self.path / RUN).unlink(missing_ok=True)  # first: without it, there is no run
            shutil.rmtree(self.path)
            sync(self.path.parent)
        self.release()

    def release(self) -> None:
        """Let go of the folder."""
        handle, self._lock = self._lock, -1
        if handle >= 0:
            os.close(handle)


def leftovers(spool: SpoolOptions) -> Iterator[SpoolFolder]:
    """Yield the folders that dead processes left, now owned by this one."""
    for path in _folders(spool):
        try:
            yield SpoolFolder(path)
        except OSError:
            continue  # a living process owns it, or somebody else's files are there


def waiting(spool: SpoolOptions) -> list[WaitingRun]:
    """Return the runs in the spool, oldest first; those that cannot be read are left out."""
    found: list[tuple[float, WaitingRun]] = []
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
            f"{about['server']} {about['container']}",
            _busy(path / LOCK),
        )
        found.append((float(about["time"]), run))
    return [run for _, run in sorted(found, key=lambda item: item[0])]


def _folders(spool: SpoolOptions) -> list[Path]:
    if not spool.masks.is_dir():
        return []
    return sorted(path for path in spool.masks.iterdir() if (path / RUN).is_file())


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


def _locked(path: Path) -> int:
    """Return a handle that holds the lock.

    Raises
    ------
    OSError
        If another process holds it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_ino != path.stat().st_ino:  # removed by its owner meanwhile
            raise BlockingIOError(f"{path} was removed by another process")
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise BlockingIOError(f"{path.parent} belongs to another process") from error
        raise
    return handle


def _busy(path: Path) -> bool:
    try:
        handle = _locked(path)
    except OSError:
        return True
    os.close(handle)
    return False
