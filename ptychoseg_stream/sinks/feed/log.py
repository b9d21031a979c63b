"""The messages of one run on disk: message number n is record n."""

import logging
import os
from array import array
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ptychoseg_callbacks.journals.record_log import RecordLog

from ...errors import FeedError
from ...node.disk import locked
from .wire import Message, join, split, unpack, unpack_header

log = logging.getLogger(__name__)

_PASSING = ("frame", "products")
"""Kinds of nearly all bytes of a log, which nothing that follows builds on."""


class RunLog:
    """The messages of one run; used by one thread, and closed to all other processes.

    A log that was cut off by a crash loses what is behind its last whole message.

    Parameters
    ----------
    path : Path
        Its file.
    new : bool
        Whether it is made if it is not there.

    Attributes
    ----------
    run, derived : str
        Uids, as the first message has them; empty without any.
    tiled : str
        Address of the derived run, as the first message has it.
    ended : bool
        Whether its last message is the end of the run.
    gone : str
        Why there will be no more messages, although the run has more; empty if that is not so.
    largest : int
        Bytes of the largest message.
    index : int
        Index of the frame behind the last one in it.

    Raises
    ------
    OSError
        If the file cannot be opened or read, or another process has it open (BlockingIOError).
    """

    def __init__(self, path: Path, *, new: bool = False) -> None:
        self.path = path
        self.run = self.derived = self.tiled = self.gone = ""
        self.ended = False
        self.largest = 1
        self.index = 0
        self._offsets = array("Q")
        self._lasting = array("Q")  # messages of the other kinds
        with ExitStack() as undo:
            # Who looks for torn records cuts them off: nobody may be writing.
            self._lock = locked(path, os.O_CREAT if new else 0)
            undo.callback(os.close, self._lock)
            self._records = RecordLog(path)
            undo.callback(self._records.close)
            self._recover()
            undo.pop_all()

    def __len__(self) -> int:
        """Return the number of messages."""
        return len(self._offsets)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._records.end

    def append(self, parts: list[bytes]) -> None:
        """Write the next message.

        Raises
        ------
        OSError
            If the disk is full or broken; the log is then as it was before.
        """
        record = join(parts)
        self._take(self._records.append(record), *unpack_header(parts), len(record))

    def read(self, seq: int) -> list[bytes]:
        """Return the parts of a message.

        Raises
        ------
        OSError, FeedError
            If it cannot be read.
        """
        return split(self._records.read(self._offsets[seq])[0])

    def lasting(self) -> Iterator[Message]:
        """Read all messages that those behind them build on: all but frames and products.

        Raises
        ------
        OSError, FeedError
            As `read`.
        """
        return (unpack(self.read(seq)) for seq in self._lasting)

    def close(self) -> None:
        """Give the file back; once."""
        self._records.close()
        os.close(self._lock)

    def _recover(self) -> None:
        """Find the messages of an earlier process; those behind a damaged one are of no use."""
        for offset, record, _ in self._records.recover():
            kind, header = _header(record)
            if self._records.damaged or header.get("seq") != len(self._offsets):
                self.gone = "what the feed keeps of this run is damaged"
                log.error("%s is damaged behind message %d", self.path, len(self) - 1)
                return
            self._take(offset, kind, header, len(record))

    def _take(self, offset: int, kind: str, header: Mapping[str, Any], size: int) -> None:
        """Remember the next message, of which so many bytes are at an offset."""
        if kind not in _PASSING:
            self._lasting.append(len(self._offsets))
        self._offsets.append(offset)
        self.largest = max(self.largest, size)
        self.ended = kind == "stop"
        if kind == "frame" and isinstance(index := header.get("index"), int):
            self.index = index + 1
        if kind == "start":
            self.run, self.derived, self.tiled = (
                str(header.get(name, "")) for name in ("run", "derived", "tiled")
            )


def first_header(path: Path) -> Mapping[str, Any]:
    """Return the first header of a log that others may be writing; empty if there is none."""
    try:
        records = RecordLog(path)
    except OSError:
        return {}
    try:
        return _header(records.read(0)[0])[1]
    except OSError:
        return {}
    finally:
        records.close()


def _header(record: bytes) -> tuple[str, Mapping[str, Any]]:
    """Return kind and header of a message; empty if it is none."""
    try:
        return unpack_header(split(record))
    except FeedError:
        return "", {}
