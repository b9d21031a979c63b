"""The documents of an open run on disk: a node that was killed goes on where it was.

::

    <spool.folder>/runs/<uid of the derived run>/
        run.json         raw and derived uid, when it began, whose it is, on which machine
        documents.log    every document, arrays included, in the order of arrival
        checkpoint       what the labeller remembers after so many frames
        attempts         how often it was gone on with in vain, if it was
        lock             locked by the process that works on the run; the kernel unlocks it
    <spool.folder>/runs/finished    raw runs that were processed completely, the last ones
"""

import logging
import os
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychoseg_stream.node.disk import check_free, write_whole
from ptychoseg_stream.node.spool import SpoolOptions

from ..documents import Document, decode, encode
from .attempts import Attempts
from .record_log import RecordLog

log = logging.getLogger(__name__)

_LOOK_EVERY = 1 << 20  # bytes written between two looks at what is free on the disk
ABOUT, LOCK = "run.json", "lock"
_DOCUMENTS, _CHECKPOINT = "documents.log", "checkpoint"


@dataclass(frozen=True, slots=True)
class Entry:
    """A document of a journal: when it arrived [s since the epoch], its number at who sent it."""

    name: str
    doc: Document
    arrived: float
    sender: int


class Journal:
    """The journal of one open run; `ptychoseg_callbacks.journals.folder.Journals` makes it.

    One thread appends, another one may read, save checkpoints, and finish it.

    Attributes
    ----------
    raw, derived : str
        Uids of the raw and the derived run.
    began : float
        When the run began [s since the epoch].
    resumed : bool
        Whether an earlier process began it.
    folder : Path
        Where it is.
    broken : str
        Why no more documents are written down; empty while they are.
    finished : bool
        Whether the run is done with, here.
    aside : bool
        Whether the run is not processed: its documents are only written down, for later attempts.
    """

    def __init__(
        self,
        folder: Path,
        about: dict[str, Any],
        lock: int,
        options: SpoolOptions,
        remember: Callable[[str], None],
        resumed: bool,
        aside: bool = False,
    ) -> None:
        self.raw: str = about["raw"]
        self.derived: str = about["derived"]
        self.began: float = about["began"]
        self.resumed = resumed
        self.broken = ""
        self.finished = False
        self.aside = aside
        self.folder = folder
        self._options = options
        self._remember = remember
        self._attempts = Attempts(folder)
        self._log = RecordLog(folder / _DOCUMENTS)
        # Last: whoever made the lock gives it back if this fails.
        self._unlock = weakref.finalize(self, os.close, lock)
        self._guard = threading.Lock()
        self._looked = self._log.end  # size of the log when the free space was looked at
        self._dirty = False
        self._documents = 0
        self._to_tell = False

    @property
    def end(self) -> int:
        """Where the next document will be written [bytes]."""
        return self._log.end

    def append(self, name: str, doc: Document, arrived: float, sender: int) -> tuple[int, Entry]:
        """Write a document down; return where, and the document as it will be read again.

        Returns
        -------
        offset : int
            -1 if it could not be written: `broken` says why, and so did a line of the log.
        entry : Entry

        Raises
        ------
        ValueError, TypeError
            For a document that cannot be encoded.
        """
        record = encode([name, doc, arrived, sender])
        entry = Entry(*decode(record))
        with self._guard:
            if self.broken or self.finished:
                return -1, entry
            try:
                self._look()
                self._dirty = True
                offset = self._log.append(record)
                self._documents += 1
                self._to_tell = self.aside
                return offset, entry
            except OSError as error:
                self._break(error)
                return -1, entry

    def read(self, offset: int) -> tuple[Entry, int]:
        """Return the document at an offset, and where the next one begins.

        Raises
        ------
        OSError
            If it cannot be read.
        """
        record, after = self._log.read(offset)
        return Entry(*decode(record)), after

    def recover(self) -> Iterator[tuple[int, Entry, int]]:
        """Yield offset, document and offset of the next one; damaged ones are left out.

        Raises
        ------
        OSError
            If the disk cannot be read.
        """
        self._documents = 0
        for offset, record, after in self._log.recover():
            self._documents += 1
            yield offset, Entry(*decode(record)), after
        if self._log.damaged:
            log.error(
                "run %s: documents in its journal %s are damaged, and %d are left out: their "
                "frames are filled in from the raw run's store or files, or lost. Check that disk",
                self.raw,
                self.folder,
                self._log.damaged,
            )

    def following(self, offset: int) -> int:
        """Return where the document behind one that cannot be read begins; 0 if nobody knows."""
        return self._log.following(offset)

    def attempt(self) -> None:
        """Note that its next document is replayed: it counts until `spare`, or a new checkpoint."""
        if not self.finished and not self.aside:
            self._attempts.reach()

    def spare(self) -> None:
        """Take back what `attempt` noted: the run did no harm."""
        if not self.finished and not self.aside:
            self._attempts.undo()

    def sync(self) -> None:
        """Have the disk hold all documents so far, even if the power fails; never raises."""
        if not self._dirty or self.broken:
            return
        self._dirty = False
        try:
            self._log.sync()
        except OSError as error:
            with self._guard:
                self._break(error)

    def load_checkpoint(self) -> bytes:
        """Return what was saved last; nothing if there is none."""
        try:
            return (self.folder / _CHECKPOINT).read_bytes()
        except FileNotFoundError:
            return b""

    def save_checkpoint(self, data: bytes) -> None:
        """Replace the checkpoint, whole or not at all.

        Raises
        ------
        OSError
            If the disk is full or broken; the checkpoint before is still there.
        """
        write_whole(self.folder / _CHECKPOINT, data)
        self._attempts.reset()

    def finish(self) -> None:
        """Forget the run: all of it is stored. Never raises."""
        try:
            if not self.finished:
                self._remember(self.raw)
        except OSError as error:
            log.warning("run %s: nobody will know that it was processed: %s", self.raw, error)
        self.discard()

    def discard(self) -> None:
        """Remove the journal, as if the run had never been. Never raises."""
        with self._guard:
            if self.finished:
                return
            self.finished = True
        try:
            (self.folder / ABOUT).unlink(missing_ok=True)  # without it, this is no journal
            shutil.rmtree(self.folder)
        except OSError as error:
            log.warning(
                "run %s: cannot remove its journal %s: %s; remove the folder by hand",
                self.raw,
                self.folder,
                error,
            )
        self._unlock()

    def refuse(self) -> None:
        """Leave the run, which cannot be opened, to later attempts; never raises.

        What comes of it is still written down: they need all of it.
        """
        with self._guard:
            if self.finished or self.aside:
                return
            self.aside = self._to_tell = True
        self._attempts.refuse()

    def tell_aside(self) -> None:
        """Say, if that is news, how many documents wait for the run to be tried again."""
        with self._guard:
            news, self._to_tell = self._to_tell, False
        if news:
            log.error(
                "run %s is not processed: it could not be opened, or was left aside. Its %d "
                "documents wait in %s. Mend the cause, remove %s if it is there, and start the "
                "node again",
                self.raw,
                self._documents,
                self.folder,
                self._attempts.path,
            )

    def release(self) -> None:
        """Leave the run to whoever finds its journal next."""
        self.sync()
        self.spare()
        self.tell_aside()
        with self._guard:
            self.finished = True
        self._log.close()
        self._unlock()

    def _look(self) -> None:
        if self._log.end - self._looked < _LOOK_EVERY:
            return
        self._looked = self._log.end
        check_free(self.folder, self._options.min_free_bytes)

    def _break(self, error: OSError) -> None:
        self.broken = str(error)
        log.error(
            "run %s: its documents cannot be written to %s any more: %s. The run goes on; but if "
            "the node is killed, the rest of the run is lost. Free space on that disk, or choose "
            "another one (spool.folder)",
            self.raw,
            self.folder,
            error,
        )
