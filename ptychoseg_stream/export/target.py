"""A file that grows beside its name and takes it only when it is whole."""

import contextlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DatasetError, StoreError


def require_free(path: Path, *, force: bool) -> None:
    """Refuse a name that is taken, before long work is done for it.

    Raises
    ------
    DatasetError
        If there is something already and `force` is not given, or there is no such folder.
    """
    if path.is_dir() or (path.exists() and not force):
        what = "is a folder" if path.is_dir() else "is there already; give --force to replace it"
        raise DatasetError(f"{path} {what}, or choose another name with --output")
    if not path.parent.is_dir():
        raise DatasetError(f"{path.parent}: no such folder; make it, or choose another --output")


@contextmanager
def growing(path: Path, *, force: bool) -> Generator[Path]:
    """Yield the name under which a file is to be written; it gets its own at the end.

    After any failure nothing is left of it, and what was there before still is.

    Raises
    ------
    DatasetError
        As `require_free`.
    StoreError
        If the disk does not take it.
    """
    require_free(path, force=force)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        require_free(path, force=force)
        part.replace(path)
    # h5py raises any of the two when a disk is full.
    except (OSError, RuntimeError) as error:
        raise StoreError(
            f"{path} cannot be written ({error}): free or choose another disk"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
