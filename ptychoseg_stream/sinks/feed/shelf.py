"""The logs of all runs in one folder: found by uid, and the oldest removed when they grow."""

import logging
import uuid
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ...node.disk import check_free, is_locked, make_folder
from ...node.ports import RunInfo
from .log import RunLog, first_header

log = logging.getLogger(__name__)

_SUFFIX = ".log"
_LOOK_EVERY = 16 << 20  # bytes, at most, between two looks at what is free


class Shelf:
    """Keeps the logs; used by one thread.

    Parameters
    ----------
    folder : Path
        Made when the first run begins; nodes may share it.
    keep_bytes : int
        Most that all logs may take [bytes].
    min_free_bytes : int
        What is to stay free on that disk [bytes].
    """

    def __init__(self, folder: Path, keep_bytes: int, min_free_bytes: int) -> None:
        self._folder = folder
        self._keep = keep_bytes
        self._min_free = min_free_bytes
        self._logs: dict[str, RunLog] = {}  # by name of the file
        self._writing: set[str] = set()
        self._unlooked = 0  # bytes since it was looked

    def open(self, info: RunInfo) -> RunLog:
        """Return the log of a run that begins or goes on; new messages go there.

        Raises
        ------
        OSError
            If there can be none: another process has it, the disk is full or broken.
        """
        make_folder(self._folder)
        name = _name(info)
        self._give_up_others(info.uid, name)
        self._make_room(0)
        if name not in self._logs:
            self._logs[name] = RunLog(self._folder / name, new=True)
        self._writing.add(name)
        return self._logs[name]

    def append(self, run: RunLog, parts: list[bytes]) -> None:
        """Write a message; older runs may have to go for it.

        Raises
        ------
        OSError
            If there is no room for it, or the disk is broken.
        """
        size = sum(map(len, parts))
        self._unlooked += size
        if self._unlooked >= min(_LOOK_EVERY, self._keep // 8):
            self._make_room(size)
            self._unlooked = 0
        run.append(parts)

    def close(self, run: RunLog) -> None:
        """Let the log of a run be removed when room is needed; at once if it is not whole."""
        self._writing.discard(run.path.name)
        if run.gone:  # who came for it later would wait for ever
            run.path.unlink(missing_ok=True)

    def find(self, uid: str) -> RunLog | None:
        """Return the log of a raw or derived run; None if none is kept, or another node has it."""
        for name, each in self._logs.items():
            if uid in (each.run, each.derived) or name == uid + _SUFFIX:
                return each
        for path in reversed(self._files()):
            about = first_header(path)
            if uid in (about.get("run"), about.get("derived")) and path.name not in self._logs:
                with suppress(OSError):
                    self._logs[path.name] = RunLog(path)
                    return self._logs[path.name]
        return None

    def tidy(self, used: Collection[RunLog]) -> None:
        """Close the files that nobody writes or reads."""
        for name, each in list(self._logs.items()):
            if name not in self._writing and each not in used:
                self._logs.pop(name).close()

    def shut(self) -> None:
        """Close all files."""
        self._writing.clear()
        self.tidy(())

    def _give_up_others(self, uid: str, name: str) -> None:
        """Remove what an earlier process has told of a run that is labelled anew."""
        for path in self._files():
            if path.name == name or first_header(path).get("run") != uid:
                continue
            with suppress(OSError):
                if path.name not in self._logs:
                    self._logs[path.name] = RunLog(path)
                other = self._logs[path.name]
                if not other.ended and path.name not in self._writing:
                    other.gone = "the run is labelled anew, with other settings"
                    path.unlink()

    def _files(self) -> list[Path]:
        """Return all logs, the oldest first."""
        found: list[tuple[float, Path]] = []
        for path in self._folder.glob(f"*{_SUFFIX}"):
            with suppress(OSError):  # another node may have removed it
                found.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(found)]

    def _make_room(self, wanted: int) -> None:
        sizes = {path: path.stat().st_size for path in self._files() if path.exists()}
        total = sum(sizes.values()) + wanted
        for path, size in sizes.items():
            if total <= self._keep:
                break
            if path.name in self._writing or (path.name not in self._logs and is_locked(path)):
                continue
            log.info("%s is removed: feed.keep_bytes is reached", path)
            path.unlink(missing_ok=True)
            total -= size
        if total > self._keep:
            raise OSError(f"its messages take more than feed.keep_bytes, {self._keep / 1e6:.0f} MB")
        check_free(self._folder, self._min_free)


def _name(info: RunInfo) -> str:
    # The uid of a raw run is whatever a document says: it is no name of a file.
    return (info.derived or str(uuid.uuid5(uuid.NAMESPACE_OID, info.uid))) + _SUFFIX
