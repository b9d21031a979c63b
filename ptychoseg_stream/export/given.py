"""What a user gives where a run does not say it: positions in a file, numbers in options."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import DatasetError
from ..science.experiment import Experiment, Positions
from ..sources.arrays.discovery import get_dataset
from ..sources.arrays.stack import open_hdf5, split_target

UNITS = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9}
POSITIONS = "--positions FILE:/dataset"


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What was given; it counts before what the run says.

    Parameters
    ----------
    experiment : Experiment
        0 where nothing was given.
    positions : ndarray of float64 or None
        ``(N, 2)`` y and x of every frame of the raw run [m].
    source : str
        Where the positions come from.
    """

    experiment: Experiment = field(default_factory=Experiment)
    positions: Positions | None = None
    source: str = ""


def pixel_size_of(text: str) -> tuple[float, float]:
    """Return ``(y, x)`` [m] of one number or of "y,x"; zeros for nothing.

    Raises
    ------
    DatasetError
        If it is no positive number.
    """
    if not text:
        return 0.0, 0.0
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) not in (1, 2) or not all(0 < size < 1 for size in sizes):
        raise DatasetError(
            f"--pixel-size {text}: give one number, or y,x, in metres, such as 55e-6"
        )
    return sizes[0], sizes[-1]


def read_positions(target: str, unit: str = "m") -> Positions:
    """Read positions of the probe on the sample.

    Parameters
    ----------
    target : str
        ``FILE:/dataset`` in HDF5, or ``.npy``: ``(N, 2)``, y and x of each frame.
    unit : str
        Key of `UNITS`.

    Returns
    -------
    ndarray of float64
        ``(N, 2)`` [m].

    Raises
    ------
    DatasetError
        If there is no such file or dataset, or it holds something else.
    """
    if unit not in UNITS:
        raise DatasetError(f"--positions-unit {unit}: give one of {', '.join(UNITS)}")
    path, inner = split_target(target)
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; give {POSITIONS}")
    values = _npy(path) if path.suffix == ".npy" else _hdf5(path, inner)
    if values.ndim != 2 or values.shape[1] != 2 or values.dtype.kind not in "iuf":
        raise DatasetError(
            f"{target}: {values.dtype} {values.shape} is no list of positions; give an array "
            "(frames, 2) with y and x of each frame"
        )
    return np.asarray(values, np.float64) * UNITS[unit]


def _npy(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DatasetError(f"{path}: not a plain .npy array ({error})") from error


def _hdf5(path: Path, inner: str) -> Any:
    with open_hdf5(path) as file:
        data: h5py.Dataset | None = get_dataset(file, inner) if inner.strip("/") else None
        if data is None:
            held = ", ".join(f"/{name}" for name in _lists(file)) or "none"
            raise DatasetError(
                f"{path}: no dataset {inner or '(none was named)'}; give {POSITIONS}; datasets "
                f"of shape (frames, 2): {held}"
            )
        try:
            return data[()]
        except (OSError, RuntimeError, ValueError) as error:
            raise DatasetError(f"{path}:{inner} cannot be read ({error})") from error


def _lists(file: h5py.File) -> list[str]:
    found: list[str] = []

    def look(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.ndim == 2 and node.shape[1] == 2:
            found.append(name)

    file.visititems(look)
    return found
