"""What a worker does, on a thread or in a process of its own: take documents, label, report."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeAlias

from ptychoseg_stream.node.vitals import Vitals

from .documents import Document
from .guard import Guard

log = logging.getLogger(__name__)

_PERIOD = 0.1  # s between two reports, and how long an idle worker sleeps
_DRAIN_SLICE = 0.05  # s that storing may take before documents are looked at again


class Target(Protocol):
    """Where documents end; `ptychoseg_callbacks.segmentation.Segmentation` is the real one."""

    heartbeat: Callable[[], None]
    """Set by the loop; the target may call it, on the loop's thread, during long work."""

    def steps(self, name: str, doc: Document, arrived: float | None = None) -> Iterator[None]:
        """Process one document in steps."""
        ...

    def flush(self) -> None:
        """Finish what waits for more documents."""
        ...

    def drain(self, timeout: float) -> bool:
        """Wait until all is stored; False if that took longer than `timeout` [s]."""
        ...

    def vitals(self) -> Vitals:
        """Say how things stand."""
        ...

    def close_open_runs(self, reason: str) -> None:
        """Close the runs that have not stopped, as failed."""
        ...

    def shutdown(self) -> None:
        """Release all it holds."""
        ...


@dataclass(frozen=True, slots=True)
class Received:
    """A document and when it arrived [s since the epoch]."""

    name: str
    doc: Document
    arrived: float


@dataclass(frozen=True, slots=True)
class Drain:
    """Answer `token` when all documents before this are stored, or after `timeout` [s]."""

    token: int
    timeout: float


@dataclass(frozen=True, slots=True)
class Close:
    """End, after all documents before this; storing may take `timeout` [s]."""

    timeout: float


Message: TypeAlias = Received | Drain | Close


class Port(Protocol):
    """The loop's way to the worker that feeds it."""

    def take(self, timeout: float) -> Message | None:
        """Return the next message, or None if none came within `timeout` [s]."""
        ...

    def alive(self) -> bool:
        """Whether there is somebody at the other end."""
        ...

    def report(self, vitals: Vitals, processed: int) -> None:
        """Tell how things stand and how many documents were processed so far."""
        ...

    def drained(self, token: int, complete: bool) -> None:
        """Answer a `Drain`."""
        ...


class Loop:
    """Feeds a target from a port until it is told to close or nobody is left at the other end.

    A document that makes the target raise is logged and counted; the next one is still processed.

    Parameters
    ----------
    target : Target
        Used by the thread that calls `run`, and by no other.
    port : Port
        Where messages come from and reports go to.
    monotonic : callable
        Seconds of a clock that never jumps.
    """

    def __init__(
        self, target: Target, port: Port, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._target = target
        target.heartbeat = self._report_if_due
        self._port = port
        self._now = monotonic
        self._guard = Guard(log)
        self._processed = 0
        self._report_due = monotonic()
        self._reported = ""
        self._drains: list[tuple[int, float]] = []  # token, deadline

    def run(self) -> None:
        """Work until closed."""
        while True:
            message = self._port.take(0.0)
            if message is None:
                self._idle()
                if not self._port.alive():
                    self._finish("the process that ran the scan has ended", timeout=60.0)
                    return
                message = self._port.take(0.0 if self._drains else _PERIOD)
            if isinstance(message, Received):
                self._process(message)
            elif isinstance(message, Drain):
                self._drains.append((message.token, self._now() + message.timeout))
            elif isinstance(message, Close):
                self._finish("the node was closed before the stop document came", message.timeout)
                return

    def _process(self, message: Received) -> None:
        if message.name == "start":
            self._guard.renew()
        self._guard.call(f"process a {message.name} document", partial(self._steps, message), None)
        self._processed += 1
        self._report_if_due()

    def _steps(self, message: Received) -> None:
        for _ in self._target.steps(message.name, message.doc, message.arrived):
            self._report_if_due()

    def _idle(self) -> None:
        self._guard.call("label the last frames", self._target.flush, None)
        self._report_if_due()
        if not self._drains:
            return
        complete = self._guard.call("store masks", partial(self._target.drain, _DRAIN_SLICE), False)
        self._answer_drains(complete)

    def _answer_drains(self, complete: bool) -> None:
        now = self._now()
        answered = [each for each in self._drains if complete or now >= each[1]]
        if answered:
            self._report()
        for token, deadline in answered:
            self._port.drained(token, complete)
            self._drains.remove((token, deadline))

    def _report_if_due(self) -> None:
        if self._now() >= self._report_due:
            self._report()

    def _report(self) -> None:
        self._report_due = self._now() + _PERIOD
        vitals = self._guard.call("say how things stand", self._target.vitals, Vitals())
        vitals = replace(vitals, fault=vitals.fault or self._guard.last)
        report = f"{self._processed} {vitals}"  # as text: NaN is not equal to itself
        if report != self._reported:
            self._reported = report
            self._port.report(vitals, self._processed)

    def _finish(self, reason: str, timeout: float) -> None:
        target, call = self._target, self._guard.call
        call("close the open runs", partial(target.close_open_runs, reason), None)
        complete = call("store the last masks", partial(target.drain, timeout), False)
        if not complete:
            log.error("masks are still not stored after %.0f s; giving up: see the sink", timeout)
        call("shut down", target.shutdown, None)
        self._report()
        for token, _ in self._drains:
            self._port.drained(token, complete)
