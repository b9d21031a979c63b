"""Takes documents from a source's thread, writes them down, and hands them to the loop."""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from ptychoseg_stream.node.guard import Guard
from ptychoseg_stream.node.ports import Clock, RawStore

from ..documents import Document
from ..journals.folder import Journals
from ..loop import Close, Drain, Message, Received, Suspend
from .early import EarlyDocuments, Put
from .intake import Intake
from .recovery import recover
from .suspect import Suspect
from .waiting import OverloadOptions, Unreadable, Waiting

log = logging.getLogger(__name__)

_ROUNDS = 8  # in which early documents are let in while others come


class Inbox:
    """A queue of documents that outlives its process, and whose memory is bounded.

    Documents of runs that an earlier process has left come first. To read them takes a while:
    who must not wait makes an inbox that does it `later`, and calls `recover`; documents that are
    put in before it returns wait on disk.

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
    later : bool
        Whether they are read by `recover`, and not now.
    """

    def __init__(
        self,
        journals: Journals | None = None,
        overload: OverloadOptions | None = None,
        raw: RawStore | None = None,
        clock: Clock = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        resume: bool = True,
        later: bool = False,
    ) -> None:
        self._journals = journals
        self._overload = overload or OverloadOptions()
        self._clock = clock
        self._now = monotonic
        self._guard = Guard(log)
        self._waiting = Waiting(self._overload)
        self._intake = Intake(journals, self._overload, raw, self._waiting, monotonic)
        self._order = threading.Lock()  # one document at a time; never held by who takes
        self._number = self._sender = 0
        self._early: EarlyDocuments | None = None
        self._told: list[Drain | Close] = []  # behind what earlier runs, and early documents, are
        self._recovered = threading.Event()
        self._suspect = Suspect()
        self._unreadable = ""  # derived run of which documents cannot be read
        self._unread = 0
        self._suspend_at = float("inf")
        self._suspend_for = 0.0
        self.resumed = 0
        """Runs of an earlier process that are gone on with."""
        if not resume or journals is None:
            self._recovered.set()
        elif not later:
            self.recover()

    @property
    def waiting(self) -> int:
        """Documents that are not processed yet, the one being processed included."""
        early = self._early
        return len(self._waiting) + (len(early) if early else 0)

    @property
    def lost(self) -> int:
        """Documents that could neither be written down nor held in memory, or not read again."""
        return self._intake.lost + self._unread

    @property
    def duplicates(self) -> int:
        """Documents that came again and were left out."""
        return self._intake.duplicates

    @property
    def kept(self) -> int:
        """Documents of runs that could not be opened, or were left aside: they wait on disk."""
        return self._intake.kept

    @property
    def open_runs(self) -> list[str]:
        """Uids of the raw runs that are written down, not finished, and not left aside."""
        return [each.raw for each in self._intake.journals() if not each.aside]

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
        while (number := self._put(str(name), doc, arrived, sender, redelivered)) == 0:
            self._recovered.wait()  # the disk is full: nothing else is left to be done
        return number

    def tell(self, message: Drain | Close) -> None:
        """Queue a message for the loop, behind all documents so far."""
        if isinstance(message, Close):
            self._waiting.release_sources()
        with self._order:
            if self._recovered.is_set():
                self._waiting.tell(message)
            else:
                self._told.append(message)

    def recover(self) -> None:
        """Queue what an earlier process has left, then what has come meanwhile; never raises."""
        if self._recovered.is_set() or self._journals is None:
            return
        step = partial(recover, self._journals, self._intake, self._guard)
        self.resumed = self._guard.call("go on with runs of earlier processes", step, 0)
        for _ in range(_ROUNDS):
            self._pour()
        with self._order:
            self._pour()
            self._end_early()
            self._recovered.set()

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
        except Unreadable as error:
            self._note_unreadable(error)
            return None
        if message is None and left < float("inf"):
            return Suspend(self._suspend_for)
        if isinstance(message, Received):
            self._suspect.taken(message)
        elif message is None:
            self._intake.sync_if_due(False)
            self._intake.let_go()  # else files of journals that are done with stay open
            self._suspect.nothing_taken()
        return message

    def sync(self) -> None:
        """Have the disk hold all documents so far, even if the power fails."""
        self._intake.sync()

    def close(self) -> None:
        """Leave the journals that are not finished to the next process."""
        self._waiting.release_sources()
        self._recovered.set()
        for journal in self._intake.journals():
            journal.release()
        self._suspect.clear()
        early, self._early = self._early, None
        if early is not None:
            early.journal.release()

    def _put(self, name: str, doc: Document, arrived: float, sender: int, again: bool) -> int:
        """Take a document and return its number; 0 if there is no room for it yet."""
        with self._order:
            put = Put(name, doc, arrived, self._number + 1, sender, again)
            if self._recovered.is_set():
                self._intake.take_in(put)
            elif not self._put_early(put):
                return 0
            self._number += 1
            self._sender = max(self._sender, sender)
            return self._number

    def _put_early(self, put: Put) -> bool:
        """Have a document wait on disk until the runs of earlier processes were read."""
        if self._early is None:
            journal = self._journals.create_early() if self._journals is not None else None
            self._early = EarlyDocuments(journal) if journal is not None else None
        early = self._early
        if early is None:
            return False
        written = self._guard.call("write a document down", partial(early.add, put), False)
        self._intake.written(early.journal)
        self._intake.sync_if_due(False)
        return written

    def _pour(self) -> None:
        """Let in what waits on disk now."""
        early = self._early
        if early is None:
            return
        for _ in range(len(early)):
            if not len(early):  # the rest cannot be found on disk
                return
            each = self._guard.call("read a document that waits on disk", early.take, False)
            if isinstance(each, Put):
                self._intake.take_in(each)
            else:
                self._unread += 1

    def _end_early(self) -> None:
        early, self._early = self._early, None
        if early is not None:
            self._intake.sync()  # first: what is discarded is what the disk holds elsewhere
            early.journal.discard()
        while self._told:
            self._waiting.tell(self._told.pop(0))

    def _note_unreadable(self, error: Unreadable) -> None:
        self._unread += error.count
        if error.journal.derived != self._unreadable:
            self._unreadable = error.journal.derived
            log.error(
                "documents that wait on disk cannot be read, and are left out: %s (further ones "
                "of this run are only counted)",
                error,
            )
