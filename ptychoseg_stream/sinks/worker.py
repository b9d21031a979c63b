"""A thread that works through what callers hand it, so that they never wait."""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from .rows import Row

RunT = TypeVar("RunT")
RunT_contra = TypeVar("RunT_contra", contravariant=True)


class Clerk(Protocol[RunT_contra]):
    """What a `Worker` drives; all calls come from its thread and none raises."""

    def begin(self, run: RunT_contra) -> None:
        """Begin a run."""
        ...

    def take(self, run: RunT_contra, rows: Sequence[Row]) -> None:
        """Take the next rows of a run."""
        ...

    def end(self, run: RunT_contra) -> None:
        """End a run."""
        ...

    def flush(self) -> None:
        """Store whatever is held back."""
        ...

    def tick(self) -> float | None:
        """Store what is due; return how long until the next is [s], None if nothing is held."""
        ...


@dataclass(frozen=True, slots=True)
class _Job:
    call: Callable[[], None]
    nbytes: int = 0


class Worker(Generic[RunT]):
    """Hands jobs to a `Clerk` on a thread of its own, in order. The thread starts with the first.

    Parameters
    ----------
    clerk : Clerk
        Does the work.
    name : str
        Name of the thread.
    """

    def __init__(self, clerk: Clerk[RunT], name: str) -> None:
        self._clerk = clerk
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pending = 0
        self._stopped = False

    @property
    def pending_bytes(self) -> int:
        """Bytes handed over and not yet worked through."""
        return self._pending

    @property
    def idle(self) -> bool:
        """Whether no job is waiting."""
        return self._jobs.empty()

    def begin(self, run: RunT) -> None:
        """Have a run begun."""
        self._put(_Job(lambda: self._clerk.begin(run)))

    def take(self, run: RunT, rows: Sequence[Row], nbytes: int) -> None:
        """Have rows of a run stored."""
        self._put(_Job(lambda: self._clerk.take(run, rows), nbytes))

    def end(self, run: RunT) -> None:
        """Have a run ended."""
        self._put(_Job(lambda: self._clerk.end(run)))

    def drain(self, timeout: float) -> bool:
        """Wait until all that was handed over is stored; False after `timeout` [s]."""
        with self._lock:
            if self._thread is None or self._stopped:
                return True
        done = threading.Event()

        def flush() -> None:
            self._clerk.flush()
            done.set()

        self._put(_Job(flush))
        return done.wait(timeout)

    def stop(self) -> None:
        """Store what is left and end the thread."""
        with self._lock:
            thread, self._thread, self._stopped = self._thread, None, True
        if thread is not None:
            self._jobs.put(None)
            thread.join()

    def _put(self, job: _Job) -> None:
        with self._lock:
            self._pending += job.nbytes
            if self._thread is None:
                # Daemonic: an owner that forgot to stop it must not keep the process alive.
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._stopped = False
                self._thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        wait: float | None = None
        while True:
            try:
                job = self._jobs.get(timeout=wait)
            except queue.Empty:
                wait = self._clerk.tick()
                continue
            if job is None:
                self._clerk.flush()
                return
            job.call()
            with self._lock:
                self._pending -= job.nbytes
            wait = self._clerk.tick()
