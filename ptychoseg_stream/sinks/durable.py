"""Files that are there whole or not at all, also after a power cut."""

import os
import shutil
from pathlib import Path


def put(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, sync it, give it its name, and sync its folder.

    Raises
    ------
    OSError
        If the disk does not take it; nothing of that name is there then.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(folder: Path) -> None:
    """Sync the entries of a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, that only this user can read; sync what is new.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync(path.parent)


def require_space(folder: Path, least: int) -> None:
    """Refuse a disk that is too full.

    Raises
    ------
    OSError
        If less than `least` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < least:
        raise OSError(
            f"free space on the disk of {folder} is {free / 1e6:.0f} MB, and "
            f"spool.min_free_bytes keeps {least / 1e6:.0f} MB"
        )
