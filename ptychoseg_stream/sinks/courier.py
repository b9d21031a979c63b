"""Carries the batches of one run to Tiled, and its end; one load at a time."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tiled.client.container import Container

from ..node.ports import Products
from .batch import Batch, alike, joined
from .connection import Refusal, Unanswered, Unavailable, open_container, translated
from .late import Appends
from .options import TiledOptions
from .parcel import Parcel
from .route import Desk, Route
from .segment import load
from .tiled_run import TiledRun

logger = logging.getLogger("ptychoseg_stream.sinks")

_PATIENCE = 3  # attempts at products in a row, of a server that takes the rest
LOAD = 64
"""Rows of one load: requests cost time, whatever they carry."""


class Courier:
    """Knows the server; whose turn it is, others know.

    Parameters
    ----------
    desk : Desk
        Where batches come from.
    connect : callable
        Returns a client of the server.
    server : str
        Its name in messages, without a key.
    options : TiledOptions
        Container and size of requests.
    """

    def __init__(
        self,
        desk: Desk,
        connect: Callable[[], Container],
        server: str,
        options: TiledOptions,
    ) -> None:
        self._desk = desk
        self._connect = connect
        self._server = server
        self._options = options
        self._appends = Appends(desk.spool, options)
        self._parent: Container | None = None

    def advance(self, route: Route) -> None:
        """Store the next load of a run, its products, or its end; or wait until `quiet_until`.

        Raises
        ------
        StoreError
            If Tiled did not take it; `Unavailable`: because it did not answer.
        """
        if route.tiled is None and self._is_to_wait(route):
            return
        tiled = self._begin(route)
        parcels, batch = self._next_load(route)
        if batch is not None:
            with translated(self._server, self._options.api_key_env):
                self._carefully(route, partial(tiled.append, batch))
            rows = batch.last if tiled.finished else tiled.rows
            for path in self._desk.sent(route, parcels, rows):
                path.unlink(missing_ok=True)
            if not route.queue:
                return  # the rows of other runs go before its products; but more of its own do not
        if (products := route.products) is not None:
            self._put_products(route, tiled, products)
        elif batch is not None:
            return
        elif route.abandoned:
            self._ended(route)
        elif (ending := route.ending) is not None:
            with translated(self._server, self._options.api_key_env):
                self._carefully(route, partial(tiled.end, ending, route.safe))
            if route.ending is ending:
                self._ended(route)

    def _put_products(self, route: Route, tiled: TiledRun, products: Products) -> None:
        try:
            with translated(self._server, self._options.api_key_env):
                tiled.put_products(products)
        except (Refusal, Unavailable) as error:
            # They must not hold up the masks, nor the end of the run, where all else is taken.
            route.refused_products += 1
            if isinstance(error, Unavailable) and route.refused_products < _PATIENCE:
                raise
            if "products" not in route.told:
                route.told.add("products")
                logger.error("Run %s has no products: %s", route.derived.raw.uid, error)
        else:
            route.refused_products = 0
        with self._desk.change:
            if route.products is products:
                route.products = None

    def forget(self, route: Route) -> None:
        """After a failure: nobody knows what is stored, nor whether the container is there."""
        route.doubtful = True
        self._parent = None

    def _carefully(self, route: Route, append: Callable[[], None]) -> None:
        try:
            with self._appends.under_way(route.derived.uid):
                append()
        except Unanswered:
            # Rows may come yet: to send them again now is to have them twice.
            route.quiet_until = time.monotonic() + self._appends.longest
            raise

    def _is_to_wait(self, route: Route) -> bool:
        """Whether rows may still come that a process before has sent."""
        left = self._appends.patience(route.derived.uid)
        if left > 0:
            route.quiet_until = time.monotonic() + left
            logger.warning(
                "Run %s: the process before ended while rows were on their way to Tiled: no more "
                "are sent for %.0f s",
                route.derived.raw.uid,
                left,
            )
        return left > 0

    def _begin(self, route: Route) -> TiledRun:
        if route.tiled is None or route.doubtful:
            with translated(self._server, self._options.api_key_env):
                if self._parent is None:
                    self._parent = open_container(self._connect(), self._options.container)
                tiled = TiledRun(self._parent, route.derived, self._options, route.tiled)
                route.tiled = tiled
                tiled.begin()
            with self._desk.change:
                route.doubtful = False
                route.address = tiled.uri
                route.begun, route.finished = True, tiled.finished
                route.safe = max(route.safe, tiled.rows)
                self._desk.change.notify_all()
        return route.tiled

    def _next_load(self, route: Route) -> tuple[list[Parcel], Batch | None]:
        """Return the next batches, as one."""
        found: list[tuple[Parcel, Batch | None, Path | None]] = []
        rows = 0
        with self._desk.change:
            self._pass_by(route)
            for parcel in route.queue:
                rows += parcel.last - parcel.first
                if found and rows > LOAD:
                    break
                parcel.on_way = True
                found.append((parcel, parcel.batch, parcel.path))
        batches: list[Batch] = []
        for _, batch, path in found:
            if batch is None and path is not None:
                batch = load(path)
            if batch is None or (batches and not alike(batches[-1], batch)):
                break
            batches.append(batch)
        parcels = [parcel for parcel, _, _ in found[: len(batches)]]
        return parcels, joined(batches) if batches else None

    def _pass_by(self, route: Route) -> None:
        """Give up rows whose segment somebody moved away, as the message of a damaged one says."""
        while route.queue and route.queue[0].path is not None and not route.queue[0].path.exists():
            parcel = route.queue.popleft()
            logger.error(
                "Run %s: rows %d to %d are lost: %s is not there any more",
                route.derived.raw.uid,
                parcel.first,
                parcel.last - 1,
                parcel.path,
            )

    def _ended(self, route: Route) -> None:
        with self._desk.change:
            route.ended = True
            route.tiled = None  # its clients take memory
            self._desk.change.notify_all()
        self._desk.prune()
        if route.told:
            logger.info("Run %s is in Tiled now: %s", route.derived.raw.uid, route.address)
