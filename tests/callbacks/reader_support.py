"""Files of frames that carry their number."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ptychoseg_callbacks.assets.hdf5_reader import Hdf5Reader
from ptychoseg_callbacks.assets.options import ReaderOptions
from ptychoseg_callbacks.assets.paths import Fence

SIDES = (12, 16)


def numbered(count: int, first: int = 0, sides: tuple[int, int] = SIDES) -> np.ndarray:
    """Return frames ``(count, H, W)`` of noise; the first pixel is the number of the frame."""
    frames = np.random.default_rng(7).integers(1, 900, (count, *sides)).astype(np.uint16)
    frames[:, 0, 0] = np.arange(first, first + count)
    return frames


def numbers(frames: np.ndarray) -> list[int]:
    """Return the numbers of frames ``(n, H, W)``."""
    assert frames.ndim == 3
    return frames[:, 0, 0].tolist()


def write_hdf5(path: Path, name: str = "frames", count: int = 4, **kwargs: Any) -> Path:
    """Write numbered frames into a new dataset."""
    first = kwargs.pop("first", 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        file.create_dataset(name, data=numbered(count, first), **kwargs)
    return path


def reader_of(path: Path, name: str = "frames", **options: Any) -> Hdf5Reader:
    """Return a reader that waits little."""
    options = {"read_timeout": 0.02} | options
    chosen = ReaderOptions(**options)
    return Hdf5Reader(str(path), name, chosen, Fence(chosen.roots))
