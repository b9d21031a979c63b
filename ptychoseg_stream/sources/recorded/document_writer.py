"""Records runs: every document into a msgpack file, as it comes."""

import logging
from collections.abc import Mapping
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import IO, Any

from ptychoseg_callbacks.documents import encode

from ...errors import SourceError
from ...node.guard import Guard

log = logging.getLogger(__name__)

SUFFIX = ".msgpack"


class DocumentWriter:
    """A callback for ``RE.subscribe`` that records documents for ``ptychoseg replay``.

    The form is that of suitcase-msgpack: records ``[name, doc]``, arrays included. It never raises
    into the RunEngine: what the disk does not take is not recorded, and a line in the log says so.
    It writes at once, on the RunEngine's thread: give it a disk of this machine.

    Parameters
    ----------
    path : str or path
        A folder, which is made: each run gets a new file ``<time>-<uid>.msgpack``, and runs that
        overlap share one. Or a new file ``NAME.msgpack`` for all documents to come.

    Raises
    ------
    SourceError
        The file is there already, or cannot be made.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path).expanduser()
        self._guard = Guard(log)
        self._file: IO[bytes] | None = None
        self._open_runs: set[str] = set()
        self._one_file = self._path.suffix == SUFFIX
        try:
            if self._one_file:
                self._file = self._path.open("xb", buffering=0)
            else:
                self._path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise SourceError(
                f"{self._path}: there is such a file already; name a new one, or a folder"
            ) from error
        except OSError as error:
            raise SourceError(f"{self._path}: cannot record there ({error})") from error

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Record a document."""
        self._guard.call(f"record documents in {self._path}", lambda: self._take(name, doc), None)

    def close(self) -> None:
        """End the file that is being written."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self._open_runs.clear()

    def _take(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "start":
            self._guard.renew()
            self._open_runs.add(doc["uid"])
            if self._file is None and not self._one_file:
                self._file = self._new_file(doc)
        if self._file is not None:
            self._write(self._file, encode([name, doc]))
        if name == "stop":
            self._open_runs.discard(doc["run_start"])
            if not self._open_runs and not self._one_file:
                self.close()

    def _new_file(self, start: Mapping[str, Any]) -> IO[bytes]:
        began = datetime.fromtimestamp(start["time"]).strftime("%Y%m%d-%H%M%S")
        uid = "".join(c for c in str(start["uid"]) if c.isalnum() or c == "-")[:8]
        path = self._path / f"{began}-{uid}{SUFFIX}"
        for n in range(1, 1000):  # the same run again, replayed
            if not path.exists():
                break
            path = self._path / f"{began}-{uid}-{n}{SUFFIX}"
        return path.open("xb", buffering=0)

    def _write(self, file: IO[bytes], record: bytes) -> None:
        """Write a record whole or not at all: behind half a one, nothing can be read."""
        end = file.tell()
        rest = memoryview(record)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(end)
            file.seek(end)
            raise
