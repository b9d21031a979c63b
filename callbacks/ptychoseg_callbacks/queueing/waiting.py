"""The documents that wait for the loop: in memory while there is room, else in their journals."""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..documents import CARRIES_IMAGES
from ..journals.journal import Entry, Journal
from ..loop import Close, Drain, Received
from .spilled import Spilled

Policy: TypeAlias = Literal["spill", "wait", "teacher-only"]

MOST_DOCUMENTS = 20_000
"""Documents held in memory, whatever their size."""


@dataclass(frozen=True, slots=True)
class OverloadOptions:
    """What happens when frames come faster than they can be labelled.

    Parameters
    ----------
    policy : {"spill", "wait", "teacher-only"}
        "spill": documents wait on disk, and are labelled after the scan. "wait": the source waits;
        never in the process of a RunEngine. "teacher-only": as "spill", and frames take the
        cheaper path until it is caught up; their rows say so.
    memory_bytes : int
        Memory that waiting documents may take [bytes].
    documents : int
        Documents with images that may wait before the source waits, or the cheaper path is taken.
    """

    policy: Policy = "spill"
    memory_bytes: int = 256 << 20
    documents: int = 64

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.policy not in ("spill", "wait", "teacher-only"):
            raise ValueError(f"policy: {self.policy!r} must be spill, wait or teacher-only")
        if self.memory_bytes < 1:
            raise ValueError(f"memory_bytes: {self.memory_bytes} must be 1 or more")
        if self.documents < 1:
            raise ValueError(f"documents: {self.documents} must be 1 or more")


@dataclass(slots=True)
class _Held:
    """A document in memory; `unsafe`: its number at the sender, if only this memory holds it."""

    received: Received
    size: int
    unsafe: int = 0


class Unreadable(Exception):
    """Documents that waited in a journal cannot be read.

    Parameters
    ----------
    journal : Journal
    count : int
        How many.
    reason : str
        Why.
    """

    def __init__(self, journal: Journal, count: int, reason: str) -> None:
        super().__init__(reason)
        self.journal = journal
        self.count = count


class Waiting:
    """A queue whose memory does not grow with what waits.

    Parameters
    ----------
    options : OverloadOptions
        How much may wait, and what happens then.
    """

    def __init__(self, options: OverloadOptions) -> None:
        self._options = options
        self._queue: deque[_Held | Spilled | Drain | Close] = deque()
        self._changed = threading.Condition()
        self._taken: _Held | None = None  # what the loop works on: it is in memory, too
        self._bytes = self._held = self._documents = self._images = 0
        self._unsafe: deque[int] = deque()
        self._overloaded = False
        self._open = True

    def __len__(self) -> int:
        """Return the number of documents that are not processed."""
        return self._documents + (self._taken is not None)

    @property
    def memory_bytes(self) -> int:
        """Memory taken now [bytes]."""
        return self._bytes

    @property
    def memory_documents(self) -> int:
        """Documents in memory now."""
        return self._held

    @property
    def first_unsafe(self) -> int:
        """Lowest number, at the sender, of a document that only this memory holds; 0 if none."""
        with self._changed:
            return self._unsafe[0] if self._unsafe else 0

    def fits(self, size: int) -> bool:
        """Whether a document of so many bytes may be held in memory."""
        return self._held < MOST_DOCUMENTS and (
            self._bytes + size <= self._options.memory_bytes or self._bytes == 0
        )

    def wait_for_room(self) -> None:
        """Wait until the loop has caught up, or all ends."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open or self._has_room())

    def hold(self, received: Received, size: int, unsafe: int = 0) -> None:
        """Queue a document in memory."""
        with self._changed:
            self._queue.append(_Held(received, size, unsafe))
            self._bytes += size
            self._held += 1
            if unsafe:
                self._unsafe.append(unsafe)
            self._count(received.name, 1)
            self._changed.notify_all()

    def spill(self, journal: Journal, name: str, offset: int, end: int, number: int) -> None:
        """Queue a document that is read from its journal when its turn comes."""
        with self._changed:
            last = self._queue[-1] if self._queue else None
            if not isinstance(last, Spilled) or not last.add(journal, offset, end, number):
                last = Spilled(number)
                last.add(journal, offset, end, number)
                self._queue.append(last)
            last.images += name in CARRIES_IMAGES
            self._count(name, 1)
            self._changed.notify_all()

    def tell(self, message: Drain | Close) -> None:
        """Queue a message that is no document."""
        with self._changed:
            self._queue.append(message)
            self._changed.notify_all()

    def release_sources(self) -> None:
        """Let nobody wait for room any more."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def take(self, timeout: float) -> Received | Drain | Close | None:
        """Return what is next, or None after `timeout` [s]; the one before is processed now.

        Raises
        ------
        Unreadable
            If a document cannot be read in its journal; it is left out, and so are those behind it
            in this journal, as far as nobody knows where they begin.
        """
        with self._changed:
            self._done()
            self._changed.wait_for(lambda: self._queue, timeout)
            if not self._queue:
                return None
            first = self._queue[0]
            if not isinstance(first, Spilled):
                self._queue.popleft()
                return self._held_next(first) if isinstance(first, _Held) else first
            journal, offset = first.next()  # only this thread takes: it is still first
        try:
            entry, after = journal.read(offset)
        except (OSError, ValueError) as error:
            count = self._leave_out(first, journal.following(offset))
            raise Unreadable(journal, count, str(error)) from error
        return self._spilled_next(first, journal, entry, after)

    def _held_next(self, held: _Held) -> Received:
        self._taken = held
        return self._counted_off(held.received)

    def _spilled_next(self, first: Spilled, journal: Journal, entry: Entry, after: int) -> Received:
        with self._changed:
            received = Received(entry.name, entry.doc, entry.arrived, first.number, journal)
            first.images -= entry.name in CARRIES_IMAGES
            first.advance(after)
            self._give_back(first)
            self._taken = _Held(received, 0)
            self._held += 1
            return self._counted_off(received)

    def _leave_out(self, first: Spilled, after: int) -> int:
        """Leave out what cannot be read; `after` is where the next document begins, if known."""
        with self._changed:
            before = first.count
            if after:
                first.advance(after)
            else:
                first.skip()
            self._documents -= before - first.count
            self._give_back(first)
            return before - first.count

    def _give_back(self, first: Spilled) -> None:
        if first.count == 0:
            self._queue.popleft()
            self._images -= first.images  # of those that could not be read
            first.images = 0
            self._changed.notify_all()  # there may be room again

    def _counted_off(self, received: Received) -> Received:
        self._count(received.name, -1)
        if not self._cheaper():
            return received
        return Received(
            received.name, received.doc, received.arrived, received.number, received.journal, True
        )

    def _cheaper(self) -> bool:
        """Whether too much waits behind the document that is taken now."""
        if self._images > self._options.documents:
            self._overloaded = True
        elif 4 * self._images < self._options.documents:
            self._overloaded = False
        return self._overloaded and self._options.policy == "teacher-only"

    def _done(self) -> None:
        if (taken := self._taken) is None:
            return
        self._taken = None
        self._bytes -= taken.size
        self._held -= 1
        if taken.unsafe:
            self._unsafe.popleft()
        self._changed.notify_all()

    def _count(self, name: str, step: int) -> None:
        self._documents += step
        self._images += step * (name in CARRIES_IMAGES)

    def _has_room(self) -> bool:
        return self._images < self._options.documents and self.fits(0)
