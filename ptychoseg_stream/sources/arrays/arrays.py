"""One array out of a file that may hold several: npy, npz or HDF5."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import h5py
import numpy as np
from numpy.typing import NDArray

from ...errors import DatasetError
from .discovery import get_dataset
from .stack import open_hdf5, split_target


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for where no name is given.

    Parameters
    ----------
    what : str
        In plain words, for messages.
    dims : tuple of int
        Numbers of dimensions that fit; the dtype must be of integers or booleans.
    names : tuple of str
        Names that are preferred, the best first.
    """

    what: str
    dims: tuple[int, ...]
    names: tuple[str, ...]


def read_array(target: str | PathLike[str], wanted: Wanted) -> tuple[str, NDArray[Any]]:
    """Read the array that is meant by FILE or FILE:name.

    Returns
    -------
    str
        ``FILE:name`` of what was read, for messages.
    ndarray

    Raises
    ------
    DatasetError
        No such file or array, or several that could be meant; the text says which.
    """
    path, name = split_target(target)
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; give {wanted.what} as FILE or FILE:name")
    if path.suffix in (".npz", ".npy"):
        return _read_numpy(path, name, wanted)
    with open_hdf5(path) as file:
        arrays = _hdf5_arrays(file)
        linked = get_dataset(file, name) if name else None
        if linked is not None:  # under the name that was given, which may be a link
            arrays[name] = linked
        chosen = _choose(path, name, arrays, wanted)
        return f"{path}:{chosen}", np.asarray(arrays[chosen])


def _read_numpy(path: Path, name: str, wanted: Wanted) -> tuple[str, NDArray[Any]]:
    try:
        with path.open("rb") as raw:  # of a damaged archive, np.load would leave the file open
            loaded: Any = np.load(raw, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return str(path), loaded
            arrays = {key: loaded[key] for key in loaded.files}
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise DatasetError(f"{path}: not a plain numpy file ({error})") from error
    chosen = _choose(path, name, arrays, wanted)
    return f"{path}:{chosen}", arrays[chosen]


def _hdf5_arrays(file: h5py.File) -> dict[str, Any]:
    arrays: dict[str, Any] = {}

    def visit(path: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            arrays[path] = node

    file.visititems(visit)
    return arrays


def _choose(path: Path, name: str, arrays: dict[str, Any], wanted: Wanted) -> str:
    if name:
        if name not in arrays:
            held = ", ".join(arrays) or "none"
            raise DatasetError(f"{path}: no array {name!r}; it holds {held}")
        return name
    fitting = [key for key, a in arrays.items() if a.ndim in wanted.dims and a.dtype.kind in "iub"]
    for preferred in wanted.names:
        for key in fitting:
            if key.rsplit("/", 1)[-1] == preferred:
                return key
    if len(fitting) == 1:
        return fitting[0]
    raise DatasetError(
        f"{path}: {len(fitting)} integer arrays of {_listed(wanted.dims)} dimensions "
        f"({', '.join(fitting) or 'none'}); name the one with {wanted.what}: {path.name}:name"
    )


def _listed(dims: Sequence[int]) -> str:
    return " or ".join(str(n) for n in dims)
