"""Reference labels for `ptychoseg evaluate`: class maps from a file."""

from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DatasetError
from ...science.frame import ClassCode, ClassMap
from .arrays import Wanted, read_array

LABELS = Wanted("class codes", (2, 3), ("labels", "truth", "mask", "classes"))


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
    return _as_classes(*read_array(target, LABELS))


def _as_classes(name: str, labels: NDArray[Any]) -> ClassMap:
    if labels.ndim not in LABELS.dims or 0 in labels.shape:
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
