"""A worker in a process of its own: what labelling costs, or breaks, does not touch the RunEngine.

The parent sends documents, the child sends reports, both as msgpack through ZMQ sockets in a folder
that only this user can enter. ZMQ sends from a thread of its own that needs no GIL.
`multiprocessing` is not used: it would run a user's script again when `attach` is at its top level.

The child writes documents down and says so; until then they are kept here. When it dies, a new one
goes on with what the dead one has written, and is sent what was kept.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ptychoseg_stream.errors import PtychosegError
from ptychoseg_stream.node.guard import Guard
from ptychoseg_stream.node.ports import Clock
from ptychoseg_stream.node.vitals import Vitals

from ..documents import Document, encode
from .child import Child, exit_text
from .unacknowledged import Unacknowledged
from .worker import Tickets, WorkerOptions

log = logging.getLogger(__name__)

_KILL_AFTER, _WITHIN = 2.0, 60.0  # s
_MOST_RESTARTS = 5  # within that time, of a child that dies again and again
_FEW = 64  # documents that may be sent while the RunEngine's thread would have to wait


class ProcessWorker:
    """Sends copies of documents to a child process, and starts a new child when one has died.

    Parameters
    ----------
    command : sequence of str
        Starts a child, as in ``[sys.executable, "-m", "package.module"]``; the folder of the
        sockets is appended, and the module gives it to `ptychoseg_callbacks.workers.main.serve`.
    setup : mapping
        Plain data that the child gets first.
    env : mapping of str to str
        Added to the environment of the child.
    options : WorkerOptions
        What it may use.
    clock, monotonic : callable
        Seconds since the epoch: when a document arrived; seconds of a clock that never jumps.
    resumes : bool
        Whether a new child goes on with what a dead one has written down.

    Raises
    ------
    OSError
        When the command cannot be run.
    """

    def __init__(
        self,
        command: Sequence[str],
        setup: Mapping[str, Any],
        env: Mapping[str, str] | None = None,
        options: WorkerOptions | None = None,
        clock: Clock = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        resumes: bool = False,
    ) -> None:
        self._command = list(command)
        self._setup = dict(setup)
        self._env = dict(env or {})
        self._clock = clock
        self._now = monotonic
        self._resumes = resumes
        self._guard = Guard(log)
        self._kept = Unacknowledged((options or WorkerOptions()).max_bytes)
        self._tickets = Tickets()
        self._drains: dict[int, float] = {}  # token -> deadline
        self._vitals = Vitals()
        self._fault = ""
        self._failed = False  # the child said why there is no node: another one would say the same
        self._lost = 0
        self._sent = self._taken = 0  # numbers of the last documents sent here, taken there
        self._waiting = 0  # documents that the child has taken and not processed
        self._restarts: deque[float] = deque(maxlen=_MOST_RESTARTS)
        self._closed = False
        self._wanted = threading.Event()  # a start document came, or the end
        self._lock = threading.Lock()  # guards the sending socket, and what follows
        self._child = Child(self._command, self._env)
        self._child.send(encode([self._setup, 0]))
        self._live = True  # documents are sent at once; else the watcher sends them
        self._keeping = True  # there is a child, or there will be one that can use them
        self._gone = False
        self._parked = False  # no child, and none before the next start document
        self._watcher = threading.Thread(target=self._watch, name="ptychoseg-watcher", daemon=True)
        self._watcher.start()

    @property
    def lost(self) -> int:
        """Documents that went down with a child, or came before there was a new one."""
        return self._lost

    @property
    def pid(self) -> int | None:
        """Process id of the child; None when there is none."""
        return None if self._gone else self._child.pid

    @property
    def unacknowledged(self) -> tuple[int, int]:
        """Documents that no child has taken, and the bytes they take."""
        return len(self._kept), self._kept.size

    def submit(self, name: str, doc: Document) -> None:
        """Send a copy of a document; after a start document there will be a child.

        Raises
        ------
        PtychosegError
            After `close`.
        """
        if self._closed:
            raise PtychosegError("the node was closed: attach a new one to the RunEngine")
        with self._lock:
            if name == "start":
                self._keeping = True
                self._parked = False
                self._fault = "" if self._live else self._fault
                self._wanted.set()
            if not self._keeping:
                self._lost += 1
                return
            number = self._sent + 1
            doc = self._kept.fit(name, doc)
            message = encode(["document", name, doc, self._clock(), number])
            self._sent = number
            if not self._kept.add(number, message):
                if self._lost == 0:
                    log.error("documents are lost: memory is full, no worker process takes them")
                self._lost += 1
            elif self._live:
                self._child.send(message)

    def vitals(self) -> Vitals:
        """Return the last report of the child, at most 0.1 s old unless a batch takes longer."""
        vitals = self._vitals
        backlog = vitals.backlog + self._waiting + max(0, self._sent - self._taken)
        return replace(vitals, backlog=backlog, fault=self._fault or vitals.fault)

    def drain(self, timeout: float) -> bool:
        """Wait until all is processed and stored; False if that took longer than `timeout` [s]."""
        token = self._tickets.issue()
        with self._lock:
            if self._parked or self._closed:
                self._tickets.answer(token, False)
            else:
                self._drains[token] = self._now() + timeout
                if self._live:
                    self._child.send(encode(["drain", token, timeout]))
        try:
            return self._tickets.wait(token, timeout)
        finally:
            self._drains.pop(token, None)

    def close(self, timeout: float) -> None:
        """Have the child process and store what it has, for `timeout` [s] at most, and end.

        Journals of runs that are not finished then are left to the next node.
        """
        with self._lock:
            self._closed = True
            if self._live:
                self._child.send(encode(["close", timeout]))
        self._wanted.set()
        self._watcher.join(timeout)
        if self._watcher.is_alive():
            log.error("worker process did not end within %.0f s; killing it", timeout)
            self._child.terminate()
            self._watcher.join(_KILL_AFTER)
        if self._watcher.is_alive():
            self._child.kill()
            self._watcher.join()

    def _watch(self) -> None:
        """Read reports; when a child has ended, start the next one."""
        child: Child | None = self._child
        while child is not None:
            code = child.watch(self._heard)
            again = self._end(child, code)
            child.release()
            child = self._next(again)
        self._tickets.answer_all()

    def _heard(self, kind: str, *report: Any) -> None:
        if kind == "vitals":
            self._vitals = Vitals.from_dict(report[0])
        elif kind == "taken":
            safe, taken, self._waiting = report
            self._taken = max(self._taken, taken)
            self._kept.acknowledge(safe)
        elif kind == "drained":
            self._tickets.answer(*report)
        elif kind == "failed":
            self._fault = report[0]
            self._failed = True

    def _end(self, child: Child, code: int) -> bool:
        """Note that a child has ended; return whether another one is to be started now."""
        with self._lock:
            self._live, self._gone = False, True
            if not self._closed:
                self._wanted.clear()
            again = self._resumes and not self._closed and not self._failed and self._may_restart()
            self._parked = not again
            if not again:
                self._give_up(child, code)
            self._waiting = 0
            if again:
                self._fault = (
                    f"worker process {child.pid} ended with {exit_text(code)}; another one goes on "
                    f"where it was, with {len(self._kept)} documents sent again"
                )
                log.warning("%s", self._fault)
        if not again:
            self._tickets.answer_all()
        return again

    def _give_up(self, child: Child, code: int) -> None:
        given_up = 0
        if not self._resumes or self._closed:
            given_up = self._kept.clear() + (0 if self._resumes else self._waiting)
            self._lost += given_up
            self._keeping = False
            self._taken = self._sent
        if self._closed and code == 0:
            return
        why = f": {self._fault}" if self._failed else ""
        rest = "the open runs wait, on disk, for the next one"
        if not self._resumes:
            rest = f"the rest of the open runs is lost ({given_up} documents so far)"
        then = "" if self._closed else "; the next run starts a new worker process"
        self._fault = (
            f"worker process {child.pid} ended with {exit_text(code)}{why}; {rest}; "
            f"the scan goes on{then}"
        )
        log.error("%s", self._fault)

    def _may_restart(self) -> bool:
        now = self._now()
        often = len(self._restarts) == _MOST_RESTARTS and now - self._restarts[0] < _WITHIN
        if not often:
            self._restarts.append(now)
        return not often

    def _next(self, again: bool) -> Child | None:
        """Return a new child, at once or when it is wanted; None at the end."""
        while True:
            if not again:
                self._wanted.wait()
                self._fault = ""
            again = False
            if self._closed:
                return None
            self._failed = False
            child = self._guard.call(
                "start a worker process", partial(Child, self._command, self._env), None
            )
            if child is not None:
                self._catch_up(child)
                return child
            self._fault = self._guard.last
            with self._lock:
                self._parked = True
                if not self._closed:
                    self._wanted.clear()
            self._tickets.answer_all()

    def _catch_up(self, child: Child) -> None:
        """Send a new child what is kept, without making the RunEngine's thread wait for it."""
        child.send(encode([self._setup, self._sent]))
        last = 0
        while True:
            for number, message in self._kept.after(last)[:-_FEW]:
                child.send(message)
                last = number
            with self._lock:
                rest = self._kept.after(last)
                if len(rest) > 2 * _FEW:
                    continue
                for _, message in rest:
                    child.send(message)
                self._child = child
                self._live, self._gone = True, False
                for token, deadline in list(self._drains.items()):
                    child.send(encode(["drain", token, max(0.0, deadline - self._now())]))
                if self._closed:
                    child.send(encode(["close", _KILL_AFTER]))
                return
