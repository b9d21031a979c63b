"""Bytes from a network become documents; what cannot be read is counted, logged once, left out."""

import logging
from typing import Any, cast

from ptychoseg_callbacks.documents import Document, decode

DOCUMENT_NAMES = frozenset(
    {
        "start",
        "descriptor",
        "event",
        "event_page",
        "bulk_events",
        "resource",
        "datum",
        "datum_page",
        "bulk_datum",
        "stream_resource",
        "stream_datum",
        "stop",
    }
)

# What msgpack and NumPy raise at bytes that were cut, mixed up or made to hurt.
_UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    MemoryError,
)
_PICKLES = {bytes([0x80, protocol]) for protocol in range(2, 6)}
_MAX_TEXT = 120  # characters of somebody else's bytes in one line of our log


class Messages:
    """Reads the messages of one source; nothing in them is ever executed.

    Parameters
    ----------
    origin : str
        Where the messages come from; begins each line of the log.
    advice : str
        What the sender has to do so that its messages can be read.
    log : logging.Logger
        Takes one line per kind of message that cannot be read.

    Attributes
    ----------
    unreadable : int
        Messages left out so far.
    """

    def __init__(self, origin: str, advice: str, log: logging.Logger) -> None:
        self.unreadable = 0
        self._origin = origin
        self._advice = advice
        self._log = log
        self._told: set[str] = set()

    def read_named(self, message: bytes) -> tuple[str, Document] | None:
        """Read ``prefix name document``, as bluesky's 0MQ publisher sends; None if that fails."""
        parts = message.split(b" ", 2)
        if len(parts) != 3:
            return self._leave_out("format", f"{len(message)} bytes that no Publisher sends")
        return self._document(parts[1].decode("ascii", "replace"), parts[2])

    def read_pair(self, message: bytes) -> tuple[str, Document] | None:
        """Read ``[name, document]``, as bluesky-kafka's publisher sends; None if that fails."""
        decoded = self._decoded(message)
        if decoded is None:
            return None
        pair = decoded[0]
        if not isinstance(pair, list) or len(cast(list[Any], pair)) != 2:
            return self._leave_out("format", "msgpack that is not [name, document]")
        name, document = cast(list[Any], pair)
        return self._checked(name, document)

    def _document(self, name: str, data: bytes) -> tuple[str, Document] | None:
        if name not in DOCUMENT_NAMES:  # before anything is unpacked
            return self._checked(name, {})
        decoded = self._decoded(data)
        return None if decoded is None else self._checked(name, decoded[0])

    def _checked(self, name: Any, document: Any) -> tuple[str, Document] | None:
        if not isinstance(name, str) or name not in DOCUMENT_NAMES:
            shown = ascii(name)[:_MAX_TEXT]
            return self._leave_out("name", f"a message named {shown}, which is no document")
        if not isinstance(document, dict):
            return self._leave_out("type", f"a {name} document that is not a dictionary")
        return name, cast(Document, document)

    def _decoded(self, data: bytes) -> tuple[Any] | None:
        """Return what `data` holds, which may be None; None itself if it cannot be read."""
        try:
            return (decode(data),)
        except _UNREADABLE as error:
            if data[:2] in _PICKLES:
                return self._leave_out("pickle", "a pickle: it could run any code, so none is read")
            why = ascii(str(error))[1:-1][:_MAX_TEXT]
            return self._leave_out(
                "bytes", f"{len(data)} bytes that cannot be read ({type(error).__name__}: {why})"
            )

    def _leave_out(self, kind: str, what: str) -> None:
        self.unreadable += 1
        if kind not in self._told:
            self._told.add(kind)
            self._log.error(
                "%s: left out %s; %s (further ones are only counted)",
                self._origin,
                what,
                self._advice,
            )
