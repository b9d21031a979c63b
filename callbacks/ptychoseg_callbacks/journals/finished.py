"""Which raw runs were processed completely: a source may deliver them again after a restart."""

import contextlib
import fcntl
import json
import os
from collections.abc import Generator
from pathlib import Path

_KEPT = 5000  # runs remembered at least; twice as many at most


class FinishedRuns:
    """Uids of finished raw runs, in a file that nodes of one machine share.

    Parameters
    ----------
    path : Path
        One line of JSON per run; its folder is made when the first one is added.
    owner : str
        Whose runs are asked for.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self._path = path
        self._owner = owner
        self._read: tuple[int, int] = (0, 0)  # time and size of the file that was read
        self._uids: frozenset[str] = frozenset()

    def __contains__(self, uid: str) -> bool:
        """Whether a run is finished; False also if the file cannot be read."""
        try:
            stat = self._path.stat()
            if (stat.st_mtime_ns, stat.st_size) != self._read:
                self._uids = frozenset(
                    uid for owner, uid in map(_parsed, self._lines()) if owner == self._owner
                )
                self._read = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            return False
        return uid in self._uids

    def add(self, uid: str) -> None:
        """Remember a run.

        Raises
        ------
        OSError
            If the disk is full or broken.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = json.dumps([self._owner, uid])
        with self._locked():
            lines = [*self._lines(), line]
            torn = len(lines) > 1 and not self._path.read_bytes().endswith(b"\n")
            if len(lines) > 2 * _KEPT:
                lines = lines[-_KEPT:]
                part = self._path.with_suffix(".part")
                part.write_text("".join(f"{each}\n" for each in lines))
                part.replace(self._path)
                return
            with self._path.open("a") as file:
                file.write(f"\n{line}\n" if torn else f"{line}\n")
                file.flush()
                os.fsync(file.fileno())

    def _lines(self) -> list[str]:
        try:
            return self._path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        fd = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _parsed(line: str) -> tuple[str, str]:
    """Return owner and uid; what a disk that lost power made of a line is nobody's run."""
    try:
        owner, uid = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return "", ""
    return str(owner), str(uid)
