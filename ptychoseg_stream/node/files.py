"""What files of centroids and of students have in common."""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

import h5py

from ..errors import CentroidsError


@contextlib.contextmanager
def whole(path: Path) -> Generator[Path]:
    """Write beside `path`, then rename: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_kind(file: h5py.File, path: Path, kind: str, advice: str = "") -> None:
    """Refuse a file that holds something else.

    Raises
    ------
    CentroidsError
        With `advice` at its end.
    """
    if file.attrs.get("kind") != kind:
        raise CentroidsError(f"{path} does not hold {kind}{advice}")
