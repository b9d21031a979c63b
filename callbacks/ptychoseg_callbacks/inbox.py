"""Takes documents from a source's thread, writes them down, and hands them to the loop."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ptychoseg_stream.node.ports import Clock, RawStore

from .admission import Admission, Admitted
from .documents import Document, image_bytes, thinned
from .guard import Guard
from .journal import Journal
from .journals import Journals
from .loop import Close, Drain, Message, Received, Suspend
from .waiting import OverloadOptions, Waiting

log = logging.getLogger(__name__)

_SYNC_EVERY = 0.2  # s
_MOST_UNWRITTEN = 100_000  # documents in memory of runs without a journal


class Inbox:
    """A queue of documents that outlives its process, and whose memory is bounded.

    Documents of runs that an earlier process has left come first.

    Parameters
    ----------
    journals : Journals, optional
        Where documents are written down before they are queued; without it, they are not, and
        what does not fit into memory loses its images.
    overload : OverloadOptions, optional
        How much may wait in memory, and what happens beyond.
    raw : RawStore, optional
        Asked for the beginning of runs that were missed.
    clock, monotonic : callable
        Seconds since the epoch; seconds of a clock that never jumps.
    resume : bool
        Whether runs that an earlier process has left are gone on with.
    """

    def __init__(
        self,
        journals: Journals | None = None,
        overload: OverloadOptions | None = None,
        raw: RawStore | None = None,
        clock: Clock = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        resume: bool = True,
    ) -> None:
        self._journals = journals
        self._overload = overload or OverloadOptions()
        self._clock = clock
        self._now = monotonic
        self._guard = Guard(log)
        self._admission = Admission(journals, raw)
        self._waiting = Waiting(self._overload)
        self._intake = threading.Lock()  # one document at a time; never held by who takes
        self._number = self._sender = 0
        self._sync_due = 0.0
        self._unsynced: set[Journal] = set()
        self._suspend_at = float("inf")
        self._suspend_for = 0.0
        self.lost = 0
        """Documents that could neither be written down nor held in memory, or not read again."""
        self.resumed = 0
        """Runs of an earlier process that are gone on with."""
        if resume and journals is not None:
            self._resume(journals)

    @property
    def waiting(self) -> int:
        """Documents that are not processed yet, the one being processed included."""
        return len(self._waiting)

    @property
    def duplicates(self) -> int:
        """Documents that came again and were left out."""
        return self._admission.duplicates

    @property
    def open_runs(self) -> list[str]:
        """Uids of the raw runs that are written down and not finished."""
        with self._intake:
            return [each.raw for each in self._admission.journals() if not each.finished]

    @property
    def number(self) -> int:
        """Number of the last document that was put in."""
        return self._number

    @property
    def memory(self) -> tuple[int, int]:
        """Documents in memory, and the bytes they take."""
        return self._waiting.memory_documents, self._waiting.memory_bytes

    @property
    def safe(self) -> int:
        """Highest number at the sender up to which no document is lost if this process dies.

        Without journals nothing is safe, and nothing could be gone on with: then it is simply the
        last number that came.
        """
        unsafe = self._waiting.first_unsafe
        return unsafe - 1 if unsafe and self._journals is not None else self._sender

    @property
    def last_sender(self) -> int:
        """Highest number at the sender that came."""
        return self._sender

    def put(
        self,
        name: str,
        doc: Document,
        arrived: float | None = None,
        sender: int = 0,
        redelivered: bool = False,
    ) -> int:
        """Take a document; never raises, and waits only where `overload` says so.

        Parameters
        ----------
        name, doc
            Any Bluesky document; it must not be changed later.
        arrived : float, optional
            When it came [s since the epoch]; default now.
        sender : int
            Its number at who sent it, for `safe`; 0: it has none.
        redelivered : bool
            Whether documents of runs that were finished before may come again.

        Returns
        -------
        int
            Its number, counted from 1.
        """
        if self._overload.policy == "wait":
            self._waiting.wait_for_room()
        arrived = self._clock() if arrived is None else arrived
        name = str(name)
        with self._intake:
            self._number += 1
            if name == "start":
                self._guard.renew()
            done = self._guard.call(
                f"find the run of a {name} document",
                partial(self._put, name, doc, arrived, sender, redelivered),
                False,
            )
            if not done:  # who processes it says what is wrong with it
                received = Received(name, doc, arrived, self._number)
                self._guard.call("queue a document", partial(self._hold, received, sender), None)
            self._sender = max(self._sender, sender)
            self._sync_if_due(name == "stop")
            return self._number

    def tell(self, message: Drain | Close) -> None:
        """Queue a message for the loop, behind all documents so far."""
        if isinstance(message, Close):
            self._waiting.release_sources()
        self._waiting.tell(message)

    def suspend(self, timeout: float) -> None:
        """Have the loop end after what waits now, but `timeout` [s] from now at the latest."""
        self._suspend_for = timeout
        self._suspend_at = min(self._suspend_at, self._now() + timeout)
        self._waiting.release_sources()

    def take(self, timeout: float) -> Message | None:
        """Return what is next, or None if nothing came within `timeout` [s]; for one thread."""
        left = self._suspend_at - self._now()
        if left <= 0:
            return Suspend(self._suspend_for)
        try:
            message = self._waiting.take(0.0 if left < float("inf") else timeout)
        except (OSError, ValueError) as error:
            self.lost += 1
            log.error("documents that wait on disk cannot be read, and are left out: %s", error)
            return None
        if message is None and left < float("inf"):
            return Suspend(self._suspend_for)
        if message is None:
            self._sync_if_due(False)
            self._let_go()
        return message

    def sync(self) -> None:
        """Have the disk hold all documents so far, even if the power fails."""
        while self._unsynced:
            with contextlib.suppress(KeyError):
                self._unsynced.pop().sync()

    def close(self) -> None:
        """Leave the journals that are not finished to the next process."""
        self._waiting.release_sources()
        with self._intake:
            for journal in self._admission.journals():
                if not journal.finished:
                    journal.release()

    def _put(
        self, name: str, doc: Document, arrived: float, sender: int, redelivered: bool
    ) -> bool:
        for each in self._admission.admit(name, doc, redelivered):
            self._enqueue(each, arrived, sender)
        return True

    def _enqueue(self, each: Admitted, arrived: float, sender: int) -> None:
        journal = each.journal
        if journal is None or journal.finished:  # closed before its stop document came
            self._hold(Received(each.name, each.doc, arrived, self._number), sender)
            return
        append = partial(journal.append, each.name, each.doc, arrived, sender)
        written = self._guard.call(f"write a {each.name} document down", append, None)
        if written is None:
            if not journal.end:
                journal.discard()  # without its start document, a run cannot be gone on with
            self._hold(Received(each.name, each.doc, arrived, self._number), sender)
            return
        offset, entry = written
        # What is processed is what a process that resumes the run would read.
        received = Received(entry.name, entry.doc, arrived, self._number, journal)
        if offset < 0:
            self._hold(received, sender)
            return
        self._unsynced.add(journal)
        size = journal.end - offset
        if self._waiting.fits(size):
            self._waiting.hold(received, size)
        else:
            self._waiting.spill(journal, each.name, offset, journal.end, self._number)

    def _hold(self, received: Received, sender: int) -> None:
        """Queue a document that no journal holds."""
        name, doc = received.name, received.doc
        size = self._guard.call("measure a document", partial(image_bytes, name, doc), 0)
        if size and not self._waiting.fits(size):
            received, size = replace(received, doc=thinned(doc, self._reason())), 0
        if self._waiting.memory_documents > _MOST_UNWRITTEN and name in ("event", "event_page"):
            self._lose()
            return
        self._waiting.hold(received, size, sender)

    def _reason(self) -> str:
        return (
            f"memory limit of {self._overload.memory_bytes / 2**20:.3g} MiB reached with "
            f"{self.waiting} documents waiting: labelling is slower than the scan, and there is "
            "no journal to keep them in; see spool.folder, or raise overload.memory_bytes"
        )

    def _lose(self) -> None:
        self.lost += 1
        if self.lost == 1:
            log.error(
                "%d documents wait and there is no journal to keep them in: events are left out, "
                "and their frames are accounted for as lost; see spool.folder",
                self.waiting,
            )

    def _sync_if_due(self, stopped: bool) -> None:
        if self._unsynced and (stopped or self._now() >= self._sync_due):
            self.sync()
            self._sync_due = self._now() + _SYNC_EVERY

    def _let_go(self) -> None:
        if self._intake.acquire(blocking=False):
            try:
                self._admission.let_go()
            finally:
                self._intake.release()

    def _resume(self, journals: Journals) -> None:
        for journal in journals.unfinished():
            step = partial(self._resume_one, journal)
            count = self._guard.call(f"go on with the run in {journal.folder}", step, -1)
            if count > 0:
                self.resumed += 1
                log.warning("run %s: going on with it; %d documents", journal.raw, count)
            elif count == 0:
                journal.discard()  # not even its start document was written down
            else:
                journal.release()

    def _resume_one(self, journal: Journal) -> int:
        count = 0
        for offset, entry, after in self._admission.resume(journal):
            if count == 0 and entry.name != "start":
                raise ValueError("its first document is no start document; remove the folder")
            count += 1
            self._waiting.spill(journal, entry.name, offset, after, 0)
        return count
