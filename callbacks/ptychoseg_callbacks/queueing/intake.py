"""How a document is let in: written down in the journal of its run, and queued."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ptychoseg_stream.node.guard import Guard
from ptychoseg_stream.node.ports import RawStore

from ..documents import image_bytes, thinned
from ..journals.folder import Journals
from ..journals.journal import Journal
from ..loop import Received
from .admission import Admission, Admitted, Missed
from .early import Put
from .waiting import OverloadOptions, Waiting

log = logging.getLogger(__name__)

_SYNC_EVERY = 0.2  # s
_MOST_UNWRITTEN = 100_000  # documents in memory of runs without a journal


class Intake:
    """Lets documents in, one after the other; used by one thread at a time.

    `journals`, `let_go` and `close` may be called by any thread: none of them waits for a store.

    Parameters
    ----------
    journals, overload, raw, monotonic
        As in `ptychoseg_callbacks.queueing.inbox.Inbox`.
    waiting : Waiting
        Where documents are queued.
    """

    def __init__(
        self,
        journals: Journals | None,
        overload: OverloadOptions,
        raw: RawStore | None,
        waiting: Waiting,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._overload = overload
        self._raw = raw
        self._waiting = waiting
        self._now = monotonic
        self._guard = Guard(log)
        self._admission = Admission(journals)
        self._lock = threading.Lock()  # of what is known about runs; never held for long
        self._sync_due = 0.0
        self._unsynced: set[Journal] = set()
        self.lost = 0
        """Documents that could neither be written down nor held in memory."""
        self.kept = 0
        """Documents of runs that are not processed: they were only written down."""

    @property
    def duplicates(self) -> int:
        """Documents that came again and were left out."""
        return self._admission.duplicates

    def take_in(self, put: Put) -> None:
        """Write a document down and queue it; never raises."""
        if put.name == "start":
            self._guard.renew()
        what = f"find the run of a {put.name} document"
        missed = self._guard.call(what, partial(self._missed, put), None)
        with self._lock:
            done = self._guard.call(what, partial(self._admit, put, missed), False)
            if not done:  # who processes it says what is wrong with it
                hold = partial(self._hold, _received(put), put.sender)
                self._guard.call("queue a document", hold, None)
        self.sync_if_due(put.name == "stop")

    def resume(self, journal: Journal) -> int:
        """Queue the documents that an earlier process has left; return how many those are.

        Those of a run that was left aside are only known from now on.

        Raises
        ------
        OSError, ValueError
            If they cannot be read.
        """
        count = 0
        for offset, entry, after in self._admission.resume(journal):
            if count == 0 and entry.name != "start":
                raise ValueError("its first document is no start document; remove the folder")
            count += 1
            if not journal.aside:
                self._waiting.spill(journal, entry.name, offset, after, 0)
        return count

    def leave_out(self, raw: str) -> None:
        """Leave out what comes of a run whose journal cannot be used."""
        with self._lock:
            self._admission.leave_out(raw)

    def journals(self) -> list[Journal]:
        """Return the journals of the runs that are not done with."""
        with self._lock:
            return [each for each in self._admission.journals() if not each.finished]

    def let_go(self) -> None:
        """Hold journals of runs that are done with no longer, unless somebody works on them."""
        if self._lock.acquire(blocking=False):
            try:
                self._admission.let_go()
            finally:
                self._lock.release()

    def written(self, journal: Journal) -> None:
        """Note that the disk may not hold all of a journal."""
        self._unsynced.add(journal)

    def sync(self) -> None:
        """Have the disk hold all documents so far, even if the power fails."""
        while self._unsynced:
            with contextlib.suppress(KeyError):
                self._unsynced.pop().sync()

    def sync_if_due(self, at_once: bool) -> None:
        """The same, if it is time for it."""
        if self._unsynced and (at_once or self._now() >= self._sync_due):
            self.sync()
            self._sync_due = self._now() + _SYNC_EVERY

    def _missed(self, put: Put) -> Missed | None:
        """Ask the raw store for the beginning of a run: others need not wait for the answer."""
        if self._raw is None:
            return None
        with self._lock:
            uid = self._admission.missing(put.name, put.doc)
        start = self._raw.start_of(uid) if uid else None
        if start is None:
            return None
        with self._lock:
            wanted = self._admission.wants(start)
        return Missed(start, self._raw.notes_of(start["uid"])) if wanted else None

    def _admit(self, put: Put, missed: Missed | None) -> bool:
        for each in self._admission.admit(put.name, put.doc, put.redelivered, missed):
            self._enqueue(each, put)
        return True

    def _enqueue(self, each: Admitted, put: Put) -> None:
        journal, own = each.journal, replace(put, name=each.name, doc=each.doc)
        if journal is None or journal.finished:  # closed before its stop document came
            self._hold(_received(own), put.sender)
            return
        append = partial(journal.append, each.name, each.doc, put.arrived, put.sender)
        written = self._guard.call(f"write a {each.name} document down", append, None)
        if written is None:
            if not journal.end:
                journal.discard()  # without its start document, a run cannot be gone on with
            self._hold(_received(own), put.sender)
            return
        offset, entry = written
        # What is processed is what a process that resumes the run would read.
        received = Received(entry.name, entry.doc, put.arrived, put.number, journal)
        if offset < 0:
            self._hold(received, put.sender)
            return
        self.written(journal)
        if journal.aside:
            self._keep(journal, each.name)
            return
        size = journal.end - offset
        if self._waiting.fits(size):
            self._waiting.hold(received, size)
        else:
            self._waiting.spill(journal, each.name, offset, journal.end, put.number)

    def _keep(self, journal: Journal, name: str) -> None:
        """Leave a document that was written down to those who try its run again."""
        self.kept += 1
        if name == "stop":
            journal.tell_aside()

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
            f"{len(self._waiting)} documents waiting: labelling is slower than the scan, and there "
            "is no journal to keep them in; see spool.folder, or raise overload.memory_bytes"
        )

    def _lose(self) -> None:
        self.lost += 1
        if self.lost == 1:
            log.error(
                "%d documents wait and there is no journal to keep them in: events are left out, "
                "and their frames are accounted for as lost; see spool.folder",
                len(self._waiting),
            )


def _received(put: Put) -> Received:
    return Received(put.name, put.doc, put.arrived, put.number)
