"""Reads frames out of an HDF5 file that a detector is still writing."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import h5py
import hdf5plugin  # noqa: F401  # pyright: ignore[reportUnusedImport]  # registers filters
import numpy as np
from numpy.typing import NDArray

from ptychoseg_stream.errors import DatasetError

# h5py answers a file that is not there yet, or half written, with any of these.
_NOT_YET = (OSError, KeyError, RuntimeError)
_FIRST_PAUSE = 0.001  # [s]


def local_path(uri: str, root_map: Mapping[str, str]) -> str:
    """Return the path of a ``file:`` URI on this machine.

    Parameters
    ----------
    uri : str
        As in a stream_resource document; percent-encoded. A plain path is taken as it is.
    root_map : mapping of str to str
        Folder as the detector names it -> the same folder as mounted here; the longest wins.

    Raises
    ------
    DatasetError
        For any other scheme.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file"):
        raise DatasetError(
            f"cannot read {uri}: only file:// URIs can be read; write frames to files"
        )
    path = unquote(parts.path) if parts.scheme else uri
    for root in sorted(root_map, key=len, reverse=True):
        folder = root.rstrip("/")
        if path == folder or path.startswith(folder + "/"):
            return root_map[root].rstrip("/") + path[len(folder) :]
    return path


class SwmrReader:
    """One dataset of frames in a growing file; the handle stays open, which is 5 times faster.

    Parameters
    ----------
    path, dataset : str
        File and dataset; ``(N, H, W)`` or ``(N, n, H, W)``, which is read as ``(N * n, H, W)``.
    timeout : float
        How long to wait for frames that were announced but are not in the file yet [s]. After it
        ran out once, nothing waits until a read succeeds: a missing file costs one timeout.
    locking : bool, optional
        False reads without HDF5 file locks, for file systems that have none; None: as HDF5 does.
    sleep : callable
        Waits for so many seconds.
    """

    def __init__(
        self,
        path: str,
        dataset: str,
        timeout: float = 2.0,
        locking: bool | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = path
        self._name = dataset
        self._timeout = timeout
        self._locking = locking
        self._sleep = sleep
        self._patient = True
        self._file: h5py.File | None = None
        self._dataset: h5py.Dataset | None = None

    def __str__(self) -> str:
        """Return ``file:dataset``, for messages."""
        return f"{self._path}:{self._name}"

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames [start, stop), or the first of them if the file does not grow in time.

        Returns
        -------
        ndarray
            ``(n, H, W)`` with ``n <= stop - start``, of the dtype of the dataset.

        Raises
        ------
        DatasetError
            When the file or the dataset is missing, unreadable, or not a stack of images.
        """
        problem: Exception | None = None
        rows: NDArray[Any] | None = None
        for pause in self._pauses():
            self._sleep(pause)
            try:
                rows, problem = self._rows(start, stop), None
            except _NOT_YET as error:
                self.close()
                problem = error
            else:
                if len(rows) == stop - start:
                    self._patient = True
                    return rows
        self._patient = False
        if rows is None or problem is not None:
            raise DatasetError(f"cannot read frames from {self}: {_text(problem)}; {_HINT}")
        return rows

    def close(self) -> None:
        """Give the file back; a later `read` opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = self._dataset = None

    def _pauses(self) -> Iterator[float]:
        """Yield 0, then doubling pauses that add up to the timeout."""
        yield 0.0
        pause, left = _FIRST_PAUSE, self._timeout if self._patient else 0.0
        while left > 0:
            yield min(pause, left)
            left -= pause
            pause *= 2

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return those of the frames [start, stop) that are in the file by now."""
        dataset = self._open() if self._dataset is None else self._dataset
        self._dataset = dataset
        dataset.refresh()
        per = dataset.shape[1] if dataset.ndim == 4 else 1
        first = start // per
        rows = np.asarray(dataset[first : -(-stop // per)])
        frames = rows.reshape(-1, *rows.shape[-2:])  # (n, h, w)
        return frames[start - first * per : stop - first * per]

    def _open(self) -> h5py.Dataset:
        file = h5py.File(self._path, "r", libver="latest", swmr=True, locking=self._locking)
        self._file = file
        dataset = file[self._name]
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim not in (3, 4):
            shape = getattr(dataset, "shape", "of a group")
            self.close()
            raise DatasetError(
                f"{self} has shape {shape}; frames are (N, H, W) or (N, n, H, W): "
                "name another dataset or data key"
            )
        return dataset


_HINT = (
    "check that the file is there and visible from this machine (root_map), "
    "and that its writer is in SWMR mode"
)


def _text(error: Exception | None) -> str:
    """Return the message of an h5py error; str() of a KeyError would put it in quotes."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
