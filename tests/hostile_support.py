"""What the hostile corpus stands on: cases, a run to be spoiled, and what gives a break-in away."""

import contextlib
import ctypes
import itertools
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychoseg_stream.sim import GoldBalls, simulate

Group: TypeAlias = Literal[
    "documents", "frames", "files", "bytes", "pairs", "recordings", "journals", "spool", "profiles"
]
Named: TypeAlias = tuple[Any, Any]

SIDE = 104
DROP = object()
"""As the value of a key: the document comes without it."""
KEY: dict[str, Any] = {
    "source": "corpus",
    "dtype": "array",
    "dtype_numpy": "<u2",
    "shape": [SIDE, SIDE],
}


@dataclass(frozen=True)
class Case:
    """One malformed input.

    Parameters
    ----------
    name : str
        What is wrong, in words; the id of its test.
    group : str
        By which way it comes in.
    feed : callable
        Takes a `Stage` and lets the input loose on it.
    masks : int
        Masks that the spoiled runs get all the same: the frames before it and behind it.
    imbalance : str
        What the account of a spoiled run says where it cannot balance; empty: it balances.
    memory : int
        What it may take more [bytes]; the default, but where a limit of ours is higher.
    live_only : bool
        Whether only a RunEngine in this process can send it: nothing that travels is like that.
    """

    name: str
    group: Group
    feed: Callable[["Stage"], None]
    masks: int = 2
    imbalance: str = ""
    live_only: bool = False
    memory: int = 512 << 20


@cache
def images() -> NDArray[np.uint16]:
    """Return frames with a ring; what is labelled of them can only come from them."""
    return simulate(GoldBalls(n_frames=4)).frames


@dataclass
class Stage:
    """Where a case plays.

    Parameters
    ----------
    send : callable
        ``send(name, doc)``: the way into the node.
    root : Path
        The one folder that files may be read from.
    outside : Path
        Another one, with frames that nobody may see.
    raw : callable
        Takes bytes, where the way in is one of bytes.
    kept : Path
        What the node keeps on disk of a run that it was killed in.
    """

    send: Callable[[Any, Any], Any]
    root: Path
    outside: Path
    raw: Callable[..., Any] = lambda data: None
    kept: Path = Path()
    made: Iterator[int] = field(default_factory=itertools.count)

    @property
    def executed(self) -> Path:
        """A folder that is there once somebody's code was run."""
        return self.outside / "executed"

    def run(self, uid: Any = "spoiled") -> "Run":
        """Return a run that a case may spoil."""
        return Run(uid, self)

    def path(self, suffix: str) -> Path:
        """Return the name of a new file below the root."""
        return self.root / f"file-{next(self.made)}{suffix}"

    def bomb(self) -> "Bomb":
        """Return an object whose pickle runs code when it is loaded."""
        return Bomb(self.executed)


class Bomb:
    """Makes a folder when its pickle is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


class Run:
    """Documents of one run, written by hand; each can be changed key by key."""

    def __init__(self, uid: Any, stage: Stage) -> None:
        self.uid = uid
        self.stage = stage
        self.events = 0
        self.rows = 0

    def start(self, **changes: Any) -> Named:
        return "start", _changed({"uid": self.uid, "time": 1.0, "scan_id": 1}, changes)

    def descriptor(self, key: Any = None, **changes: Any) -> Named:
        doc = {
            "uid": "descriptor",
            "run_start": self.uid,
            "name": "primary",
            "time": 1.0,
            "data_keys": {"image": key or KEY},
        }
        return "descriptor", _changed(doc, changes)

    def event(self, image: Any = None, **changes: Any) -> Named:
        """Return the next event; with a good image unless another one is given."""
        self.events += 1
        good = images()[self.events % len(images())]
        doc = {
            "uid": f"event {self.events}",
            "descriptor": "descriptor",
            "seq_num": self.events,
            "time": 2.0,
            "data": {"image": good if image is None else image},
            "timestamps": {"image": 2.0},
            "filled": {"image": True},
        }
        return "event", _changed(doc, changes)

    def stop(self, **changes: Any) -> Named:
        doc = {
            "uid": "stop",
            "run_start": self.uid,
            "time": 3.0,
            "exit_status": "success",
            "num_events": {"primary": self.events},
        }
        return "stop", _changed(doc, changes)

    def resource(self, uid: str, uri: Any, mimetype: str = "", **parameters: Any) -> Named:
        doc = {
            "uid": uid,
            "run_start": self.uid,
            "data_key": "image",
            "mimetype": mimetype or "application/x-hdf5",
            "uri": uri if isinstance(uri, str) else uri.as_uri(),
            "parameters": {"dataset": "/frames", "chunk_shape": [1, SIDE, SIDE], **parameters},
        }
        return "stream_resource", doc

    def datum(self, resource: str, start: Any, stop: Any, events: int = 1, **more: Any) -> Named:
        """Return the announcement of events whose frames are in a file."""
        first = self.events + 1
        self.events += events
        doc = {
            "uid": f"{resource}/{first}",
            "stream_resource": resource,
            "descriptor": "descriptor",
            "indices": {"start": start, "stop": stop},
            "seq_nums": {"start": first, "stop": first + events},
        }
        return "stream_datum", _changed(doc, more)

    def send(self, *documents: Named) -> None:
        for name, doc in documents:
            self.stage.send(name, doc)

    def begin(self) -> None:
        self.send(self.start(), self.descriptor())

    def good(self) -> None:
        self.send(self.event())

    def end(self) -> None:
        self.send(self.stop())


def _changed(doc: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**doc, **changes}.items() if value is not DROP}


def good_run(stage: Stage, uid: str = "good") -> None:
    """Send a run with which nothing is wrong: three frames."""
    run = stage.run(uid)
    names = {"uid": f"{uid} descriptor"}
    run.send(run.start(), run.descriptor(**names))
    for _ in range(3):
        run.send(run.event(descriptor=names["uid"]))
    run.end()


def write_frames(path: Path, frames: Any = None, name: str = "frames", **options: Any) -> Path:
    """Write a file as a detector does; by default with good frames."""
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset(name, data=images() if frames is None else frames, **options)
    return path


_IN_ACCESS, _IN_OPEN, _IN_NONBLOCK = 0x1, 0x20, 0o4000


class Watch:
    """Tells whether files of a folder were opened or read, by whatever library."""

    def __init__(self, folder: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.inotify_init1(_IN_NONBLOCK)
        path = os.fsencode(folder)
        if self._libc.inotify_add_watch(self._fd, path, _IN_OPEN | _IN_ACCESS) < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch {folder}")

    def touched(self) -> list[str]:
        """Return the names of the files that were opened since the last call."""
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return []
        names: list[str] = []
        while data:
            length = int.from_bytes(data[12:16], "little")
            names.append(data[16 : 16 + length].rstrip(b"\0").decode())
            data = data[16 + length :]
        return sorted({name for name in names if name})

    def close(self) -> None:
        os.close(self._fd)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@dataclass
class Memory:
    """How much more memory was used at once than before [bytes]."""

    peak: int = 0


@contextlib.contextmanager
def bounded_memory(limit: int = 3 << 30) -> Iterator[Memory]:
    """Let nobody reserve more than `limit` bytes beyond what is taken; measure what is used."""
    memory = Memory()
    before = resource.getrlimit(resource.RLIMIT_AS)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    used = _status("VmRSS")
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + limit, before[1]))
    try:
        yield memory
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        memory.peak = _status("VmHWM") - used
