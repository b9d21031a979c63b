"""Makes Bluesky documents of a run in Tiled, while it grows or afterwards.

Each event carries its image, read from Tiled in blocks: no file of a detector has to be readable
here, and image i of the documents is row i of the raw array. Uids of events are derived from the
run and the number of the event, so that documents that come twice can be told.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa
from numpy.typing import NDArray
from ptychoseg_callbacks.assets.keys import image_keys
from ptychoseg_callbacks.documents import Document

from .address import Path, TiledMissing, TiledRefused, TiledUnavailable
from .layout import StoredRun, StoredStream
from .look import Look, Row, growing, inlined

Named: TypeAlias = tuple[str, Document]

_ROWS = 64  # events that are made of one look at the table


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is read of a run, and how long is waited for it.

    Parameters
    ----------
    streams : tuple of str
        Event streams; empty: all.
    data_keys : tuple of str
        Keys that hold images, the most wanted first; empty: the first that looks like an image.
    row_wait : float
        How long an image whose event is not in the table waits for it [s]; a fly scan has no table.
    read_wait : float
        How long an image that Tiled names and cannot give is tried again, until it is lost [s].
    """

    streams: tuple[str, ...] = ("primary",)
    data_keys: tuple[str, ...] = ()
    row_wait: float = 1.0
    read_wait: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in ("row_wait", "read_wait"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: {getattr(self, name)} must be 0 or more seconds")


@dataclass(slots=True)
class _Progress:
    """How far a stream was delivered."""

    descriptors: int = 0
    events: int = 0
    waiting_since: float = -1.0  # that an image is there and its row of the table is not
    tableless: bool = False
    failing_since: float = -1.0  # that images cannot be read
    table_failing_since: float = -1.0


@dataclass(slots=True)
class RunDocuments:
    """Documents of one run, as far as they have not been delivered yet.

    Parameters
    ----------
    run : StoredRun
        The run.
    wanted : Wanted
        What is read of it.
    clock : callable
        Seconds that only go forward, to wait by.
    wall : callable
        Seconds since the epoch: the time of events that Tiled has no row of.

    Attributes
    ----------
    finished : bool
        The stop document was delivered.
    behind : bool
        The last `advance` left events that could be had at once.
    uid : str
        Of the run; empty before its start document was delivered.
    delivered : int
        Documents so far.
    growing : tuple of tuple of str
        Nodes that change while the run goes on, but for those whose changes are images.
    """

    run: StoredRun
    wanted: Wanted = field(default_factory=Wanted)
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    finished: bool = False
    behind: bool = False
    uid: str = ""
    growing: tuple[Path, ...] = ()
    delivered: int = 0
    _streams: dict[str, _Progress] = field(default_factory=dict[str, _Progress])
    _began: bool = False

    def advance(self, final: bool = False) -> Iterator[Named]:
        """Yield what is new: nothing, or some of it; `behind` says whether there is more.

        Parameters
        ----------
        final : bool
            Whether nobody writes to this run any more, even if it has no stop document.

        Raises
        ------
        TiledUnavailable, TiledRefused
            Nothing is lost: the next call goes on where this one was. Whether a refusal is to be
            believed is for the caller to say, see `abandon`.
        """
        for named in self._advance(final):
            self.delivered += 1
            yield named

    def _advance(self, final: bool) -> Iterator[Named]:
        self.behind = False
        try:
            start, stop = self.run.documents()
            if start is None or not start.get("uid"):
                raise TiledRefused(f"{'/'.join(self.run.path)}: a run without a start document")
        except TiledMissing as error:
            if not self._began:
                raise
            gone = "the run was deleted from Tiled while it was followed"
            raise TiledMissing(f"{gone} ({error})") from error
        if not self._began:
            self.uid = str(start["uid"])
            self._began = True
            yield "start", start
        # Asked for after the stop document: what was there by then is all there is.
        streams = self.run.streams(self.wanted.streams, self.uid)
        self.growing = tuple(path for stream in streams for path in growing(stream))
        for stream in streams:
            yield from self._stream(stream, final or stop is not None)
        if self.behind:
            return
        if stop is not None:
            self.finished = True
            yield "stop", {**stop, "run_start": self.uid}
        elif final:
            yield self._stop("the run has no stop document in Tiled: its writer died")

    def abandon(self, reason: str) -> Iterator[Named]:
        """Yield the end of a run that cannot be followed any more."""
        if self._began and not self.finished:
            self.delivered += 1
            yield self._stop(reason)
        self.finished = True

    def excuse(self) -> None:
        """Forget for how long something could not be read: the whole server was in trouble."""
        for done in self._streams.values():
            done.failing_since = done.table_failing_since = -1.0

    def _stop(self, reason: str) -> Named:
        self.finished = True
        return "stop", {
            "uid": self._derive("stop"),
            "run_start": self.uid,
            "time": self.wall(),
            "exit_status": "fail",
            "reason": reason,
            "num_events": {name: done.events for name, done in self._streams.items()},
        }

    def _stream(self, stream: StoredStream, final: bool) -> Iterator[Named]:
        done = self._streams.setdefault(stream.name, _Progress())
        specs = stream.descriptors[0].get("data_keys") or {}
        keys = image_keys(specs, self.wanted.data_keys)
        for descriptor in stream.descriptors[done.descriptors :]:
            done.descriptors += 1
            yield "descriptor", inlined(descriptor, keys[:1], stream)
        if keys:
            look = self._look(stream, keys[0], done, final)
            yield from self._events(look, done, final)

    def _look(self, stream: StoredStream, key: str, done: _Progress, final: bool) -> Look:
        look = Look(stream, key)
        # While a run goes on the table is of interest only when there is an image to go with it.
        if final or look.stored > done.events:
            look.table = self._table(stream, done, final)
        return look

    def _table(self, stream: StoredStream, done: _Progress, final: bool) -> pa.Table | None:
        """Return the events of a stream; None if there are none, as in a table just made."""
        try:
            table = self.run.table(stream)
        except TiledUnavailable as error:
            if not error.reached:
                raise
            if done.table_failing_since < 0:
                done.table_failing_since = self.clock()
            if final and self.clock() - done.table_failing_since < self.wanted.read_wait:
                raise
            return None
        done.table_failing_since = -1.0
        return table

    def _ready(self, look: Look, done: _Progress, final: bool) -> int:
        """Return how many events can be told by now."""
        if final:
            # Rows of an array in Tiled may be more than were written: Tiled fills up its chunks.
            internal = look.table is not None and not look.external
            return look.rows if internal else max(look.rows, look.stored)
        both = min(look.rows, look.stored)
        if both > done.events or look.stored <= done.events:
            done.waiting_since, done.tableless = -1.0, done.tableless and not look.rows
            return both
        if done.waiting_since < 0:
            done.waiting_since = self.clock()
        waited = self.clock() - done.waiting_since >= self.wanted.row_wait
        done.tableless = done.tableless or (look.external and waited)
        return look.stored if done.tableless else both

    def _events(self, look: Look, done: _Progress, final: bool) -> Iterator[Named]:
        ready = self._ready(look, done, final)
        last = min(ready, done.events + _ROWS)
        rows: list[Row] = []
        if look.table is not None and last > done.events:
            rows = look.table.slice(done.events, last - done.events).to_pylist()
        begin = done.events
        while done.events < last:
            stack = self._images(look, done, last)
            if stack is None:
                self.behind = self.behind or final  # the stop document has to wait for them
                return
            for images in stack:
                at = done.events - begin
                row = rows[at] if at < len(rows) else {}
                uid = self._derive(f"{look.stream.name}/{look.key}/{done.events}")
                event = look.event(uid, done.events, row, images, self.wall())
                done.events += 1
                yield "event", event
        self.behind = self.behind or ready > last

    def _images(
        self, look: Look, done: _Progress, last: int
    ) -> Sequence[NDArray[Any] | Document] | None:
        """Return the images of the next events; None if one has to wait for them."""
        first, stored = done.events, min(last, look.stored)
        if look.images is None or first >= stored:
            fault = f"Tiled has no image {first} of {look.stream.name}/{look.key}"
            return [look.lost(fault)] * (last - first)
        try:
            stack = self.run.frames(
                look.images, first * look.per, stored * look.per, least=look.per
            )
        except TiledUnavailable as error:
            if not error.reached:
                raise
            return self._give_up(look, done, str(error))
        except TiledRefused as error:
            return self._give_up(look, done, str(error))
        done.failing_since = -1.0
        height, width = stack.shape[-2:]
        whole = len(stack) // look.per
        events = stack[: whole * look.per].reshape(whole, look.per, height, width)
        return list(events if look.is_stack else events[:, 0])

    def _give_up(self, look: Look, done: _Progress, fault: str) -> Sequence[Document] | None:
        """Return a note that one event's images are lost, None as long as they are tried again."""
        if done.failing_since < 0:
            done.failing_since = self.clock()
        if self.clock() - done.failing_since < self.wanted.read_wait:
            return None
        return [look.lost(fault)]

    def _derive(self, what: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.uid}/{what}"))
