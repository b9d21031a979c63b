"""A worker on threads of the RunEngine's own process: for tutorials and tests.

Python runs one thread at a time, so labelling in a thread slows a fast scan down; a beamline uses
`ptychoseg_callbacks.workers.process.ProcessWorker`.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from ptychoseg_stream.errors import PtychosegError
from ptychoseg_stream.node.guard import Guard
from ptychoseg_stream.node.ports import Clock
from ptychoseg_stream.node.vitals import Vitals

from ..documents import Document, copied
from ..loop import Close, Drain, Loop, Message, Received, Suspend, Target
from ..queueing.inbox import Inbox
from .worker import Handover, Tickets, WorkerOptions

log = logging.getLogger(__name__)


class ThreadWorker:
    """Copies documents at once; one thread writes them down, another one processes them.

    Parameters
    ----------
    build : callable
        Makes the target; called on the thread that is then the only one to use the target.
    options : WorkerOptions
        What it may use.
    clock : callable
        Seconds since the epoch: when a document arrived.
    inbox : callable
        Makes the inbox, on that thread, too; one that reads earlier runs `later` lets nobody wait
        meanwhile. Default: one without journals.
    """

    def __init__(
        self,
        build: Callable[[], Target],
        options: WorkerOptions | None = None,
        clock: Clock = time.time,
        inbox: Callable[[], Inbox] = Inbox,
    ) -> None:
        self._build = build
        self._make_inbox = inbox
        self._clock = clock
        self._handover = Handover((options or WorkerOptions()).max_bytes)
        self._tickets = Tickets()
        # RunEngine -> receiver; unbounded in time, so that nobody waits, and counted in memory.
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._inbox: Inbox | None = None
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
        return self._lost + (self._inbox.lost if self._inbox else 0)

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
        fitting, size = self._handover.fit(name, doc)
        message = Received(name, copied(fitting), self._clock())
        self._handover.add(size)
        self._queue.put(message)

    def vitals(self) -> Vitals:
        """Return the last report, at most 0.1 s old unless a batch takes longer."""
        waiting = len(self._handover) + (self._inbox.waiting if self._inbox else 0)
        return replace(self._vitals, backlog=self._vitals.backlog + waiting)

    def drain(self, timeout: float) -> bool:
        """Wait until all is processed and stored; False if that took longer than `timeout` [s]."""
        token = self._tickets.issue()
        self._queue.put(Drain(token, timeout))
        if self._ended.is_set():
            self._tickets.answer(token, False)
        return self._tickets.wait(token, timeout)

    def close(self, timeout: float) -> None:
        """Process and store what is queued, for `timeout` [s] at most, and end the threads."""
        self._closed = True
        self._queue.put(Close(timeout))
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.error(
                "the worker thread did not end within %.0f s; %d documents are not processed",
                timeout,
                self.vitals().backlog,
            )

    def _run(self) -> None:
        guard = Guard(log)
        target = guard.call("build the node; all documents are ignored", self._build, None)
        if target is None:
            self._vitals = Vitals(fault=guard.last)
        else:
            self._inbox = guard.call("open the journals", self._make_inbox, None) or Inbox()
            receiver = threading.Thread(
                target=self._receive, args=(self._inbox,), name="ptychoseg-receiver", daemon=True
            )
            receiver.start()
            self._inbox.recover()
            Loop(target, _InboxPort(self._inbox, self._report, self._tickets)).run()
            receiver.join()
            self._inbox.close()
        self._ended.set()
        self._lost += self._handover.clear()
        self._tickets.answer_all()

    def _receive(self, inbox: Inbox) -> None:
        while True:
            message = self._queue.get()
            if isinstance(message, Received):
                inbox.put(message.name, message.doc, message.arrived)
                self._handover.done()
            elif isinstance(message, Drain | Close):
                inbox.tell(message)
                if isinstance(message, Close):
                    return

    def _report(self, vitals: Vitals) -> None:
        self._vitals = vitals


class _InboxPort:
    """The loop's end of the inbox."""

    def __init__(self, inbox: Inbox, heard: Callable[[Vitals], None], tickets: Tickets) -> None:
        self._inbox = inbox
        self._heard = heard
        self._tickets = tickets

    def take(self, timeout: float) -> Message | None:
        return self._inbox.take(timeout)

    def ending(self) -> Suspend | None:
        return None  # whoever closes it waits for all that was sent

    def alive(self) -> bool:
        return True  # a thread does not outlive its process

    def waiting(self) -> int:
        return self._inbox.waiting

    def report(self, vitals: Vitals) -> None:
        self._heard(vitals)

    def stored(self, number: int) -> None:
        """Nobody asks: the RunEngine does not deliver again."""

    def drained(self, token: int, complete: bool) -> None:
        self._tickets.answer(token, complete)
