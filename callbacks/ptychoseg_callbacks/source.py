"""Where documents come from, other than a RunEngine in this process."""

import threading
from collections.abc import Callable
from typing import Protocol, TypeAlias

from .documents import Document

Callback: TypeAlias = Callable[[str, Document], int]
"""``callback(name, doc)``: takes a document, returns its number, counted from 1 over the source.

It may wait, where the profile says so; it never raises. The document must not be changed later.
"""


class Source(Protocol):
    """Feeds documents into a callback; each kind is a module of `ptychoseg_stream.sources`."""

    @property
    def redelivers(self) -> bool:
        """Whether documents that were processed before may come again, after a restart."""
        ...

    def run(self, callback: Callback, stopping: threading.Event) -> None:
        """Feed documents until there are no more, or `stopping` is set; on a thread of its own.

        A connection that breaks is made again. What cannot be read is logged and left out.

        Raises
        ------
        SourceError
            If the source cannot be used at all; the text says what to do.
        """
        ...

    def stored(self, number: int) -> None:
        """Learn that all documents up to `number` are processed and their rows safe; any thread."""
        ...
