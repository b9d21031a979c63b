"""Documents that come while the runs of an earlier process are read: they wait on disk."""

import threading
from dataclasses import dataclass, replace
from typing import Any, cast

from ..documents import Document
from ..journals.journal import Entry, Journal

_NAME = "put"  # of the records: each holds a document, and how it was put in


@dataclass(frozen=True, slots=True)
class Put:
    """A document as it was put into an inbox.

    Parameters
    ----------
    name, doc, arrived, sender, redelivered
        As in `ptychoseg_callbacks.queueing.inbox.Inbox.put`.
    number : int
        Counted from 1; 0: another process has taken it.
    """

    name: str
    doc: Document
    arrived: float
    number: int = 0
    sender: int = 0
    redelivered: bool = False


class EarlyDocuments:
    """A queue on disk: whose documents these are is not known yet.

    One thread adds, another one may take.

    Parameters
    ----------
    journal : Journal
        Of no run; see `ptychoseg_callbacks.journals.folder.Journals.create_early`.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._next = 0  # where the first document begins that was not taken
        self._count = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of documents that were not taken."""
        return self._count

    def add(self, put: Put) -> bool:
        """Write a document down; False if that cannot be done.

        Raises
        ------
        ValueError, TypeError
            For a document that cannot be encoded.
        """
        fields = {"name": put.name, "doc": put.doc, "number": put.number}
        record = {**fields, "sender": put.sender, "redelivered": put.redelivered}
        with self._lock:
            offset, _ = self.journal.append(_NAME, record, put.arrived, put.sender)
            self._count += offset >= 0
        return offset >= 0

    def take(self) -> Put:
        """Return the first document, of at least one.

        Raises
        ------
        OSError, ValueError
            If it cannot be read. It is left out; if nobody knows where the next one begins, so are
            all others.
        """
        with self._lock:
            offset = self._next
            after = self.journal.following(offset)
            self._next = after or self.journal.end
            self._count = self._count - 1 if after else 0
        return put_of(self.journal.read(offset)[0])


def put_of(entry: Entry, again: bool = False) -> Put:
    """Return the document in a record of an early journal.

    Parameters
    ----------
    entry : Entry
    again : bool
        Whether an earlier process wrote it: that may have let it in, too.
    """
    put = Put(arrived=entry.arrived, **cast(dict[str, Any], entry.doc))
    return replace(put, number=0, sender=0, redelivered=True) if again else put
