"""The sink that writes masks to a Tiled server while the scan runs."""

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from tiled.client.container import Container

from ..errors import StoreError
from ..node.ports import Account, Clock, Products, RunInfo
from ..node.spool import SpoolOptions
from ..science.frame import Mask
from .arrays import nbytes
from .connection import connect, without_key
from .courier import Courier
from .derived import Derived
from .ending import Ending
from .keeper import Keeper
from .options import TiledOptions
from .recovered import left_behind, reopened
from .route import Desk, Route
from .rows import Intake, Row
from .uploader import Uploader

logger = logging.getLogger("ptychoseg_stream.sinks")


class TiledSink:
    """Writes one derived BlueskyRun per raw run; a `node.ports.Sink`.

    Callers only hand over. One thread makes batches, another one brings them to the server
    (`tiled_run` draws the layout). What the server does not take is kept in the spool on disk
    (`spool` draws it), and brought there later: by this process, or by the next one.

    Parameters
    ----------
    options : TiledOptions
        Server, container, batches and limits.
    spool : SpoolOptions, optional
        Where the spool is.
    client_factory : callable, optional
        Returns a Tiled client, in place of a connection to ``options.uri``. Called on the
        uploader's thread; the client is not closed by the sink.
    api_key : str
        API key; by default what the environment variable ``options.api_key_env`` holds.
    clock : Clock
        Time of documents and rows.
    """

    def __init__(
        self,
        options: TiledOptions,
        spool: SpoolOptions | None = None,
        client_factory: Callable[[], Container] | None = None,
        *,
        api_key: str = "",
        clock: Clock = time.time,
    ) -> None:
        self._options = options
        self._clock = clock
        self._secret = api_key or os.environ.get(options.api_key_env, "")
        self._client: Container | None = None
        self._runs: dict[
            str, Route
        ] = {}  # by uid of the raw run (its last one), and of the derived
        self._server = without_key(options.uri)
        self._desk = Desk(spool or SpoolOptions())
        courier = Courier(self._desk, client_factory or self._connect, self._server, options)
        self._keeper = Keeper(self._desk, options, self._server)
        self._uploader = Uploader(self._desk, courier, options, self._secret)
        self._threads: list[threading.Thread] = []
        self._desk.routes = left_behind(self._desk.spool, options, self._secret)
        if self._desk.routes:
            self._start()

    def open(self, run: RunInfo) -> None:
        """Begin a run: its node appears in Tiled as soon as the server answers.

        Raises
        ------
        StoreError
            If rows of it are in the spool, and another process owns them.
        """
        derived = Derived.of(run, self._clock, self._secret)
        with self._desk.change:
            route = self._known(derived) if run.derived else None
            if route is None:
                route = Route(derived, Intake(resumed=run.resumed))
                self._desk.routes.append(route)
            else:
                self._go_on(route)
            self._runs = {uid: old for uid, old in self._runs.items() if old in self._desk.routes}
            self._runs[run.uid] = self._runs[derived.uid] = route
            if self._desk.down:
                self._desk.divert(route, self._desk.fault)
        self._start()
        self._uploader.renew()

    def write(self, run_uid: str, masks: Sequence[Mask]) -> None:
        """Take the next masks of a run.

        Never waits for the network. It waits for the disk of the spool, no longer than
        ``options.timeout``, when masks come faster than that takes them.

        Raises
        ------
        StoreError
            If the run is not open.
        """
        now, size = self._clock(), sum(map(nbytes, masks))
        if not masks:
            return
        desk = self._desk
        with desk.change:
            route = self._open_route(run_uid)
            first, last = masks[0].frame.index, masks[-1].frame.index
            if route.finished:
                route.safe = max(route.safe, last + 1)
                return
            self._make_room(route, size)
            if route.drops(first) or not self._fits(size):
                self._drop(route, first, len(masks))
                return
            if not route.incoming:
                route.since = time.monotonic()
            route.incoming.extend((Row(mask, now), nbytes(mask)) for mask in masks)
            desk.held += size
            desk.change.notify_all()

    def publish(self, run_uid: str, products: Products) -> None:
        """Take what a run says as a whole, in place of what it said before.

        Raises
        ------
        StoreError
            If the run is not open.
        """
        with self._desk.change:
            route = self._open_route(run_uid)
            if not route.finished:
                route.products = products
                self._desk.change.notify_all()

    def close(self, run_uid: str, account: Account) -> None:
        """End a run.

        Raises
        ------
        StoreError
            If the run is not open.
        """
        with self._desk.change:
            route = self._open_route(run_uid)
            route.open = False
            if route.closing is None:
                route.closing = Ending(account, self._clock())
            self._desk.change.notify_all()

    def stored(self, run_uid: str) -> int:
        """Return how many rows of a run, raw or derived, are safe: in Tiled, or in the spool."""
        route = self._runs.get(run_uid)
        return 0 if route is None else route.safe

    def settled(self, run_uid: str) -> bool:
        """Return whether all of a run, its end included, is safe; True if it is not known."""
        route = self._runs.get(run_uid)
        if route is None or (route.finished and route.closing is None):
            return True
        return route.dropped < 0 and (route.ended or route.ending_kept)

    def address(self, run_uid: str) -> str:
        """Return the URI of a run's node, or its folder in the spool while it is there."""
        route = self._runs.get(run_uid)
        if route is None:
            return ""
        if route.spooling and not route.ended:
            return str(self._desk.spool.masks / route.derived.uid)
        return route.address

    def derived_uid(self, run_uid: str) -> str:
        """Return the uid of the derived run; empty if unknown."""
        route = self._runs.get(run_uid)
        return "" if route is None else route.derived.uid

    def fault(self) -> str:
        """Return the last thing that went wrong; empty if nothing did."""
        return self._desk.disk_fault or self._desk.fault

    def drain(self, timeout: float) -> bool:
        """Wait until all that was given is in Tiled or in the spool; False after `timeout` [s]."""
        return self._desk.wait_until_safe(timeout)

    def shutdown(self) -> None:
        """Store what is left, end the threads, close the connection.

        What the server does not take within ``options.timeout`` goes to the spool.
        """
        desk = self._desk
        if self._threads:
            with desk.change:
                desk.stopping = True
            desk.wait_until_safe(self._options.timeout)
            with desk.change:
                for route in desk.routes:
                    route.spooling = route.spooling or (route.unsafe and not route.ended)
                desk.disk_fault, desk.hurry = "", True
                desk.change.notify_all()
            for thread in self._threads:
                thread.join()
            self._threads = []
        if self._client is not None:
            self._client.context.http_client.close()
            self._client = None
        atexit.unregister(self.shutdown)

    def _start(self) -> None:
        if self._threads:
            return
        self._desk.stopping = self._desk.hurry = False
        for name, work in (("keeper", self._keeper.run), ("tiled", self._uploader.run)):
            # Daemonic: an owner that forgot to stop it must not keep the process alive.
            thread = threading.Thread(target=work, name=f"ptychoseg-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()
        atexit.register(self.shutdown)

    def _known(self, derived: Derived) -> Route | None:
        """Return the way of a run that was begun before, if anything of it is here."""
        for route in self._desk.routes:
            if route.derived.uid == derived.uid:
                return route
        route = reopened(self._desk.spool, derived, self._secret)
        if route is not None:
            self._desk.routes.append(route)
        return route

    def _go_on(self, route: Route) -> None:
        """Have rows come for a run that was begun before; unless it ended as it should."""
        if route.closing is not None and route.closing.complete:
            route.finished = route.open = True
            return
        if route.folder is not None and route.ending_kept:
            try:
                route.folder.reopen()
            except OSError as error:
                logger.warning("Run %s keeps its first ending: %s", route.derived.raw.uid, error)
        route.closing = route.ending = None
        route.ending_kept = route.ended = False
        route.dropped, route.dropped_rows = -1, 0
        route.intake = Intake(route.safe, resumed=True)
        route.open = True

    def _make_room(self, route: Route, size: int) -> None:
        """Turn to the spool when the server is slow; wait for a disk that is slow."""
        desk, limit = self._desk, self._options.queue_bytes
        if 2 * (desk.held + size) > limit and desk.held and not route.spooling:
            waiting = f"{desk.held / 1e6:.1f} MB of masks are waiting"
            desk.divert(route, f"Tiled at {self._server} is too slow for these frames ({waiting})")
        end = time.monotonic() + self._options.timeout
        while not self._fits(size) and not desk.disk_fault and time.monotonic() < end:
            desk.change.wait(0.1)

    def _fits(self, size: int) -> bool:
        held = self._desk.held
        return not held or held + size <= self._options.queue_bytes

    def _drop(self, route: Route, first: int, count: int) -> None:
        if route.dropped < 0:
            route.dropped = first
            logger.error(
                "Run %s: rows from %d on are dropped: memory is full, and %s",
                route.derived.raw.uid,
                first,
                self.fault() or "the disk of the spool is too slow",
            )
        route.dropped_rows += count

    def _connect(self) -> Container:
        # Once: runs that are open still use it, and it finds a server that comes back by itself.
        if self._client is None:
            options = self._options
            self._client = connect(
                options.uri, self._secret, options.timeout, options.append_timeout
            )
        return self._client

    def _open_route(self, run_uid: str) -> Route:
        route = self._runs.get(run_uid)
        if route is None or not route.open:
            raise StoreError(f"run {run_uid} is not open: call open() before write() or close()")
        return route
