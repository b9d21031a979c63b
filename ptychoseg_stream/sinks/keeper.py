"""The thread that makes batches of rows, and keeps those on disk that Tiled does not take."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ..node.guard import Guard
from .batch import Batch, make_batch
from .ending import Ending
from .options import TiledOptions
from .parcel import Parcel
from .route import Desk, Route
from .rows import Row, run_shape
from .spool import SpoolFolder

logger = logging.getLogger("ptychoseg_stream.sinks")

DISK_WAIT = 1.0
"""Pause before a disk that did not take a batch is asked again [s]."""


class Keeper:
    """Makes batches, and writes segments. Only its thread touches the files of open runs.

    Parameters
    ----------
    desk : Desk
        Where rows come from, and where batches are put.
    options : TiledOptions
        Size of batches.
    server : str
        Where runs are to go, for whoever finds them in the spool.
    """

    def __init__(self, desk: Desk, options: TiledOptions, server: str) -> None:
        self._desk = desk
        self._options = options
        self._server = server
        self._most = 4 * options.batch_rows
        self._disk_at = 0.0  # when the disk is asked again [s, monotonic]
        self._guard = Guard(logger)

    def run(self) -> None:
        """Work until the sink shuts down and nothing is left that can be stored."""
        desk = self._desk
        while True:
            with desk.change:
                wait = self._wait(desk.routes)
                if desk.hurry and (wait is None or desk.disk_fault):
                    break
                if wait is None or wait > 0:
                    desk.change.wait(wait)
                    continue
                routes = list(desk.routes)
            for route in routes:
                self._attend(route)
        for route in desk.routes:
            self._done("let go of a run", partial(self._leave, route))

    def _wait(self, routes: list[Route]) -> float | None:
        """Return how long until there is something to do [s]; None: until somebody says so."""
        now = time.monotonic()
        waits = [left for route in routes if (left := self._left(route, now)) is not None]
        return min(waits, default=None)

    def _left(self, route: Route, now: float) -> float | None:
        waits: list[float] = []
        if route.closing is not None and route.ending is None:
            return 0.0
        if route.folder is not None and not route.spooling:
            return 0.0
        if self._to_disk(route):
            waits.append(max(0.0, self._disk_at - now))
        if route.incoming:
            desk, options = self._desk, self._options
            many = len(route.incoming) >= options.batch_rows
            pressed = 2 * desk.held > options.queue_bytes
            if many or pressed or desk.flushes or desk.stopping:
                return 0.0
            waits.append(max(0.0, route.since + options.batch_seconds - now))
        return min(waits, default=None)

    def _to_disk(self, route: Route) -> bool:
        """Whether a segment or an ending is to be written."""
        if not route.spooling or route.ended:
            return False
        return route.in_memory or (route.ending is not None and not route.ending_kept)

    def _attend(self, route: Route) -> None:
        with self._desk.change:
            due = self._left(route, time.monotonic())
        if due is None or due > 0:
            return
        if route.incoming or route.closing is not route.ending:
            self._take(route)
        if route.spooling:
            if not self._done("keep masks in the spool", partial(self._keep, route)):
                self._disk_failed(route, self._guard.last)
        elif route.folder is not None:
            folder, route.folder = route.folder, None
            folder.remove()
            self._desk.prune()

    def _done(self, what: str, step: Callable[[], None]) -> bool:
        """Take a step; whether it went well: what raises must not end this thread."""
        failures = self._guard.failures
        self._guard.call(what, step, None)
        return self._guard.failures == failures

    def _take(self, route: Route) -> None:
        """Take rows that were given, and make batches of them."""
        desk = self._desk
        with desk.change:
            count = min(self._most, len(route.incoming))
            taken = [route.incoming.popleft() for _ in range(count)]
            route.since = time.monotonic()
            ending = route.closing if not route.incoming else None
        rows = [row for row, _ in taken]
        well = self._done("make batches of masks", partial(self._cut, route, rows, ending))
        with desk.change:
            desk.held -= sum(size for _, size in taken)
            if not well:
                self._spoiled(route, rows)
            elif ending is not None:
                route.ending = route.closing = self._settled(route, ending)
            desk.change.notify_all()

    def _spoiled(self, route: Route, rows: Sequence[Row]) -> None:
        """Give up the rows of a run that no batch can be made of: none may follow a missing one."""
        desk = self._desk
        given = [*rows, *(row for row, _ in route.incoming)]
        first = route.intake.next - len(route.lined)
        last = max([route.intake.next, *(row.mask.frame.index + 1 for row in given)])
        desk.held -= sum(size for _, size in route.incoming)
        route.incoming.clear()
        route.lined = []
        if not route.drops(first):
            route.dropped = first
        route.dropped_rows += last - first
        route.dropped_why = f"the node {self._guard.last}"
        desk.fault = f"rows of run {route.derived.raw.uid} from {first} on: {route.dropped_why}"
        logger.error("%s. Please report it; its journal is kept", desk.fault)

    def _cut(self, route: Route, rows: Sequence[Row], ending: Ending | None) -> None:
        """Make batches of rows."""
        for row in rows:
            repeated = route.intake.repeated
            route.notebook.take([row])  # also of a row that comes again: what it tells may be new
            for ordered in route.intake.take(row):
                route.lined.append(ordered)
                route.shape = route.shape or run_shape([ordered])
                if len(route.lined) >= self._most:
                    self._make(route)
                if route.drops(ordered.mask.frame.index):
                    self._skip(route, row.mask.frame.index + 1)
                    break
            if route.intake.repeated > repeated == 0:
                logger.warning(
                    "Run %s: frame %d came again; its row stays, and so for any other repeat",
                    route.derived.raw.uid,
                    row.mask.frame.index,
                )
        self._make(route, last=ending is not None)

    def _skip(self, route: Route, last: int) -> None:
        """Count the rows before `last` as dropped that are in no batch: they are not even made."""
        with self._desk.change:
            route.dropped_rows += last - route.intake.next + len(route.lined)
            route.intake.next = last
            route.lined = []

    def _settled(self, route: Route, ending: Ending) -> Ending:
        """Return how a run ended, with what the sink counted."""
        counts = {"repeated": route.intake.repeated}
        if route.dropped < 0:
            return replace(ending, counts=counts)
        reason = (
            f"{route.dropped_rows} rows from row {route.dropped} on were dropped: "
            f"{route.dropped_why}"
        )
        logger.error("Run %s: %s", route.derived.raw.uid, reason)
        account = replace(ending.account, exit_status="fail", reason=reason)
        return replace(ending, account=account, counts={**counts, "dropped": route.dropped_rows})

    def _make(self, route: Route, *, last: bool = False) -> None:
        """Make a batch of the rows in line, and of what was noticed meanwhile."""
        desk, rows = self._desk, route.lined
        if route.shape is None and last:
            route.shape = (1, 1)
        if route.shape is None or not (rows or last):
            return
        notes = {name: page for name, page in route.notebook.tear_off().items() if page}
        if not rows and not notes:
            return
        first = route.intake.next - len(rows)
        batch = make_batch(first, rows, route.shape, self._options.arrays, notes)
        route.lined = []
        with desk.change:
            if route.drops(first):
                route.dropped_rows += len(rows)
                return
            route.queue.append(Parcel(batch.first, batch.last, batch))
            desk.held += batch.nbytes
            desk.change.notify_all()
        if len(rows) >= self._most:
            self._relieve(route, batch)

    def _relieve(self, route: Route, batch: Batch) -> None:
        """Keep memory bounded while the rows of a long hole are made."""
        desk, limit = self._desk, self._options.queue_bytes
        if 2 * desk.held > limit and not route.spooling:
            desk.divert(route, f"Tiled at {self._server} is too slow for these frames")
        if route.spooling:
            self._keep(route)
        with desk.change:
            full = desk.held > limit and desk.disk_fault and len(route.queue) > 1
            if full and not (parcel := route.queue[-1]).on_way:
                route.queue.pop()
                desk.held -= parcel.nbytes
                if not route.drops(parcel.first):
                    route.dropped = parcel.first
                route.dropped_rows += parcel.last - parcel.first

    def _keep(self, route: Route) -> None:
        """Write to disk what is in memory only."""
        desk = self._desk
        if time.monotonic() < self._disk_at:
            return
        try:
            if route.folder is None:
                route.folder = SpoolFolder(desk.spool.masks / route.derived.uid)
            route.folder.begin(route.derived, self._server, self._options.container)
            with desk.change:
                waiting = [(p, p.batch) for p in route.queue if p.batch is not None]
            for parcel, batch in waiting:
                self._keep_batch(route, route.folder, parcel, batch)
            if route.ending is not None and not route.ending_kept and not route.ended:
                route.folder.end(route.ending, route.derived, route.products)
                route.ending_kept = True
        except OSError as error:
            self._disk_failed(route, str(error))
        else:
            desk.disk_fault = ""
            route.told.discard("disk")
        with desk.change:
            desk.change.notify_all()

    def _keep_batch(self, route: Route, folder: SpoolFolder, parcel: Parcel, batch: Batch) -> None:
        desk = self._desk
        if parcel.done:
            return
        path = folder.add(batch, desk.spool.min_free_bytes)
        with desk.change:
            if not parcel.done:
                parcel.path, path = path, None
                desk.held -= parcel.nbytes
                parcel.batch = None
                route.safe = max(route.safe, parcel.last)
            desk.change.notify_all()
        if path is not None:  # Tiled took it in the meantime
            path.unlink(missing_ok=True)

    def _disk_failed(self, route: Route, error: str) -> None:
        desk, uid = self._desk, route.derived.raw.uid
        self._disk_at = time.monotonic() + DISK_WAIT
        desk.disk_fault = (
            f"masks of run {uid} are not safe: {error}: make room, or choose another spool.folder"
        )
        if "disk" not in route.told:
            route.told.add("disk")
            logger.error("%s", desk.disk_fault)

    def _leave(self, route: Route) -> None:
        """Say what this process could not store, and let go of the run."""
        left = [parcel for parcel in route.queue if parcel.path is None]
        if left:
            logger.error(
                "Run %s: rows %d to %d are lost with this process: neither Tiled nor the disk of "
                "the spool took them",
                route.derived.raw.uid,
                left[0].first,
                left[-1].last - 1,
            )
        folder, route.folder = route.folder, None
        if folder is None:
            return
        if route.ended or (not route.queue and not route.ending_kept):
            folder.remove()
        else:
            folder.release()
