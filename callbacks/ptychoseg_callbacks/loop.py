"""What a worker does, on a thread or in a process of its own: take documents, label, report."""

import logging
import time
from collections.abc import Callable, Collection, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeAlias

from ptychoseg_stream.node.guard import Guard
from ptychoseg_stream.node.vitals import Vitals

from .documents import Document
from .journals.journal import Journal

log = logging.getLogger(__name__)

_PERIOD = 0.1  # s between two reports, and how long an idle worker sleeps
_BUSY_TICK = 1.0  # s between two ticks while documents are waiting
_DRAIN_SLICE = 0.05  # s that storing may take before documents are looked at again


@dataclass(frozen=True, slots=True)
class Received:
    """A document on its way to the target.

    Parameters
    ----------
    name, doc
        Any Bluesky document.
    arrived : float
        When it was received [s since the epoch].
    number : int
        Counted from 1 over all that one process received, without holes of its own making;
        0: an earlier process received it.
    journal : Journal, optional
        Of its run, where there is one.
    teacher_only : bool
        Whether more is waiting than the profile allows: its frames take the cheaper path.
    """

    name: str
    doc: Document
    arrived: float
    number: int = 0
    journal: Journal | None = None
    teacher_only: bool = False


@dataclass(frozen=True, slots=True)
class Drain:
    """Answer `token` when all documents before this are stored, or after `timeout` [s]."""

    token: int
    timeout: float


@dataclass(frozen=True, slots=True)
class Close:
    """End, after all documents before this; storing may take `timeout` [s].

    Open runs are closed for `reason`; those whose raw uids are in `spare` are left as they are.
    """

    timeout: float
    reason: str = "the node was closed before the stop document came"
    spare: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Suspend:
    """End, and leave the open runs to the next process; storing may take `timeout` [s]."""

    timeout: float


Message: TypeAlias = Received | Drain | Close | Suspend


class Target(Protocol):
    """Where documents end; `ptychoseg_callbacks.segmentation.Segmentation` is the real one."""

    heartbeat: Callable[[], None]
    """Set by the loop; the target may call it, on the loop's thread, during long work."""

    def steps(self, received: Received) -> Generator[None]:
        """Process one document in steps; closed before its end, it is as if it had not come."""
        ...

    def flush(self) -> None:
        """Finish what waits for more documents."""
        ...

    def tick(self) -> None:
        """Do what is due: called often when idle, about once a second between steps when busy."""
        ...

    def stored(self) -> int:
        """Return a number: all documents up to it are processed, and their rows are safe."""
        ...

    def drain(self, timeout: float) -> bool:
        """Wait until all is stored; False if that took longer than `timeout` [s]."""
        ...

    def vitals(self) -> Vitals:
        """Say how things stand."""
        ...

    def close_open_runs(self, reason: str, spare: Collection[str] = ()) -> None:
        """Close the runs that have not stopped, as failed; not those with raw uids in `spare`."""
        ...

    def suspend(self) -> None:
        """Leave the open runs as they are: the next process goes on with them."""
        ...

    def shutdown(self) -> None:
        """Release all it holds."""
        ...


class Port(Protocol):
    """The loop's way to whoever feeds it."""

    def take(self, timeout: float) -> Message | None:
        """Return the next message, or None if none came within `timeout` [s]."""
        ...

    def ending(self) -> Suspend | None:
        """Return what ends the work at once, within a document and though others wait."""
        ...

    def alive(self) -> bool:
        """Whether there is somebody at the other end."""
        ...

    def waiting(self) -> int:
        """Return the number of documents not processed yet."""
        ...

    def report(self, vitals: Vitals) -> None:
        """Tell how things stand."""
        ...

    def stored(self, number: int) -> None:
        """Tell up to which document all is processed and safe."""
        ...

    def drained(self, token: int, complete: bool) -> None:
        """Answer a `Drain`."""
        ...


class Loop:
    """Feeds a target from a port until it is told to end or nobody is left at the other end.

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
        self._report_due = self._tick_due = monotonic()
        self._reported = ""
        self._stored = 0
        self._drains: list[tuple[int, float]] = []  # token, deadline

    def run(self) -> bool:
        """Work until told to end; return whether all masks are stored."""
        while True:
            message = self._port.take(0.0)
            if message is None:
                self._idle()
                if not self._port.alive():
                    return self._close(Close(60.0, "the process that ran the scan has ended"))
                message = self._port.take(0.0 if self._drains else _PERIOD)
            if isinstance(message, Received):
                ending = self._process(message)
                if ending is not None:
                    return self._suspend(ending)
            elif isinstance(message, Drain):
                self._drains.append((message.token, self._now() + message.timeout))
            elif isinstance(message, Close):
                return self._close(message)
            elif isinstance(message, Suspend):
                return self._suspend(message)

    def _process(self, message: Received) -> Suspend | None:
        if message.name == "start":
            self._guard.renew()
        steps = partial(self._steps, message)
        ending = self._guard.call(f"process a {message.name} document", steps, None)
        self._do_what_is_due()
        return ending

    def _steps(self, message: Received) -> Suspend | None:
        """Process a document; a whole scan may be in it, so it may be broken off."""
        with closing(self._target.steps(message)) as steps:
            for _ in steps:
                self._do_what_is_due()
                ending = self._port.ending()
                if ending is not None:
                    return ending
        return None

    def _do_what_is_due(self) -> None:
        if self._now() >= self._tick_due:
            self._tick()
        self._report_if_due()

    def _tick(self) -> None:
        self._guard.call("do what is due", self._target.tick, None)
        self._tick_due = self._now() + _BUSY_TICK

    def _idle(self) -> None:
        self._guard.call("label the last frames", self._target.flush, None)
        self._tick()
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
        report = f"{self._port.waiting()} {vitals}"  # as text: NaN is not equal to itself
        if report != self._reported:
            self._reported = report
            self._port.report(vitals)
        stored = self._guard.call("say what is stored", self._target.stored, 0)
        if stored > self._stored:
            self._stored = stored
            self._guard.call("tell what is stored", partial(self._port.stored, stored), None)

    def _close(self, message: Close) -> bool:
        close = partial(self._target.close_open_runs, message.reason, message.spare)
        self._guard.call("close the open runs", close, None)
        return self._suspend(message) if message.spare else self._finish(message.timeout)

    def _suspend(self, message: Suspend | Close) -> bool:
        self._guard.call("leave the open runs", self._target.suspend, None)
        return self._finish(message.timeout)

    def _finish(self, timeout: float) -> bool:
        target, call = self._target, self._guard.call
        complete = call("store the last masks", partial(target.drain, timeout), False)
        if not complete:
            log.error("masks are still not stored after %.0f s; giving up: see the sink", timeout)
        self._tick()  # journals of runs that are stored now are finished
        self._report()
        call("shut down", target.shutdown, None)
        for token, _ in self._drains:
            self._port.drained(token, complete)
        return complete
