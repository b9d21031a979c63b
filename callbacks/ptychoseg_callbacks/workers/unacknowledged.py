"""Documents that the child has not written down yet: they are sent again when it dies."""

import threading
from collections import deque

from ..documents import Document
from .worker import fitted

_OVERHEAD = 200  # bytes that a message takes besides its content, about
_SLACK = 1.25  # images go first; beyond so many times the limit, whole documents do


class Unacknowledged:
    """Messages in order, with their numbers; bounded.

    Parameters
    ----------
    max_bytes : int
        See `ptychoseg_callbacks.workers.worker.WorkerOptions`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._messages: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of messages."""
        return len(self._messages)

    @property
    def size(self) -> int:
        """Memory they take [bytes]."""
        return self._bytes

    def fit(self, name: str, doc: Document) -> Document:
        """Return a document, without its images if there is no room for them."""
        return fitted(name, doc, self._bytes, self._max_bytes, len(self))

    def add(self, number: int, message: bytes) -> bool:
        """Keep a message; False if there is no room at all."""
        size = len(message) + _OVERHEAD
        with self._lock:
            if self._messages and self._bytes + size > _SLACK * self._max_bytes + (1 << 20):
                return False
            self._messages.append((number, message))
            self._bytes += size
            return True

    def acknowledge(self, number: int) -> None:
        """Forget the messages up to a number."""
        with self._lock:
            while self._messages and self._messages[0][0] <= number:
                self._bytes -= len(self._messages.popleft()[1]) + _OVERHEAD

    def after(self, number: int) -> list[tuple[int, bytes]]:
        """Return the messages after a number, in order."""
        with self._lock:
            return [each for each in self._messages if each[0] > number]

    def clear(self) -> int:
        """Give all up; return how many documents that is."""
        with self._lock:
            given_up = len(self._messages)
            self._messages.clear()
            self._bytes = 0
            return given_up
