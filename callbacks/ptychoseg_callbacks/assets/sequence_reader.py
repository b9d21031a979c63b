"""Reads frames out of a sequence of files, each with one frame or as many as the others."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ptychoseg_stream.errors import DatasetError

from .hdf5_reader import explain
from .paths import FileNames
from .patience import Patience
from .tiff_reader import DAMAGED

log = logging.getLogger(__name__)

# (path, first, last) -> those of the frames [first, last) of one file that are there, (n, H, W)
FileReader: TypeAlias = Callable[[str, int, int], NDArray[Any]]


class SequenceReader:
    """Frames of numbered files; frame i is frame ``i % per_file`` of file ``i // per_file``.

    Parameters
    ----------
    names : FileNames
        Of the files; a name without a number is one file with all frames.
    per_file : int
        Frames per file.
    read_file : callable
        Reads frames of one file; raises `DatasetError` for good, anything of `DAMAGED` if the
        file may be there later.
    patience : Patience
        How long to wait for files.
    most : int
        About so many bytes are read at once.
    what : str
        The dataset of each file, for messages; empty: there is none.
    """

    def __init__(
        self,
        names: FileNames,
        per_file: int,
        read_file: FileReader,
        patience: Patience,
        most: int,
        what: str = "",
    ) -> None:
        self._names = names
        self._per_file = per_file
        self._read_file = read_file
        self._patience = patience
        self._most = most
        self._what = what
        self._told = False

    def __str__(self) -> str:
        """Return ``file:dataset`` with the template of the names, for messages."""
        return f"{self._names}:{self._what}" if self._what else str(self._names)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames [start, stop), or the first of them; see `readers.Reader`.

        Raises
        ------
        DatasetError
            When the file of frame `start` cannot be read, and none of the others is there.
        """
        parts: list[NDArray[Any]] = []
        for path, first, last in self._files(start, stop):
            try:
                part = self._wait_for(path, first, last)
            except DatasetError as error:
                if not parts and not self._is_any_there(start, stop):
                    raise
                self._tell(error)
                break
            if parts and (part.shape[1:], part.dtype) != (parts[0].shape[1:], parts[0].dtype):
                break
            parts.append(part)
            if len(part) < last - first or sum(p.nbytes for p in parts) >= self._most:
                break
        return np.concatenate(parts) if parts else np.empty((0, 0, 0), np.uint8)

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _files(self, start: int, stop: int) -> Iterator[tuple[str, int, int]]:
        """Yield the path of each file, and which of its frames are wanted."""
        if not self._names.numbered:
            yield self._names.of(0), start, stop
            return
        while start < stop:
            number, first = divmod(start, self._per_file)
            last = min(self._per_file, first + stop - start)
            yield self._names.of(number), first, last
            start += last - first

    def _wait_for(self, path: str, first: int, last: int) -> NDArray[Any]:
        problem = ""
        part: NDArray[Any] | None = None
        for _ in self._patience.attempts():
            try:
                part, problem = self._read_file(path, first, last), ""
            except DAMAGED as error:
                problem = explain(error, growing=bool(self._what))
            else:
                if len(part) == last - first or self._is_full(part):
                    self._patience.succeeded()
                    return part
        self._patience.failed()
        if part is None or problem:
            where = f"{path}:{self._what}" if self._what else path
            raise DatasetError(f"cannot read frames from {where}: {problem}")
        return part

    def _is_full(self, part: NDArray[Any]) -> bool:
        return len(part) > 0 and part.nbytes + part[0].nbytes > self._most

    def _is_any_there(self, start: int, stop: int) -> bool:
        return any(Path(path).exists() for path, _, _ in list(self._files(start, stop))[1:])

    def _tell(self, error: DatasetError) -> None:
        """Log why the first frame is left out; whoever reads on goes past it."""
        if not self._told:
            self._told = True
            log.warning("%s (further files like this are not told)", error)
