"""A stack of frames in a file, read frame by frame."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from math import prod
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from ...errors import DatasetError
from .discovery import (
    FRAME_DIMS,
    NUMERIC_KINDS,
    candidates,
    find_energy,
    find_frames,
    find_positions,
    get_dataset,
)

FILTERS = hdf5plugin.PLUGIN_PATH  # importing it is what registers the filters of detectors

# What h5py raises when it walks through a file with damaged groups, links or attributes.
_DAMAGED = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)


class FrameStack(Sequence[NDArray[Any]]):
    """Frames of one dataset; reads what is asked for and nothing else.

    A context manager; leaving it closes the file. Made by `open_stack`.

    Parameters
    ----------
    data : array or h5py.Dataset
        ``(..., H, W)`` with one or two dimensions before the frame; two are counted row by row.
    name : str
        What messages call it, such as ``scan.h5:/entry/data``.
    positions : ndarray, optional
        ``(N, 2)`` y and x of each frame [m].
    energy : float, optional
        Photon energy [eV].
    resources : contextlib.ExitStack, optional
        What `close` releases.

    Attributes
    ----------
    chunks : tuple of int
        As the file stores the data; empty if in one piece.
    """

    def __init__(
        self,
        data: Any,
        name: str,
        positions: NDArray[np.float64] | None = None,
        energy: float | None = None,
        resources: ExitStack | None = None,
    ) -> None:
        """Take the data; nothing is read yet."""
        self._data = data
        self._resources = resources or ExitStack()
        self._outer: tuple[int, ...] = tuple(data.shape[:-2])
        self.chunks: tuple[int, ...] = tuple(getattr(data, "chunks", None) or ())
        self.name = name
        self.positions = positions
        self.energy = energy
        self.dtype: np.dtype[Any] = data.dtype
        self.shape: tuple[int, int, int] = (prod(self._outer), *data.shape[-2:])

    @property
    def grid(self) -> tuple[int, ...]:
        """``(N,)``, or ``(rows, columns)`` of a scan whose frames are kept as a grid."""
        return self._outer

    def __len__(self) -> int:
        """Return the number of frames."""
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """Return ``(H, W)`` for an index, ``(n, H, W)`` for a slice; both read from the file now.

        Raises
        ------
        IndexError
            No such frame.
        DatasetError
            The frame cannot be read (damaged file, a compression filter that is not installed).
        """
        if isinstance(index, slice):
            return self._read_slice(index)
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"{self.name}: no frame {index}, it has {len(self)}")
        return self._read(number)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Read one frame after the other."""
        return (self[i] for i in range(len(self)))

    def __enter__(self) -> "FrameStack":
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; frames that were read stay valid."""
        self._resources.close()

    def _read_slice(self, wanted: slice) -> NDArray[Any]:
        numbers = range(*wanted.indices(len(self)))
        if len(self._outer) == 1 and wanted.step in (None, 1):
            stop = max(numbers.stop, numbers.start)
            return self._get(slice(numbers.start, stop), f"frames {numbers.start} to {stop - 1}")
        out = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for row, number in enumerate(numbers):
            out[row] = self._read(number)
        return out

    def _read(self, number: int) -> NDArray[Any]:
        place = tuple(int(i) for i in np.unravel_index(number, self._outer))
        return self._get(place, f"frame {number}")

    def _get(self, key: slice | tuple[int, ...], what: str) -> NDArray[Any]:
        try:
            return np.array(self._data[key])  # a copy: of a memory map, a view would outlive it
        except (OSError, RuntimeError, ValueError) as error:  # h5py raises any of them
            raise DatasetError(
                f"{self.name}: cannot read {what} ({error}); the file is closed, damaged or "
                "compressed with a filter that is not installed"
            ) from error


def open_stack(target: str | PathLike[str]) -> FrameStack:
    """Open the frames of a file.

    Parameters
    ----------
    target : str or path
        ``file.h5:/path/of/dataset``, or only the file: then the dataset is searched for (NeXus
        attributes, CXI places, the largest numeric stack). HDF5, NeXus and CXI, or ``.npy``.

    Returns
    -------
    FrameStack
        To be closed; a context manager.

    Raises
    ------
    DatasetError
        No such file or dataset, or it does not hold frames; the text says which and what to do.
    """
    path, dataset = split_target(target)
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; give FILE or FILE:/path/of/dataset")
    if path.suffix == ".npy":
        array = _load_npy(path)
        _check(array, str(path))
        return FrameStack(array, str(path))
    with ExitStack() as resources:
        file = resources.enter_context(open_hdf5(path))
        try:
            inner = dataset or find_frames(file)
            data = _dataset(file, inner)
            name = f"{path}:/{inner.lstrip('/')}"
            _check(data, name)
            positions, energy = find_positions(file, prod(data.shape[:-2])), find_energy(file)
        except _DAMAGED as error:
            raise DatasetError(f"{path}: damaged ({_one_line(error)})") from error
        return FrameStack(data, name, positions, energy, resources.pop_all())


def split_target(target: str | PathLike[str]) -> tuple[Path, str]:
    """Split ``file:/dataset``; the dataset is empty when only a file is given."""
    text = str(target)
    head, colon, tail = text.rpartition(":")
    if not colon or len(head) < 2 or Path(text).is_file():  # len 1: the drive of a Windows path
        return Path(text), ""
    return Path(head), tail


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading, also one that a detector still writes in SWMR mode.

    Raises
    ------
    DatasetError
        It is not an HDF5 file, or another program holds it.
    """
    if not h5py.is_hdf5(path):
        raise DatasetError(f"{path}: not an HDF5 file (nor .npy); give an HDF5, NeXus or CXI file")
    try:
        return h5py.File(path, "r")
    except _DAMAGED:
        try:
            return h5py.File(path, "r", libver="latest", swmr=True)
        except _DAMAGED as error:
            raise DatasetError(
                f"{path}: cannot be opened ({error}): damaged, or another program writes it"
            ) from error


def _dataset(file: h5py.File, inner: str) -> h5py.Dataset:
    data = get_dataset(file, inner)
    if data is None:
        found = ", ".join(f"/{path}" for path in candidates(file)) or "none"
        raise DatasetError(
            f"{file.filename}: no dataset {inner!r}; datasets that could hold frames: {found}"
        )
    return data


def _load_npy(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DatasetError(f"{path}: not a plain .npy array ({error})") from error


def _check(data: Any, name: str) -> None:
    if data.dtype.kind not in NUMERIC_KINDS:
        raise DatasetError(
            f"{name}: dtype {data.dtype} is not a real number; give a dataset of counts"
        )
    if data.ndim not in FRAME_DIMS:
        raise DatasetError(
            f"{name}: shape {data.shape} has {data.ndim} dimensions; a stack of frames has 3 "
            "(frames, height, width) or 4 (rows, columns, height, width)"
        )
    if 0 in data.shape:
        raise DatasetError(f"{name}: shape {data.shape} is empty; give a dataset with frames")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
