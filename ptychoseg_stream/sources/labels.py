"""Reference labels for `ptychoseg evaluate`: class maps from a file."""

from os import PathLike
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError
from ..science.frame import ClassCode, ClassMap
from .discovery import get_dataset
from .stack import open_hdf5, split_target

LABEL_DIMS = (2, 3)
PREFERRED = ("labels", "truth", "mask", "classes")


def read_labels(target: str | PathLike[str]) -> ClassMap:
    """Read reference class maps.

    Parameters
    ----------
    target : str or path
        ``.npz``, ``.npy`` or HDF5 file, with ``:name`` of the array if it holds several. Without a
        name: ``labels``, ``truth``, ``mask`` or ``classes``, else the only integer array of two or
        three dimensions.

    Returns
    -------
    ndarray of uint8
        ``(H, W)`` for all frames or ``(N, H, W)``, values of `ClassCode`.

    Raises
    ------
    DatasetError
        No such file or array, or its values are no class codes; the text says which.
    """
    path, name = split_target(target)
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; give labels as FILE or FILE:name")
    if path.suffix in (".npz", ".npy"):
        return _read_numpy(path, name)
    with open_hdf5(path) as file:
        arrays = _hdf5_arrays(file)
        linked = get_dataset(file, name) if name else None
        if linked is not None:  # under the name that was given, which may be a link
            arrays[name] = linked
        chosen = _choose(path, name, arrays)
        return _as_classes(f"{path}:{chosen}", np.asarray(arrays[chosen]))


def _read_numpy(path: Path, name: str) -> ClassMap:
    try:
        with path.open("rb") as raw:  # of a damaged archive, np.load would leave the file open
            loaded: Any = np.load(raw, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return _as_classes(str(path), loaded)
            arrays = {key: loaded[key] for key in loaded.files}
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise DatasetError(f"{path}: not a plain numpy file ({error})") from error
    chosen = _choose(path, name, arrays)
    return _as_classes(f"{path}:{chosen}", arrays[chosen])


def _hdf5_arrays(file: h5py.File) -> dict[str, Any]:
    arrays: dict[str, Any] = {}

    def visit(path: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            arrays[path] = node

    file.visititems(visit)
    return arrays


def _choose(path: Path, name: str, arrays: dict[str, Any]) -> str:
    if name:
        if name not in arrays:
            held = ", ".join(arrays) or "none"
            raise DatasetError(f"{path}: no array {name!r}; it holds {held}")
        return name
    fitting = [key for key, a in arrays.items() if a.ndim in LABEL_DIMS and a.dtype.kind in "iu"]
    for preferred in PREFERRED:
        for key in fitting:
            if key.rsplit("/", 1)[-1] == preferred:
                return key
    if len(fitting) == 1:
        return fitting[0]
    raise DatasetError(
        f"{path}: {len(fitting)} integer arrays of 2 or 3 dimensions "
        f"({', '.join(fitting) or 'none'}); name the one with class codes: {path.name}:name"
    )


def _as_classes(name: str, labels: NDArray[Any]) -> ClassMap:
    if labels.ndim not in LABEL_DIMS or 0 in labels.shape:
        raise DatasetError(f"{name}: shape {labels.shape}; give labels of (H, W) or (N, H, W)")
    if labels.dtype.kind not in "iub":
        raise DatasetError(f"{name}: dtype {labels.dtype}; class codes are integers")
    codes = [code.value for code in ClassCode]
    unknown = np.setdiff1d(labels, codes)
    if unknown.size:
        raise DatasetError(
            f"{name}: {unknown[0]} is no class code; known are "
            + ", ".join(f"{code.value} {code.name.lower()}" for code in ClassCode)
        )
    return labels.astype(np.uint8)
