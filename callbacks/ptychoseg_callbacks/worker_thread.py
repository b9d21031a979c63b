"""A worker on a thread of the RunEngine's own process: for tutorials and tests.

Python runs one thread at a time, so labelling in a thread slows a fast scan down; a beamline uses
`ptychoseg_callbacks.worker_process.ProcessWorker`.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from ptychoseg_stream.errors import PtychosegError
from ptychoseg_stream.node.ports import Clock
from ptychoseg_stream.node.vitals import Vitals

from .documents import Document, copied
from .guard import Guard
from .loop import Close, Drain, Loop, Message, Received, Target
from .worker import Backlog, Tickets, WorkerOptions

log = logging.getLogger(__name__)


class ThreadWorker:
    """Copies documents at once and has a thread process them.

    Parameters
    ----------
    build : callable
        Makes the target; called on the thread, which is then the only one that uses the target.
    options : WorkerOptions
        What it may use.
    clock : callable
        Seconds since the epoch: when a document arrived.
    """

    def __init__(
        self,
        build: Callable[[], Target],
        options: WorkerOptions | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._build = build
        self._clock = clock
        self._backlog = Backlog((options or WorkerOptions()).max_bytes)
        self._tickets = Tickets()
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._vitals = Vitals()
        self._lost = 0
        self._closed = False
        self._ended = threading.Event()
        # A daemon: a hanging labeller must not keep Python from exiting; `Ingress` drains at exit.
        self._thread = threading.Thread(target=self._run, name="ptychoseg-worker", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Documents that could not be processed."""
        return self._lost

    def submit(self, name: str, doc: Document) -> None:
        """Queue a copy of a document.

        Raises
        ------
        PtychosegError
            After `close`.
        """
        if self._closed:
            raise PtychosegError("the node was closed: attach a new one to the RunEngine")
        if self._ended.is_set():
            self._lost += 1
            return
        fitting, size = self._backlog.fit(name, doc)
        message = Received(name, copied(fitting), self._clock())
        self._backlog.add(size)
        self._queue.put(message)

    def vitals(self) -> Vitals:
        """Return the last report, at most 0.1 s old unless a batch takes longer."""
        return replace(self._vitals, backlog=self._vitals.backlog + len(self._backlog))

    def drain(self, timeout: float) -> bool:
        """Wait until all is processed and stored; False if that took longer than `timeout` [s]."""
        token = self._tickets.issue()
        self._queue.put(Drain(token, timeout))
        if self._ended.is_set():
            return False
        return self._tickets.wait(token, timeout)

    def close(self, timeout: float) -> None:
        """Process and store what is queued, for `timeout` [s] at most, and end the thread."""
        self._closed = True
        self._queue.put(Close(timeout))
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.error(
                "the worker thread did not end within %.0f s; %d documents are not processed",
                timeout,
                len(self._backlog),
            )

    def _run(self) -> None:
        guard = Guard(log)
        target = guard.call("build the node; all documents are ignored", self._build, None)
        if target is None:
            self._vitals = Vitals(fault=guard.last)
        else:
            Loop(target, _QueuePort(self._queue, self._report, self._tickets)).run()
        self._ended.set()
        self._lost += self._backlog.clear()
        self._tickets.answer_all()

    def _report(self, vitals: Vitals, processed: int) -> None:
        self._vitals = vitals
        self._backlog.done(processed)


class _QueuePort:
    """The loop's end of the queue."""

    def __init__(
        self,
        messages: queue.SimpleQueue[Message],
        heard: Callable[[Vitals, int], None],
        tickets: Tickets,
    ) -> None:
        self._queue = messages
        self._heard = heard
        self._tickets = tickets

    def take(self, timeout: float) -> Message | None:
        try:
            return self._queue.get(timeout=timeout) if timeout else self._queue.get_nowait()
        except queue.Empty:
            return None

    def alive(self) -> bool:
        return True  # a thread does not outlive its process

    def report(self, vitals: Vitals, processed: int) -> None:
        self._heard(vitals, processed)

    def drained(self, token: int, complete: bool) -> None:
        self._tickets.answer(token, complete)
