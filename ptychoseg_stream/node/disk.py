"""Files that a loss of power, a full disk, or another process does not spoil."""

import contextlib
import fcntl
import os
import shutil
import time
from pathlib import Path

_LOOK_AGAIN = 0.01  # s between two tries to lock a file


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file, whole or not at all, even if the power fails.

    It grows as ``.NAME.part`` beside it.

    Raises
    ------
    OSError
        If the disk is full or broken; what was there before is still there.
    """
    part = path.with_name(f".{path.name}.part")
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
    """Have the disk hold the names in a folder.

    Raises
    ------
    OSError
        If it is broken.
    """
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
        sync_folder(path.parent)


def check_free(folder: Path, least: int) -> None:
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


def locked(path: Path, flags: int = 0, patience: float = 0.0) -> int:
    """Open and lock a file until the handle that is returned is closed, or the process ends.

    Parameters
    ----------
    path : Path
        A file of the folder that the lock is for.
    flags : int
        How to open it, as of `os.open`; ``os.O_CREAT`` makes it.
    patience : float
        How long it is tried [s]: who only looks, as `is_locked`, holds the lock for a moment, too.

    Raises
    ------
    BlockingIOError
        If another process holds it, or removed it meanwhile.
    OSError
        If it cannot be opened.
    """
    until = time.monotonic() + patience
    while True:
        try:
            return _locked(path, flags)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
        time.sleep(_LOOK_AGAIN)


def is_locked(path: Path) -> bool:
    """Whether another process holds a lock, or nobody but it may; False if there is none."""
    try:
        os.close(locked(path))
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _locked(path: Path, flags: int) -> int:
    handle = os.open(path, os.O_RDWR | flags, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_ino != path.stat().st_ino:
            raise FileNotFoundError(path)  # its owner removed it, and somebody made another one
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError | FileNotFoundError):
            raise BlockingIOError(f"{path.parent} belongs to another process") from error
        raise
    return handle
