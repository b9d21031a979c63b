"""Replays what was recorded: files of documents, and files of frames."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

from ptychoseg_callbacks.source import Callback

from ...errors import DatasetError, SourceError
from ..arrays.stack import open_stack
from .document_files import Named, read_jsonl, read_msgpack
from .file_kinds import Found, find_files, kind_of
from .frame_count import FrameCounter, Limit
from .pace import Pace, Pacer, Wait
from .synthesised import SynthesisOptions, synthesise

log = logging.getLogger(__name__)

_TOLD_PER_FILE = 20
_MOST_KEPT = 100
_MOST_AT_ONCE = 16  # points that one synthesised document announces


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How recorded data are replayed.

    Parameters
    ----------
    pace : str
        "": full speed; "recorded"; or frames per second, such as "10".
    limit : int
        Only the first frames of each run; 0 for all.
    streams, data_keys : tuple of str
        Images that the profile looks for; the first names are those that frames of files get.
    period : float
        From one frame of a file to the next [s], where the file does not say; for "recorded".
    """

    pace: str = ""
    limit: int = 0
    streams: tuple[str, ...] = ("primary",)
    data_keys: tuple[str, ...] = ()
    period: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.limit < 0:
            raise ValueError(f"limit: {self.limit} must be 0 (all frames) or more")
        if not 0 <= self.period < float("inf"):
            raise ValueError(f"period: {self.period} must be 0 or more seconds")


class Replay:
    """A source that feeds the documents of files, one file after the other.

    Made by `open_replay`.

    Parameters
    ----------
    files : sequence of Found
        What to replay, in order.
    options : ReplayOptions
        How.
    clock : callable
        Seconds of a clock that never jumps.
    wait : callable
        Waits for so many seconds, or until an event is set.

    Attributes
    ----------
    files : tuple of Found
        As given.
    documents, left_out : int
        Documents fed so far; lines, records and files that could not be.
    problems : list of str
        What was left out and why, the first 100.
    """

    redelivers = False

    def __init__(
        self,
        files: Sequence[Found],
        options: ReplayOptions,
        clock: Callable[[], float] = time.monotonic,
        wait: Wait = threading.Event.wait,
    ) -> None:
        self.files = tuple(files)
        self.documents = self.left_out = 0
        self.problems: list[str] = []
        self._options = options
        self._pace = Pace.parse(options.pace)
        self._limit = Limit(options.limit, self._counter())
        self._pacer = Pacer(self._pace, self._counter(), clock, wait)
        self._of_file = 0

    def __str__(self) -> str:
        """Return what is replayed, in a few words."""
        first = str(self.files[0].path)
        return first if len(self.files) == 1 else f"{first} and {len(self.files) - 1} more files"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of the files, which the node must be allowed to read frames from."""
        return tuple(dict.fromkeys(found.path.resolve().parent for found in self.files))

    def run(self, callback: Callback, stopping: threading.Event) -> None:
        """Feed all documents; what cannot be read is logged, kept in `problems`, and left out.

        Raises
        ------
        SourceError
            There was not one document in all the files.
        """
        documents = self._limit.of(self._documents(stopping))
        for name, doc in self._pacer.of(documents, stopping):
            callback(name, doc)
            self.documents += 1
        if not self.documents and not stopping.is_set():
            raise SourceError(self.problems[0] if self.problems else f"{self}: no documents")

    def stored(self, number: int) -> None:
        """Take no note: a file stays where it is."""

    def _counter(self) -> FrameCounter:
        return FrameCounter(self._options.streams, self._options.data_keys)

    def _documents(self, stopping: threading.Event) -> Iterator[Named]:
        for found in self.files:
            if stopping.is_set():
                return
            self._of_file = 0
            log.info("replaying %s", found.target)
            try:
                yield from self._documents_of(found)
            except (DatasetError, SourceError, OSError) as error:
                self._note(f"{error}; left out")
            if self._of_file > _TOLD_PER_FILE:
                log.warning("%s: %d problems, not all of them shown", found.path, self._of_file)

    def _documents_of(self, found: Found) -> Iterator[Named]:
        kind = kind_of(found.path)
        if kind == "frames":
            yield from self._frames_of(found)
            return
        empty = True
        for item in (read_jsonl if kind == "jsonl" else read_msgpack)(found.path, self._note):
            empty = False
            yield item
        if empty:
            self._note(f"{found.path}: it holds no documents")

    def _frames_of(self, found: Found) -> Iterator[Named]:
        options = self._options
        paced = self._pace.rate or self._pace.recorded
        synthesis = SynthesisOptions(
            stream=(*options.streams, "primary")[0],
            data_key=(*options.data_keys, "frames")[0],
            block=1 if paced else _MOST_AT_ONCE,
            limit=options.limit,
            period=options.period,
        )
        began = 0.0
        for name, doc in synthesise(found.target, synthesis):
            if name == "start":
                began = doc["time"]
            elif name == "stop" and self._pace.recorded and doc["time"] == began:
                self._note(
                    f"{found.path}: says nothing of the time between frames, which came at full "
                    "speed; give a number of frames per second as pace"
                )
            yield name, doc

    def _note(self, text: str) -> None:
        self.left_out += 1
        self._of_file += 1
        if self._of_file <= _TOLD_PER_FILE:
            log.warning("%s", text)
        if len(self.problems) < _MOST_KEPT:
            self.problems.append(text)


def open_replay(
    targets: str | PathLike[str] | Sequence[str],
    options: ReplayOptions | None = None,
    clock: Callable[[], float] = time.monotonic,
    wait: Wait = threading.Event.wait,
) -> Replay:
    """Find out what is to be replayed.

    Parameters
    ----------
    targets : str, path or sequence of str
        Files of documents (JSON lines, msgpack, either gzipped), files of frames (CXI, NeXus, HDF5,
        npy; ``FILE:/dataset``), folders, patterns.
    options : ReplayOptions, optional
        Pace, number of frames, names.
    clock, wait : callable
        Of the pace.

    Returns
    -------
    Replay
        A source; nothing is fed before it is run.

    Raises
    ------
    SourceError
        A file that was named is missing, or no such file; the pace is not understood.
    """
    options = options or ReplayOptions()
    given = [fspath(targets)] if isinstance(targets, str | PathLike) else list(targets)
    files = find_files(given)
    if not files:
        raise SourceError("nothing to replay: name a file, a folder or a pattern")
    for found in files:
        if found.named:
            _check(found)
    return Replay(files, options, clock, wait)


def _check(found: Found) -> None:
    """Refuse a file that was named and cannot be replayed, before anything has begun."""
    try:
        if kind_of(found.path) == "frames":
            open_stack(found.target).close()
        else:
            found.path.open("rb").close()
    except (DatasetError, OSError) as error:
        raise SourceError(str(error)) from error
