"""Documents whose descriptor or resource was missed."""

import logging
from collections.abc import Callable
from typing import Any, cast

from ptychoseg_stream.node.ports import RawStore

from ..assets.keys import ImageKey
from ..documents import Document
from .images import shape_of

log = logging.getLogger(__name__)

_MOST_QUESTIONS = 8  # to the store, per run: each may take a while


class Orphans:
    """Asks the store of raw runs for what was missed, and counts what stays unknown.

    Parameters
    ----------
    run : str
        Uid of the raw run.
    raw : RawStore, optional
        Where raw runs are kept.

    Attributes
    ----------
    images : int
        Documents with images that belong to no known descriptor.
    """

    def __init__(self, run: str, raw: RawStore | None) -> None:
        self._run = run
        self._raw = raw
        self._asked: set[str] = set()
        self._told: set[str] = set()
        self._key = ""
        self.images = 0

    def fetch(self, uid: str, take: Callable[[str, Document], None]) -> None:
        """Ask the store for all notes of the run, once for each uid that is missed."""
        if self._raw is None or uid in self._asked or len(self._asked) >= _MOST_QUESTIONS:
            return
        self._asked.add(uid)
        for name, doc in self._raw.notes_of(self._run):
            take(name, doc)

    def missed(self, what: str, uid: str) -> None:
        """Log once per kind that a descriptor or resource was missed."""
        if what not in self._told:
            self._told.add(what)
            log.warning(
                "run %s: %s %s was missed; its frames are lost unless the raw run's store has them",
                self._run,
                what,
                uid,
            )

    def event(self, doc: Document) -> None:
        """Count an event whose descriptor was missed, if it may have had an image."""
        self.missed("descriptor", str(doc["descriptor"]))
        for key, value in cast(dict[str, Any], doc["data"]).items():
            external = key in (doc.get("filled") or {})
            if external or len(shape_of(value)) >= 2:
                self._key = self._key or key
                self.images += 1
                return

    def stream_datum(self, doc: Document) -> None:
        """Count a stream_datum whose descriptor was missed."""
        self.missed("descriptor", str(doc["descriptor"]))
        self.images += 1

    def source(self, stream: str) -> ImageKey:
        """Return what is known of images whose descriptor was missed."""
        return ImageKey(stream, self._key or "unknown", (0, 0), 1, "")
