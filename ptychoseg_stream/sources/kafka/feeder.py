"""The thread that hands documents on, so that the one that talks to Kafka never has to wait.

Kafka expels a consumer that does not poll for five minutes, and the callback may wait for longer.
"""

import threading
from collections import deque
from dataclasses import dataclass

from ptychoseg_callbacks.source import Callback

from ..messages import Messages
from .offsets import Offsets

_MAX_BYTES = 32 << 20
_MAX_MESSAGES = 1000


@dataclass(frozen=True, slots=True)
class Fetched:
    """A message as it came.

    Parameters
    ----------
    value : bytes
        The document.
    partition, offset : int
        Where it stands in the topic.
    era : int
        See `Offsets.era`.
    """

    value: bytes
    partition: int
    offset: int
    era: int


class Feeder:
    """Hands messages on, one after the other, from a thread of its own.

    Parameters
    ----------
    callback : callable
        Takes the documents; it may wait.
    messages : Messages
        Reads them.
    offsets : Offsets
        Learns what was handed on.

    Attributes
    ----------
    received : int
        Documents handed on.
    """

    def __init__(self, callback: Callback, messages: Messages, offsets: Offsets) -> None:
        self.received = 0
        self._callback = callback
        self._messages = messages
        self._offsets = offsets
        self._queue: deque[Fetched] = deque()
        self._bytes = 0
        self._ending = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._feed, name="ptychoseg-kafka", daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether no more should be fetched for now."""
        return self._bytes > _MAX_BYTES or len(self._queue) > _MAX_MESSAGES

    @property
    def low(self) -> bool:
        """Whether more can be fetched again."""
        return self._bytes <= _MAX_BYTES // 2 and len(self._queue) <= _MAX_MESSAGES // 2

    @property
    def busy(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def put(self, fetched: Fetched) -> None:
        """Take a message; never waits."""
        with self._changed:
            self._queue.append(fetched)
            self._bytes += len(fetched.value)
            self._changed.notify()

    def clear(self) -> None:
        """Forget what was not handed on yet: it comes again."""
        with self._changed:
            self._queue.clear()
            self._bytes = 0

    def end(self) -> None:
        """Let the thread end after the document it is at; does not wait for it."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def _feed(self) -> None:
        while (fetched := self._next()) is not None:
            if fetched.era != self._offsets.era:
                continue  # another consumer has it now, or it comes again
            document = self._messages.read_pair(fetched.value)
            if document is None:
                self._offsets.left_out(fetched.partition, fetched.offset, fetched.era)
            else:
                number = self._callback(*document)
                self.received += 1
                self._offsets.handed_on(number, fetched.partition, fetched.offset, fetched.era)

    def _next(self) -> Fetched | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ending or self._queue)
            if self._ending:
                return None
            fetched = self._queue.popleft()
            self._bytes -= len(fetched.value)
            return fetched
