"""Which run does a document belong to? Runs may be interleaved, repeated, or never stopped."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from ptychoseg_stream.errors import DatasetError

from .documents import Document

log = logging.getLogger(__name__)

_LONGEST_UID = 200  # characters

T = TypeVar("T")

_NAMES_ITS_RUN = frozenset({"descriptor", "resource", "stream_resource", "stop"})
_CREATES_UID = frozenset({"descriptor", "resource", "stream_resource"})
_REFERENCE = {
    "event": "descriptor",
    "event_page": "descriptor",
    "stream_datum": "descriptor",
    "datum": "resource",
    "datum_page": "resource",
}


class Router(Generic[T]):
    """Keeps one item per open run and finds it for any document of that run.

    `event_model.RunRouter` is not used: it keeps a run without a stop document for ever, raises on
    a start document that comes twice, and raises for each document of a run it has not seen start.

    Parameters
    ----------
    is_open : callable
        Whether more is to come of a run: old resource documents, which do not name their run, may
        belong to it.
    """

    def __init__(self, is_open: Callable[[T], bool] = lambda _: True) -> None:
        self._is_open = is_open
        self._guessed = False
        self._items: dict[str, T] = {}  # by run uid, the run heard of longest ago first
        self._run_of: dict[str, str] = {}  # uid of a descriptor or resource -> run uid

    def __len__(self) -> int:
        """Return the number of open runs."""
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        """Yield the items, the one whose documents came longest ago first."""
        return iter(list(self._items.values()))

    def add(self, run: str, item: T, references: Iterable[str] = ()) -> None:
        """Open a run; its descriptors and resources may be known already."""
        self._items[run] = item
        self._run_of.update(dict.fromkeys(references, run))

    def remove(self, run: str) -> list[str]:
        """Forget a run and all that belongs to it: the uids returned."""
        self._items.pop(run, None)
        gone = [uid for uid, owner in self._run_of.items() if owner == run]
        for uid in gone:
            del self._run_of[uid]
        return gone

    def find(self, name: str, doc: Document) -> T | None:
        """Return the item of the run of a document; None if that run is not open.

        Raises
        ------
        DatasetError
            For a start document whose uid is none; other documents raise whatever they raise.
        """
        run = self._run(name, doc)
        if run not in self._items:
            return None
        if name in _CREATES_UID:
            self._run_of[doc["uid"]] = run
        self._items[run] = item = self._items.pop(run)  # it was heard of just now
        return item

    def _run(self, name: str, doc: Document) -> str:
        if name == "start":
            return _uid_of(doc)
        if name in _NAMES_ITS_RUN:
            # A stop document must name it: a guess would end the wrong one.
            return doc.get("run_start") or ("" if name == "stop" else self._likely())
        return self._run_of.get(doc.get(_REFERENCE.get(name, ""), ""), "")

    def _likely(self) -> str:
        """Return the run of a document that does not name it: the open one heard of last."""
        possible = [run for run, item in self._items.items() if self._is_open(item)]
        if len(possible) > 1 and not self._guessed:
            self._guessed = True
            log.warning(
                "a resource document does not say of which run it is, and %d are open: taken to be "
                "of run %s, which was heard of last; so are all such documents",
                len(possible),
                possible[-1],
            )
        return possible[-1] if possible else ""


def _uid_of(start: Document) -> str:
    """Return the uid of a run, which becomes the name of many things."""
    uid: object = start["uid"]
    if not isinstance(uid, str) or not 0 < len(uid) <= _LONGEST_UID:
        raise DatasetError(
            f"a start document has uid {uid!r:.80}: it must be a text of 1 to {_LONGEST_UID} "
            "characters; see who sends it"
        )
    return uid
