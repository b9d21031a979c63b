"""Targets and sources that are small and real: they count what they are given."""

import json
import os
import threading
import time
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ptychoseg_callbacks.documents import drop_reason
from ptychoseg_callbacks.journals.journal import Journal
from ptychoseg_callbacks.loop import Message, Received, Suspend
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.source import Callback

from ptychoseg_stream.errors import SourceError
from ptychoseg_stream.node.vitals import Vitals


@dataclass
class Counted:
    """What came of one run: the first pixel of each image, in order, or why there is none."""

    raw: str
    derived: str
    resumed: bool
    marks: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    cheap: list[bool] = field(default_factory=list)
    end: str = ""


class CountingTarget:
    """Writes down what it is given; a run that has stopped is stored at once, and its journal goes.

    Parameters
    ----------
    before : callable
        Called before each event, such as something that waits.
    folder : Path, optional
        Gets a file for each run that ended, for the eyes of another process.
    """

    def __init__(
        self, before: Callable[[], None] = lambda: None, folder: Path | None = None
    ) -> None:
        self.heartbeat: Callable[[], None] = lambda: None
        self.before = before
        self.folder = folder
        self.runs: list[Counted] = []
        self.unknown: list[str] = []
        self.most_memory = (0, 0)
        self.was_shut_down = self.was_suspended = False
        self.ticks = 0
        self._open: dict[str, tuple[Counted, Journal | None]] = {}
        self._descriptors: dict[str, str] = {}
        self._stored = 0

    def steps(self, received: Received) -> Generator[None]:
        name, doc = received.name, received.doc
        if name == "start":
            journal = received.journal
            derived = journal.derived if journal else ""
            run = Counted(doc["uid"], derived, journal is not None and journal.resumed)
            self.runs.append(run)
            self._open[doc["uid"]] = run, journal
        uid = doc["uid"] if name == "start" else doc.get("run_start")
        if name == "descriptor":
            self._descriptors[doc["uid"]] = doc["run_start"]
        if uid is None:
            uid = self._descriptors.get(doc.get("descriptor", ""), "")
        if uid not in self._open:
            self.unknown.append(name)
            return
        run, journal = self._open[uid]
        run.names.append(name)
        run.numbers.append(received.number)
        if name == "event":
            self.before()
            run.marks.append(mark_of(doc))
            run.cheap.append(received.teacher_only)
            yield
        if name == "stop":
            self._end(uid, doc["exit_status"])
        self._stored = max(self._stored, received.number)

    def flush(self) -> None:
        pass

    def tick(self) -> None:
        self.ticks += 1

    def stored(self) -> int:
        return self._stored

    def drain(self, timeout: float) -> bool:
        return True

    def vitals(self) -> Vitals:
        return Vitals(open_runs=len(self._open), received=sum(len(r.marks) for r in self.runs))

    def close_open_runs(self, reason: str, spare: Collection[str] = ()) -> None:
        for uid in self._open.keys() - set(spare):
            self._end(uid, reason)

    def suspend(self) -> None:
        self.was_suspended = True
        self._open.clear()

    def shutdown(self) -> None:
        self.was_shut_down = True

    def _end(self, uid: str, how: str) -> None:
        run, journal = self._open.pop(uid)
        run.end = how
        if self.folder is not None:
            told = {"raw": run.raw, "marks": run.marks, "resumed": run.resumed, "end": how}
            part = self.folder / f"{run.derived or run.raw}.part"
            part.write_text(json.dumps(told))
            part.rename(part.with_suffix(".counted"))
        if journal is not None:
            journal.finish()


def mark_of(doc: Any) -> Any:
    """Return the first pixel of the image of an event, or why there is none."""
    for value in doc["data"].values():
        if drop_reason(value):
            return drop_reason(value)
        if isinstance(value, np.ndarray):
            return int(value.flat[0])
    return None


def counted(folder: Path) -> list[Any]:
    """Return what `CountingTarget` left of the runs that ended, as it was told."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.counted"))]


class HeldByFile:
    """Waits while a file exists, or dies at the n-th call."""

    def __init__(self, folder: Path, die_at: int = -1) -> None:
        self.hold = folder / "hold"
        self.died = folder / "died"
        self.die_at = die_at
        self.calls = 0

    def __call__(self) -> None:
        while self.hold.exists():
            time.sleep(0.01)
        if self.calls == self.die_at and not self.died.exists():
            self.died.touch()
            os.kill(os.getpid(), 9)
        self.calls += 1


def documents(uid: str, frames: int, size: int = 16, first: int = 0) -> list[tuple[str, Any]]:
    """Return the documents of a run with inline images; pixel (0, 0) is the number of the frame."""
    docs: list[tuple[str, Any]] = [
        ("start", {"uid": uid, "time": 1.0}),
        ("descriptor", {"uid": f"{uid}-d", "run_start": uid, "name": "primary", "data_keys": {}}),
    ]
    for n in range(first, first + frames):
        image = np.zeros((size, size), np.uint16)
        image[0, 0] = n
        event = {
            "uid": f"{uid}-e{n}",
            "descriptor": f"{uid}-d",
            "seq_num": n + 1,
            "data": {"image": image},
            "timestamps": {},
            "time": 2.0 + n,
        }
        docs.append(("event", event))
    stop = {"uid": f"{uid}-s", "run_start": uid, "exit_status": "success"}
    return [*docs, ("stop", stop)]


class Port:
    """An inbox with nobody at the other end but the test."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.reports: list[Vitals] = []
        self.told: list[int] = []
        self.answers: list[tuple[int, bool]] = []
        self.suspend: Suspend | None = None

    def take(self, timeout: float) -> Message | None:
        return self.inbox.take(0.0)

    def ending(self) -> Suspend | None:
        return self.suspend

    def alive(self) -> bool:
        return True

    def waiting(self) -> int:
        return self.inbox.waiting

    def report(self, vitals: Vitals) -> None:
        self.reports.append(vitals)

    def stored(self, number: int) -> None:
        self.told.append(number)

    def drained(self, token: int, complete: bool) -> None:
        self.answers.append((token, complete))


class ListSource:
    """Delivers a list of documents, then ends, fails, or waits until it is told to stop."""

    def __init__(
        self,
        docs: Sequence[tuple[str, Any]],
        redelivers: bool = False,
        error: Exception | None = None,
        waits: bool = False,
    ) -> None:
        self.docs = docs
        self._redelivers = redelivers
        self.error = error
        self.waits = waits
        self.delivered = threading.Event()
        self.numbers: list[int] = []
        self.told: list[int] = []

    @property
    def redelivers(self) -> bool:
        return self._redelivers

    def run(self, callback: Callback, stopping: threading.Event) -> None:
        for name, doc in self.docs:
            self.numbers.append(callback(name, doc))
        self.delivered.set()
        if self.error is not None:
            raise self.error
        if self.waits and not stopping.wait(60):
            raise SourceError("nobody stopped it")

    def stored(self, number: int) -> None:
        self.told.append(number)
