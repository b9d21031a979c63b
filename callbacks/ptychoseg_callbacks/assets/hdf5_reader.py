"""Reads frames out of an HDF5 file that a detector may still be writing."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychoseg_stream.errors import DatasetError

from .chunks import leading_index
from .hdf5_open import open_dataset
from .hdf5_storage import storage_of
from .options import ReaderOptions
from .paths import Fence
from .patience import Patience

# h5py answers a file that is not there yet, half written or damaged with any of these.
NOT_YET = (OSError, KeyError, RuntimeError, ValueError, TypeError)
_KINDS = "biuf"  # of NumPy: real numbers


class Hdf5Frames:
    """One dataset of frames, open; the handle stays open, which is 5 times faster.

    Parameters
    ----------
    path, name : str
        File and dataset: ``(N, H, W)``, or ``(N, n, ..., H, W)`` which is read as
        ``(N * n * ..., H, W)``.
    options : ReaderOptions
        Limits.
    fence : Fence
        Which files may be read.
    single : bool
        Whether a dataset ``(H, W)`` is one frame; else it is a table, and refused.

    Attributes
    ----------
    most : int
        So many frames are read at once at most.

    Raises
    ------
    DatasetError
        When it must not be read, or does not hold frames.
    OSError, KeyError, RuntimeError, ValueError, TypeError
        When it is not there (yet), or damaged.
    """

    def __init__(
        self, path: str, name: str, options: ReaderOptions, fence: Fence, single: bool = False
    ) -> None:
        self._where = f"{path}:{name}"
        self._options = options
        fence.check(path)
        self._opened = open_dataset(path, name, fence, options.locking)
        with ExitStack() as undo:
            undo.callback(self._opened.close)
            self._dataset = self._opened.dataset
            self._check_type()
            self._storage = storage_of(self._opened, self._where, fence, options)
            # A refresh forgets where raw files are sought; such a dataset cannot grow anyway.
            self._grows = not self._dataset.external
            self._shape: tuple[int, ...] = self._dataset.shape
            self.most = self._frames_at_once(single)
            undo.pop_all()

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames [start, stop), or the first of them that are stored; ``(n, H, W)``."""
        if self._grows:
            self._dataset.refresh()
        shape = self._dataset.shape
        if shape[1:] != self._shape[1:]:
            raise OSError(f"the shape of {self._where} changed from {self._shape} to {shape}")
        stop = min(stop, start + self.most, math.prod(shape[:-2]))
        stop = start + self._storage.stored(start, stop) if stop > start else start
        parts = [self._part(first, last) for first, last in _runs(start, stop, shape)]
        if len(parts) == 1:
            return parts[0]
        empty = np.empty((0, *shape[-2:]), self._dataset.dtype)
        return np.concatenate(parts) if parts else empty

    def _part(self, first: int, last: int) -> NDArray[Any]:
        """Read frames that follow each other along one axis."""
        where = leading_index(first, self._shape)
        part = (*where[:-1], slice(where[-1], where[-1] + last - first)) if where else ()
        return np.asarray(self._dataset[part]).reshape(last - first, *self._shape[-2:])

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def _check_type(self) -> None:
        dtype = self._dataset.dtype
        if dtype.kind not in _KINDS or dtype.itemsize > 8 or dtype.subdtype is not None:
            raise DatasetError(
                f"{self._where} holds {dtype}, which is no real number: name another dataset or "
                "data key"
            )

    def _frames_at_once(self, single: bool) -> int:
        """Check the size of a frame; return how many of them one read may have."""
        shape = self._shape
        if len(shape) < (2 if single else 3):
            raise DatasetError(
                f"{self._where} has shape {shape}; frames are (N, H, W) or (N, n, H, W): "
                "name another dataset or data key"
            )
        check_frame_size(self._where, shape[-2:], self._dataset.dtype, self._options)
        size = math.prod(shape[-2:]) * self._dataset.dtype.itemsize
        return self._options.max_read_bytes // size


class Hdf5Reader:
    """Frames of one dataset of a growing file; waits for those that were announced.

    Parameters
    ----------
    path, name, options, fence
        See `Hdf5Frames`.
    patience : Patience, optional
        How long to wait.
    """

    def __init__(
        self,
        path: str,
        name: str,
        options: ReaderOptions,
        fence: Fence,
        patience: Patience | None = None,
    ) -> None:
        self._path = path
        self._name = name
        self._options = options
        self._fence = fence
        self._patience = patience or Patience(options.read_timeout)
        self._frames: Hdf5Frames | None = None

    def __str__(self) -> str:
        """Return ``file:dataset``, for messages."""
        return f"{self._path}:{self._name}"

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames [start, stop), or the first of them; see `readers.Reader`."""
        problem = ""
        stack: NDArray[Any] | None = None
        for _ in self._patience.attempts():
            try:
                if self._frames is None:
                    self._frames = Hdf5Frames(self._path, self._name, self._options, self._fence)
                stack, problem = self._frames.read(start, stop), ""
            except DatasetError:
                self.close()
                raise
            except NOT_YET as error:
                self.close()
                problem = explain(error)
            else:
                if len(stack) == min(stop - start, self._frames.most):
                    self._patience.succeeded()
                    return stack
        self._patience.failed()
        if stack is None or problem:
            raise DatasetError(f"cannot read frames from {self}: {problem}")
        return stack

    def close(self) -> None:
        """Give the file back; a later `read` opens it again."""
        if self._frames is not None:
            self._frames.close()
        self._frames = None


def check_frame_size(
    where: str, shape: tuple[int, ...], dtype: np.dtype[Any], options: ReaderOptions
) -> None:
    """Refuse frames that are too large, or empty.

    Raises
    ------
    DatasetError
        Naming the size and the option.
    """
    pixels = math.prod(shape)
    if not pixels:
        raise DatasetError(f"{where} has frames of {shape}, which are empty: name another dataset")
    if pixels > options.max_pixels:
        raise DatasetError(
            f"{where} has frames of {shape}, {pixels} px, of which at most {options.max_pixels} "
            "are read: raise frames.max_pixels of the profile if that is right"
        )
    if pixels * dtype.itemsize > options.max_read_bytes:
        raise DatasetError(
            f"{where} has frames of {shape} {dtype}, {pixels * dtype.itemsize} bytes each, of "
            f"which at most {options.max_read_bytes} are read at once: raise "
            "frames.max_read_bytes of the profile if that is right"
        )


def explain(error: Exception, growing: bool = True) -> str:
    """Return what h5py (or tifffile) said, and what to do."""
    # str() of a KeyError would put its text in quotes.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, BlockingIOError):
        return (
            f"{text}; its writer holds a lock: let it write in SWMR mode, or set frames.locking: "
            "false in the profile, which reads what was flushed"
        )
    mode = ", and that its writer is in SWMR mode" if growing else ""
    return f"{text}; check that the file is there and visible from this machine (root_map){mode}"


def _runs(start: int, stop: int, shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield ranges of frames that follow each other along the third axis from the end."""
    inner = shape[-3] if len(shape) > 3 else max(stop, 1)
    while start < stop:
        last = min(stop, (start // inner + 1) * inner)
        yield start, last
        start = last
