"""Runs a source on a thread of its own, and labels what it delivers on the thread that calls."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

from ptychoseg_stream.errors import SourceError, SourceLost
from ptychoseg_stream.node.guard import Guard
from ptychoseg_stream.node.vitals import Vitals

from .documents import Document
from .loop import Close, Loop, Message, Suspend, Target
from .queueing.inbox import Inbox
from .source import Source

log = logging.getLogger(__name__)

_SOURCE_ENDED = "the source ended before the stop document came"


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """How a feed ends.

    Parameters
    ----------
    stop_timeout : float
        When it is told to stop, what waits is labelled for so long at most [s].
    store_timeout : float
        Then so long is waited for the last masks to be stored [s].
    source_timeout : float
        So long is waited for a source that does not stop [s].
    """

    stop_timeout: float = 10.0
    store_timeout: float = 60.0
    source_timeout: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in ("stop_timeout", "store_timeout", "source_timeout"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} must be 0 or more")


@dataclass(frozen=True, slots=True)
class Fed:
    """What a feed did.

    Parameters
    ----------
    documents : int
        Documents that the source delivered.
    duplicates : int
        Of these, how many had come before.
    resumed : int
        Runs of an earlier process that were gone on with.
    exhausted : bool
        Whether the source came to its end; False when the feed was stopped.
    complete : bool
        Whether all masks are stored.
    vitals : Vitals
        How things stood at the end.
    left : int
        Runs that are open, and wait on disk for the next process.
    """

    documents: int
    duplicates: int
    resumed: int
    exhausted: bool
    complete: bool
    vitals: Vitals
    left: int = 0


def feed(
    target: Target,
    source: Source,
    inbox: Inbox,
    stopping: threading.Event | None = None,
    options: FeedOptions | None = None,
    report: Callable[[Vitals], None] = lambda vitals: None,
) -> Fed:
    """Process what a source delivers until it ends or `stopping` is set.

    When the source ends, all is labelled, and runs without a stop document are closed as failed.
    When it is stopped, or cannot be used, open runs are left to the next process: see `Inbox`. So
    are runs of an earlier process that the source, whether it ends or not, has nothing of.

    Parameters
    ----------
    target : Target
        Used on the thread that calls, and shut down at the end.
    source : Source
        Runs on a thread of its own.
    inbox : Inbox
        Between the two; closed at the end.
    stopping : threading.Event, optional
        Ends the feed early; see `stop_on_signals`.
    options : FeedOptions, optional
        How it ends.
    report : callable
        Told how things stand, on the calling thread.

    Raises
    ------
    SourceError
        If the source cannot be used; after all else was ended cleanly.
    """
    stopping, options = stopping or threading.Event(), options or FeedOptions()
    feeder = _Feeder(source, inbox, stopping, options, report)
    return feeder.run(target)


@contextlib.contextmanager
def stop_on_signals(stopping: threading.Event) -> Generator[None]:
    """Set `stopping` at SIGTERM or Ctrl-C; a second one ends the process as usual.

    Only for the main thread.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]

    def restore() -> None:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

    def stop(number: int, frame: Any) -> None:
        stopping.set()
        restore()

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


class _Feeder:
    """The loop's port, and the thread of the source."""

    def __init__(
        self,
        source: Source,
        inbox: Inbox,
        stopping: threading.Event,
        options: FeedOptions,
        report: Callable[[Vitals], None],
    ) -> None:
        self._source = source
        self._inbox = inbox
        self._stopping = stopping
        self._options = options
        self._told = report
        self._guard = Guard(log)
        self._error: SourceError | None = None
        self._exhausted = False
        self._suspended = False
        self._delivered = 0
        self._vitals = Vitals()
        self._end_at = float("inf")  # s, monotonic
        self._elsewhere = set(inbox.open_runs)  # of an earlier process, and not of this source
        self._thread = threading.Thread(target=self._deliver, name="ptychoseg-source", daemon=True)

    def run(self, target: Target) -> Fed:
        complete, left = False, 0
        try:
            self._thread.start()
            complete = Loop(target, self).run()
        finally:
            self._stopping.set()
            left = len(self._inbox.open_runs)
            self._inbox.close()
            self._thread.join(self._options.source_timeout)
            if self._thread.is_alive():
                log.error("the source did not stop within %.0f s", self._options.source_timeout)
        if self._error is not None:
            raise self._error
        return Fed(
            self._delivered,
            self._inbox.duplicates,
            self._inbox.resumed,
            self._exhausted and not self._suspended,
            complete,
            self._vitals,
            left,
        )

    def take(self, timeout: float) -> Message | None:
        self._look()
        return self._inbox.take(timeout)

    def ending(self) -> Suspend | None:
        self._look()
        return Suspend(self._options.stop_timeout) if time.monotonic() >= self._end_at else None

    def _look(self) -> None:
        # Also when the source has ended: what it left may take hours.
        if self._stopping.is_set() and not self._suspended:
            self._suspended = True
            self._inbox.suspend(self._options.stop_timeout)
            self._end_at = time.monotonic() + self._options.stop_timeout

    def alive(self) -> bool:
        return True

    def waiting(self) -> int:
        return self._inbox.waiting

    def report(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._told(vitals)

    def stored(self, number: int) -> None:
        self._source.stored(number)

    def drained(self, token: int, complete: bool) -> None:
        """Nobody asks."""

    def _deliver(self) -> None:
        done = self._guard.call("read the source", self._read, False)
        if not done and self._error is None:
            self._error = SourceLost(f"the source failed: {self._guard.last}")
        if self._error is None and not self._stopping.is_set():
            self._exhausted = True
            spare = frozenset(self._elsewhere)
            self._inbox.tell(Close(self._options.store_timeout, _SOURCE_ENDED, spare))
        else:
            self._stopping.set()  # the loop suspends

    def _read(self) -> bool:
        # The same command again, after its process was killed: what that had finished comes again.
        redelivered = self._source.redelivers or self._inbox.resumed > 0
        put = partial(self._inbox.put, redelivered=redelivered)

        def callback(name: str, doc: Document) -> int:
            number = put(name, doc)
            self._delivered += 1
            if self._elsewhere:
                self._elsewhere.discard(_run_of(name, doc))
            return number

        try:
            self._source.run(callback, self._stopping)
        except SourceError as error:
            self._error = error
        return True


def _run_of(name: str, doc: Document) -> str:
    """Return the run that a document names; empty if it names none."""
    uid: object = doc.get("uid" if name == "start" else "run_start")
    return uid if isinstance(uid, str) else ""
