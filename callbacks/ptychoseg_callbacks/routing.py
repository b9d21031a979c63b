"""Which run does a document belong to? Runs may be interleaved, repeated, or never stopped."""

from collections.abc import Iterator
from typing import Generic, TypeVar

from ptychoseg_stream.errors import DatasetError

from .documents import Document

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
    """

    def __init__(self) -> None:
        self._items: dict[str, T] = {}  # by run uid, the run heard of longest ago first
        self._run_of: dict[str, str] = {}  # uid of a descriptor or resource -> run uid

    def __len__(self) -> int:
        """Return the number of open runs."""
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        """Yield the items, the one whose documents came longest ago first."""
        return iter(list(self._items.values()))

    def add(self, run: str, item: T) -> None:
        """Open a run."""
        self._items[run] = item

    def remove(self, run: str) -> None:
        """Forget a run and all that belongs to it."""
        self._items.pop(run, None)
        self._run_of = {uid: owner for uid, owner in self._run_of.items() if owner != run}

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
            # Old resource documents do not name their run; the run heard of last is the best guess.
            # A stop document must name it: it would end the wrong one.
            newest = "" if name == "stop" else next(reversed(self._items), "")
            return doc.get("run_start") or newest
        return self._run_of.get(doc.get(_REFERENCE.get(name, ""), ""), "")


def _uid_of(start: Document) -> str:
    """Return the uid of a run, which becomes the name of many things."""
    uid: object = start["uid"]
    if not isinstance(uid, str) or not 0 < len(uid) <= _LONGEST_UID:
        raise DatasetError(
            f"a start document has uid {uid!r:.80}: it must be a text of 1 to {_LONGEST_UID} "
            "characters; see who sends it"
        )
    return uid
