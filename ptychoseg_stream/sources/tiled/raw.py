"""Raw runs in Tiled: the truth, when a stream of documents has lost something."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from numpy.typing import NDArray

from ...errors import SourceError
from ...node.guard import Guard
from .address import Path, TiledAddress, TiledMissing, TiledRefused, TiledUnavailable
from .client import TiledClient
from .layout import StoredRun, StoredStream, has_spec
from .search import RUN, key_of_uid

log = logging.getLogger(__name__)
T = TypeVar("T")

_ATTEMPTS = 2
_RECENT_RUNS = 32  # whose descriptors are looked through
_MOST_FRAMES = 64  # of one answer
_MOST_PATHS = 256
_PATIENCE = 2.0  # times the time limit, for a single image: masks wait for it


@dataclass(frozen=True, slots=True)
class RawOptions:
    """Where the raw runs are kept.

    Parameters
    ----------
    uri : str
        Tiled server, as in ``tiled://127.0.0.1:8000``; empty: nowhere, lost images stay lost.
    api_key_env : str
        Environment variable with the API key (scopes read:metadata and read:data).
    path : str
        Container of the raw runs, as in ``raw/2026``.
    timeout : float
        How long one answer may take [s].
    retry_after : float
        How long a server that does not answer is left alone [s].
    """

    uri: str = ""
    api_key_env: str = "TILED_API_KEY"
    path: str = ""
    timeout: float = 5.0
    retry_after: float = 15.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not self.timeout > 0:
            raise ValueError(f"timeout: {self.timeout} must be more than 0 seconds")
        if not self.retry_after >= 0:
            raise ValueError(f"retry_after: {self.retry_after} must be 0 or more seconds")


class TiledRaw:
    """Fulfils `ptychoseg_stream.node.ports.RawStore`; may be used by several threads.

    A call takes at most a few times `RawOptions.timeout`. After a server did not answer, calls
    return nothing at once for a while.

    Parameters
    ----------
    options : RawOptions
        With a uri.
    clock : callable
        Seconds that only go forward.

    Raises
    ------
    SourceError
        If the uri is no address.
    """

    def __init__(self, options: RawOptions, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the options; nothing is asked yet."""
        address = TiledAddress.parse(options.uri) / options.path
        self._client = TiledClient(address, options.api_key_env, options.timeout, _PATIENCE)
        self._root = address.path
        self._retry_after = options.retry_after
        self._clock = clock
        self._silent_until = 0.0
        self._told = ""
        self._paths: dict[str, Path] = {}  # of runs, by uid
        self._guard = Guard(log)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def start_of(self, uid: str) -> Mapping[str, Any] | None:
        """Return the start document of the run that has this uid, or a descriptor of this uid."""
        return self._ask("look for a run", partial(self._start_of, uid), None)

    def notes_of(self, run_uid: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """Return descriptors and stream resources of a run.

        Tiled does not keep the uids of stream resources: a resource is to be found by its data key.
        """
        return self._ask("read descriptors", partial(self._notes_of, run_uid), ())

    def stop_of(self, run_uid: str) -> Mapping[str, Any] | None:
        """Return the stop document of a run, if it has one by now."""
        return self._ask("read a stop document", lambda: self._run(run_uid).documents()[1], None)

    def read(
        self, run_uid: str, stream: str, data_key: str, first: int, last: int
    ) -> NDArray[Any] | None:
        """Return frames [first, last) or the first of them, ``(n, H, W)``; None if it has none."""

        def read() -> NDArray[Any] | None:
            run, found = self._stream(run_uid, stream)
            images = found.arrays[data_key] if found and data_key in found.arrays else None
            stop = min(last, first + _MOST_FRAMES)
            frames = run.frames(images, first, stop) if images is not None else None
            return frames if frames is not None and len(frames) else None

        return self._ask("read frames", read, None)

    def count(self, run_uid: str, stream: str, data_key: str) -> int:
        """Return how many frames of a key are stored; -1 if nobody knows."""

        def count() -> int:
            run, found = self._stream(run_uid, stream)
            if found is None or data_key not in found.arrays:
                return -1
            return _counted(run, found, data_key)

        return self._ask("count frames", count, -1)

    def _ask(self, what: str, step: Callable[[], T], otherwise: T) -> T:
        """Return what the server says, or `otherwise`: soon, and without raising."""
        fault, reached = "", True
        for _ in range(_ATTEMPTS):
            if self._clock() < self._silent_until:
                return otherwise
            # The guard is for what no server should send.
            answer = self._guard.call(f"{what} in Tiled", partial(_caught, step), otherwise)
            if isinstance(answer, TiledMissing):
                return otherwise
            if not isinstance(answer, SourceError):
                self._told = ""
                return answer
            fault = f"cannot {what}: {answer}; what was missed cannot be had from Tiled meanwhile"
            reached = isinstance(answer, TiledUnavailable) and answer.reached
            if isinstance(answer, TiledRefused):
                self._tell(fault)
                return otherwise
        if not reached:
            self._silent_until = self._clock() + self._retry_after
        self._tell(fault)
        return otherwise

    def _tell(self, fault: str) -> None:
        if fault != self._told:
            self._told = fault
            log.warning("%s", fault)

    def _run(self, uid: str) -> StoredRun:
        """Return a run; nothing is asked, unless its node has another name than its uid."""
        if uid not in self._paths:
            path: Path | None = (*self._root, uid)
            try:
                self._client.item(path)
            except TiledMissing:
                path = key_of_uid(self._client, self._root, uid)
            if path is None:
                raise TiledMissing(f"no run {uid}")
            while len(self._paths) >= _MOST_PATHS:
                self._paths.pop(next(iter(self._paths)), None)
            self._paths[uid] = path
        return StoredRun(self._client, self._paths[uid])

    def _stream(self, run_uid: str, name: str) -> tuple[StoredRun, StoredStream | None]:
        run = self._run(run_uid)
        return run, next(iter(run.streams((name,), run_uid)), None)

    def _start_of(self, uid: str) -> Mapping[str, Any] | None:
        with suppress(TiledMissing):
            return self._run(uid).documents()[0]
        recent = self._client.children(self._root, limit=_RECENT_RUNS, sort="-")
        for node in recent:
            run = StoredRun(self._client, (*self._root, str(node["id"])))
            for stream in run.streams() if has_spec(node, RUN) else ():
                if any(descriptor["uid"] == uid for descriptor in stream.descriptors):
                    return run.documents()[0]
        return None

    def _notes_of(self, run_uid: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
        run, notes = self._run(run_uid), list[tuple[str, Mapping[str, Any]]]()
        for stream in run.streams((), run_uid):
            notes += [("descriptor", descriptor) for descriptor in stream.descriptors]
            for key in stream.arrays:
                if "external" in (stream.descriptors[0].get("data_keys") or {}).get(key, {}):
                    notes += [("stream_resource", doc) for doc in run.files(stream, key, run_uid)]
        return notes


def _caught(step: Callable[[], T]) -> T | SourceError:
    try:
        return step()
    except SourceError as error:
        return error


def _counted(run: StoredRun, stream: StoredStream, key: str) -> int:
    """Return how many frames were stored: Tiled fills up the chunks of its own arrays."""
    frames = stream.arrays[key].frames
    if "external" in (stream.descriptors[0].get("data_keys") or {}).get(key, {}):
        return frames
    table = run.table(stream, ("seq_num", "time"))
    return frames if table is None else min(frames, len(table) * stream.per_event(key))
