"""All that is known of a run whose documents are read."""

from collections.abc import Callable, Mapping
from typing import Any

from ptychoseg_stream.node.ports import RawStore

from ..documents import Document
from .choice import Choice
from .files import Files
from .gaps import Gaps
from .options import FinderOptions
from .orphans import Orphans
from .positions import Positions
from .scalars import Scalars
from .series import Series
from .supply import Supply


class Known:
    """What the documents of a run said so far, and what can be asked because of it.

    Parameters
    ----------
    start, options, raw, handlers
        As in `ptychoseg_callbacks.frames.finder.FrameFinder`.
    """

    def __init__(
        self,
        start: Document,
        options: FinderOptions,
        raw: RawStore | None,
        handlers: Mapping[str, Callable[..., Any]] | None,
    ) -> None:
        self.run = run = str(start["uid"])
        self.options = options
        self.choice = Choice(run, options)
        self.files = Files(options, handlers)
        self.supply = Supply(run, options, self.files, raw)
        self.orphans = Orphans(run, raw)
        self.gaps = Gaps(self.choice, self.files, self.orphans, options.max_gap)
        self.series = Series(run, self.supply, self.files, options.max_gap)
        scalars = Scalars(self.files, options.reader())
        self.positions = Positions(run, start, options.positions, scalars)
        self.notes: dict[str, Callable[[Document], None]] = {
            "descriptor": self._describe,
            "resource": lambda doc: self.files.note("resource", doc),
            "stream_resource": lambda doc: self.files.note("stream_resource", doc),
            "datum": self.files.note_datum,
            "datum_page": self.files.note_datum_page,
        }

    def _describe(self, doc: Document) -> None:
        self.choice.note(doc)
        has_images = self.choice.source(doc["uid"]) is not None
        self.positions.describe(str(doc.get("name", "")), doc, has_images)

    def descriptor(self, uid: str) -> bool:
        """Return whether a descriptor is known, if need be from the store of raw runs."""
        if not self.choice.knows(uid):
            self.orphans.fetch(uid, self.note_missed)
        return self.choice.knows(uid)

    def resource(self, uid: str) -> bool:
        """Return whether a (stream) resource is known, if need be from the store of raw runs."""
        if not self.files.knows(uid):
            self.orphans.fetch(uid, self.note_missed)
        return self.files.knows(uid)

    def note_missed(self, name: str, doc: Document) -> None:
        """Take a note from the store if it was not received."""
        known = self.choice.knows if name == "descriptor" else self.files.knows
        if name in ("descriptor", "resource", "stream_resource") and not known(doc["uid"]):
            self.notes[name](doc)
