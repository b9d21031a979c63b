"""Files that a loss of power, a full disk, or another process does not spoil."""

import contextlib
import errno
import fcntl
import os
import shutil
from pathlib import Path


def check_free(folder: Path, least: int) -> None:
    """Raise an OSError unless `least` bytes are free on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if free < least:
        raise OSError(
            errno.ENOSPC,
            f"{free / 2**20:.0f} MiB are free, {least / 2**20:.0f} MiB are to stay free "
            "(spool.min_free_bytes)",
        )


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file, whole or not at all, even if the power fails.

    Raises
    ------
    OSError
        If the disk is full or broken.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the disk hold the names in a folder."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def locked(path: Path, flags: int = 0) -> int:
    """Open and lock a file until the number that is returned is closed, or the process ends.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    """
    fd = os.open(path, os.O_RDWR | flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd
