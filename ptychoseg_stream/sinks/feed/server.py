"""The feed: a `node.ports.Feed` that keeps what it tells until who listens has it."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import zmq

from ...errors import FeedError
from ...node.guard import Guard
from ...node.ports import Account, Products, RunInfo
from ...node.spool import SpoolOptions
from ...science.frame import Frame, Mask
from ..arrays import nbytes as mask_bytes
from .consumers import Consumers
from .items import Item
from .log import RunLog
from .messages import decode, encode
from .options import FeedOptions
from .orders import Close, Frames, Open, Order, Orders, Overflow, Publish, Quit
from .shelf import Shelf
from .sockets import Sockets
from .telling import Telling
from .wire import pack

log = logging.getLogger(__name__)

_TICK_MS = 500  # longest pause, and how often listeners hear that the node is alive
_SOON_MS = 10  # until a full socket is tried again


@dataclass(slots=True)
class _Run:
    telling: Telling
    log: RunLog | None
    resumed: bool  # and no frame has come since


class FeedServer:
    """Tells frames, masks and products of runs, and keeps them on disk for who comes later or back.

    The methods only queue; a thread of its own encodes, writes and sends.

    Parameters
    ----------
    options : FeedOptions
        Where, and how much is kept.
    spool : SpoolOptions
        Whose folder ``feed`` holds the messages.
    tiled : str
        Address of the container of derived runs; told to consumers who want what is not kept.
    monotonic : callable
        Seconds of a clock that never jumps.
    farewell : float
        How long `shutdown` waits for consumers who have not got everything [s].

    Raises
    ------
    ProfileError
        If the keys cannot be used.
    """

    def __init__(
        self,
        options: FeedOptions,
        spool: SpoolOptions,
        tiled: str = "",
        monotonic: Callable[[], float] = time.monotonic,
        farewell: float = 5.0,
    ) -> None:
        self._farewell = farewell
        self._tiled = tiled.rstrip("/")
        self._now = monotonic
        self._sockets = Sockets(options, monotonic)
        self._shelf = Shelf(spool.feed, options.keep_bytes, spool.min_free_bytes)
        router = self._sockets.router
        self._consumers = None if router is None else Consumers(router, self._find, monotonic)
        self._runs: dict[str, _Run] = {}  # those that are open, by raw uid; the last one is newest
        self._opening: set[str] = set()
        self._orders = Orders()
        self._guard = Guard(log)
        self._thread = threading.Thread(target=self._live, name="ptychoseg-feed", daemon=True)
        self._thread.start()

    def open(self, run: RunInfo) -> None:
        """Begin a run, or go on with it."""
        self._opening.add(run.uid)
        self._orders.put(Open(run))

    def send(self, run_uid: str, frames: Sequence[Frame], masks: Sequence[Mask]) -> None:
        """Take the next frames of a run, and their masks."""
        copies = [  # whoever took the frame may use its memory again
            frame if frame.image is None else replace(frame, image=frame.image.copy())
            for frame in frames
        ]
        images = [frame.image for frame in copies if frame.image is not None]
        nbytes = sum(image.nbytes for image in images) + sum(map(mask_bytes, masks))
        if copies:
            self._orders.put(Frames(run_uid, copies, list(masks), nbytes))

    def publish(self, run_uid: str, products: Products) -> None:
        """Take what a run says as a whole so far."""
        self._orders.put(Publish(run_uid, products))

    def close(self, run_uid: str, account: Account) -> None:
        """End a run."""
        self._orders.put(Close(run_uid, account))

    def told(self, run_uid: str) -> int:
        """Return how many frames of a run are on disk; very many if it is not kept (any more)."""
        if run_uid in self._opening:
            return -1
        run = self._runs.get(run_uid)
        if run is None or run.log is None or run.log.gone:
            return sys.maxsize
        return run.telling.index

    def shutdown(self) -> None:
        """Tell what waits, give consumers a moment to take it, and release thread and sockets."""
        self._orders.put(Quit())
        self._thread.join()

    def _live(self) -> None:
        poller = zmq.Poller()
        poller.register(self._orders.bell, zmq.POLLIN)
        if self._sockets.router is not None:
            poller.register(self._sockets.router, zmq.POLLIN)
        full, quitting, told = False, False, self._now()
        end = float("inf")
        while not quitting or (self._behind() and self._now() < end):
            poller.poll(_SOON_MS if full or quitting else _TICK_MS)
            bound = self._guard.call("listen", self._sockets.bind, False)
            # A run that began before it was asked for is known then.
            requests = self._guard.call("hear consumers", self._hear, [])
            for order in self._orders.take():
                quitting |= isinstance(order, Quit)
                self._guard.call("tell a run", partial(self._do, order), None)
            full = self._guard.call("serve consumers", partial(self._serve, requests), False)
            if bound and self._now() - told > _TICK_MS / 1000:
                told = self._now()
                self._sockets.publish(pack("alive", {}))
            if quitting and end == float("inf"):
                end = self._now() + self._farewell
        self._shelf.shut()
        self._sockets.close()
        self._orders.close()

    def _hear(self) -> list[list[bytes]]:
        return [] if self._consumers is None else self._consumers.receive()

    def _serve(self, requests: list[list[bytes]]) -> bool:
        if self._consumers is None:
            return False
        self._consumers.answer(requests)
        full = self._consumers.serve()
        self._shelf.tidy(self._consumers.used)
        return full

    def _behind(self) -> bool:
        return self._consumers is not None and self._consumers.behind

    def _do(self, order: Order) -> None:
        if isinstance(order, Open):
            self._guard.renew()
            try:
                self._runs[order.info.uid] = self._begin(order.info)
            finally:
                self._opening.discard(order.info.uid)
        if isinstance(order, Open | Quit) or (run := self._runs.get(order.run)) is None:
            return
        if isinstance(order, Frames):
            self._check_hole(run, order.frames[0].index)
            self._tell(run, run.telling.frames(order.frames, order.masks))
        elif isinstance(order, Publish):
            self._tell(run, run.telling.products(order.products))
        elif isinstance(order, Overflow):
            self._overflow(run, order.run)
        else:
            self._tell(run, run.telling.stop(order.account))
            del self._runs[order.run]
            if run.log is not None:
                self._shelf.close(run.log)

    def _begin(self, info: RunInfo) -> _Run:
        """Begin a run; of one that goes on, learn what was told of it."""
        tiled = f"{self._tiled}/{info.derived}" if self._tiled and info.derived else ""
        run = _Run(Telling(info, tiled), None, info.resumed)
        if self._consumers is None:
            return run
        try:
            run.log = self._shelf.open(info)
        except OSError as error:
            log.error("run %s: the feed cannot keep it: %s; it is in Tiled only", info.uid, error)
            return run
        run.log.run, run.log.derived, run.log.tiled = info.uid, info.derived, tiled
        try:
            for message in run.log.lasting():
                run.telling.take(decode(message))
            run.telling.go_on(len(run.log), run.log.index)
        except (OSError, FeedError) as error:
            self._lose(run, f"what was told of it cannot be read: {error}")
        return run

    def _check_hole(self, run: _Run, index: int) -> None:
        """Notice frames that an earlier process labelled, and died before it told them."""
        told = run.telling.index
        if run.resumed and index > told:
            self._lose(run, f"the node was killed before frames {told} to {index - 1} were told")
        run.resumed = False

    def _tell(self, run: _Run, items: Iterable[Item]) -> None:
        for item in items:
            parts = encode(item)
            if run.log is not None and not run.log.gone:
                try:
                    self._shelf.append(run.log, parts)
                except OSError as error:
                    self._lose(run, str(error))
            self._sockets.publish(parts)

    def _overflow(self, run: _Run, uid: str) -> None:
        """Leave a hole that can be seen: frames came faster than they could be told."""
        run.telling.seq += 1
        why = "frames came faster than they could be written to disk"
        if run.log is None:
            log.error("run %s: the feed has a hole: %s; it is in Tiled only", uid, why)
        self._lose(run, why)

    def _lose(self, run: _Run, why: str) -> None:
        """Keep no more messages of a run: there would be a hole."""
        if run.log is not None and not run.log.gone:
            run.log.gone = why
            log.error("run %s: the feed ends here: %s; it is in Tiled only", run.log.run, why)

    def _find(self, uid: str) -> RunLog | None:
        if not uid:
            return next(
                (run.log for run in reversed(self._runs.values()) if run.log is not None), None
            )
        with suppress(KeyError):
            return self._runs[uid].log
        return self._shelf.find(uid)
