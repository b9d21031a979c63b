"""What both workers share: their interface, what is under way, and who waits for what."""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from ptychoseg_stream.node.vitals import Vitals

from ..documents import Document, image_bytes, thinned


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker may use.

    Parameters
    ----------
    max_bytes : int
        Images that the receiver has not taken yet may take so much memory; beyond it they are
        dropped, and their frames are accounted for as lost [bytes].
    """

    max_bytes: int = 1 << 30


class Worker(Protocol):
    """Takes documents away from the RunEngine's thread and has them processed elsewhere."""

    @property
    def lost(self) -> int:
        """Documents that were given to it and could not be processed."""
        ...

    def submit(self, name: str, doc: Document) -> None:
        """Take a copy of a document; never waits for its processing."""
        ...

    def vitals(self) -> Vitals:
        """Return the last report of the target; its backlog counts the documents under way, too."""
        ...

    def drain(self, timeout: float) -> bool:
        """Wait until all is processed and stored; False if that took longer than `timeout` [s]."""
        ...

    def close(self, timeout: float) -> None:
        """Process and store what is under way, for `timeout` [s] at most, and end."""
        ...


def fitted(name: str, doc: Document, used: int, most: int, count: int) -> Document:
    """Return a document, without its images if they do not fit into memory.

    Parameters
    ----------
    name, doc
        Any Bluesky document.
    used, most : int
        Memory that is taken, and that may be taken [bytes].
    count : int
        Documents that take it.
    """
    size = image_bytes(name, doc)
    if size == 0 or used + size <= most:
        return doc
    reason = (
        f"memory limit of {most / 2**20:.3g} MiB reached with {count} documents under way: "
        "nobody takes them; raise max_bytes or write images to files"
    )
    return thinned(doc, reason)


class Handover:
    """Documents that the receiver has not taken yet, and the memory they take.

    Parameters
    ----------
    max_bytes : int
        See `WorkerOptions`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of documents under way."""
        return len(self._sizes)

    def fit(self, name: str, doc: Document) -> tuple[Document, int]:
        """Return a document, without images if there is no room, and the size of its images."""
        fitting = fitted(name, doc, self._bytes, self._max_bytes, len(self))
        return fitting, image_bytes(name, fitting)

    def add(self, size: int) -> None:
        """Count a document in."""
        with self._lock:
            self._sizes.append(size)
            self._bytes += size

    def done(self, count: int = 1) -> None:
        """Count the first `count` documents out."""
        with self._lock:
            for _ in range(min(count, len(self._sizes))):
                self._bytes -= self._sizes.popleft()

    def clear(self) -> int:
        """Give up what is under way; return how many documents that is."""
        with self._lock:
            given_up = len(self._sizes)
            self._sizes.clear()
            self._bytes = 0
            return given_up


class Tickets:
    """Lets threads wait for answers that another thread brings."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._waiting: dict[int, threading.Event] = {}
        self._complete: set[int] = set()

    def issue(self) -> int:
        """Return a new token."""
        with self._lock:
            self._last += 1
            self._waiting[self._last] = threading.Event()
            return self._last

    def open(self) -> list[int]:
        """Return the tokens that nobody has answered."""
        with self._lock:
            return [token for token, event in self._waiting.items() if not event.is_set()]

    def answer(self, token: int, complete: bool) -> None:
        """Wake who waits for `token`."""
        with self._lock:
            if (event := self._waiting.get(token)) is None:
                return  # who asked did not want to wait any longer
            if complete:
                self._complete.add(token)
            event.set()

    def answer_all(self) -> None:
        """Wake everybody: nothing will be completed any more."""
        for token in self.open():
            self.answer(token, False)

    def wait(self, token: int, timeout: float) -> bool:
        """Return the answer; False if there is none within `timeout` [s]."""
        self._waiting[token].wait(timeout)
        with self._lock:
            del self._waiting[token]
            complete = token in self._complete
            self._complete.discard(token)
            return complete
