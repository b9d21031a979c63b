"""What the threads of the Tiled sink share: runs, and what of them is on its way."""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..node.ports import Products
from ..node.spool import SpoolOptions
from .derived import Derived
from .ending import Ending
from .parcel import Parcel
from .rows import Intake, Row, Shape
from .side_tables import Notebook
from .spool import SpoolFolder
from .tiled_run import TiledRun

logger = logging.getLogger("ptychoseg_stream.sinks")

KEPT = 256  # runs that are stored, whose place and size are remembered


@dataclass(slots=True, eq=False)
class Route:
    """The way of one run.

    Parameters
    ----------
    derived : Derived
        The derived run.
    intake : Intake
        Puts rows in line; the keeper's.
    open : bool
        Whether rows may come.

    Attributes
    ----------
    incoming : deque of Row
        Rows given.
    lined : list of Row
        Rows in line that are no batch yet; the keeper's.
    since : float
        When the oldest row given came [s, monotonic].
    queue : deque of Parcel
        Batches, in order of their rows.
    spooling : bool
        Whether batches go to disk: from the first that Tiled did not take until all are there.
    folder : SpoolFolder or None
        Its place in the spool, once there is one.
    address : str
        URI of its node, once there is one.
    safe : int
        Rows in Tiled or on disk.
    begun, ended, finished : bool
        Whether its node is there; its stop document is there; it was there before this process.
    ending : Ending or None
        How it ended, once it is closed and all rows are in the queue.
    closing : Ending or None
        The same, while rows are still given.
    products : Products or None
        What it says as a whole, while Tiled does not have it.
    refused_products : int
        How often in a row Tiled did not take that.
    ending_kept : bool
        Whether the ending is on disk.
    dropped : int
        First row that was dropped; -1 for none. All after it are dropped, too.
    dropped_rows : int
        How many.
    dropped_why : str
        Why.
    tiled : TiledRun or None
        Its nodes; the uploader's.
    doubtful : bool
        Whether something failed: what is stored has to be looked up.
    told : set of str
        What was said in the log.
    not_before : float
        When it is offered to Tiled again [s, monotonic].
    quiet_until : float
        Until when Tiled is not asked for it: rows may be on their way there [s, monotonic].
    turn : int
        When it was attended to last, as a count.
    """

    derived: Derived
    intake: Intake
    open: bool = True
    incoming: deque[tuple[Row, int]] = field(default_factory=deque[tuple[Row, int]])
    lined: list[Row] = field(default_factory=list[Row])
    notebook: Notebook = field(default_factory=Notebook)
    shape: Shape | None = None
    since: float = 0.0
    queue: deque[Parcel] = field(default_factory=deque[Parcel])
    spooling: bool = False
    folder: SpoolFolder | None = None
    address: str = ""
    safe: int = 0
    begun: bool = False
    ended: bool = False
    finished: bool = False
    closing: Ending | None = None
    ending: Ending | None = None
    products: Products | None = None
    refused_products: int = 0
    ending_kept: bool = False
    dropped: int = -1
    dropped_rows: int = 0
    dropped_why: str = "neither Tiled nor the disk of the spool took them"
    tiled: TiledRun | None = None
    doubtful: bool = False
    told: set[str] = field(default_factory=set[str])
    not_before: float = 0.0
    quiet_until: float = 0.0
    turn: int = 0

    @classmethod
    def of_folder(cls, folder: SpoolFolder, secret: str) -> "Route":
        """Return the way of a run that an earlier process left in the spool.

        Raises
        ------
        StoreError
            If it cannot be read.
        """
        derived, ending = folder.derived(secret), folder.ending()
        parcels = [Parcel(s.first, s.last, path=s.path) for s in folder.segments()]
        safe = max((parcel.last for parcel in parcels), default=0)
        return cls(
            derived,
            Intake(safe, resumed=True),
            open=False,
            queue=deque(parcels),
            spooling=True,
            folder=folder,
            safe=safe,
            closing=ending,
            ending=ending,
            products=folder.products(),
            ending_kept=ending is not None,
        )

    def drops(self, row: int) -> bool:
        """Whether a row comes after one that was dropped."""
        return 0 <= self.dropped <= row

    @property
    def abandoned(self) -> bool:
        """Whether it was cut off, and nobody goes on with it: there is no stop document."""
        return not self.open and self.closing is None

    @property
    def idle(self) -> bool:
        """Whether nothing of it waits for Tiled by now."""
        return self.ended or (self.begun and not self.queue and self.closing is None)

    @property
    def in_memory(self) -> bool:
        """Whether any batch is in memory only."""
        return any(parcel.path is None for parcel in self.queue)

    @property
    def unsafe(self) -> bool:
        """Whether anything that could be stored is neither in Tiled nor on disk."""
        waiting = self.incoming or (self.lined and self.shape) or self.in_memory
        if self.closing is not None and not (self.ended or self.ending_kept):
            return True
        if self.finished:
            return False
        if not self.spooling and (self.products is not None or not self.begun):
            return True
        return bool(waiting)

    @property
    def next_try(self) -> float:
        """When it may be offered to Tiled [s, monotonic]."""
        return max(self.not_before, self.quiet_until)

    @property
    def work(self) -> bool:
        """Whether Tiled can be given something."""
        if self.ended:
            return False
        given = self.queue or self.products is not None or self.ending is not None
        return not self.begun or bool(given) or self.abandoned


class Desk:
    """Where callers and the two threads of a sink meet.

    Parameters
    ----------
    spool : SpoolOptions
        Where rows go that Tiled does not take.

    Attributes
    ----------
    change : threading.Condition
        Guards everything here and in the routes; told of every change.
    routes : list of Route
        Runs that are open, or not wholly stored; and some that are.
    held : int
        Memory of rows and batches [bytes].
    flushes : int
        Callers that wait until all is stored: nothing is held back.
    stopping, hurry : bool
        Whether the sink shuts down; whether what Tiled did not take by now goes to disk.
    fault, disk_fault : str
        Last thing that went wrong; why the disk does not take rows, empty while it does.
    down : bool
        Whether the server did not answer the last time.
    """

    def __init__(self, spool: SpoolOptions) -> None:
        self.spool = spool
        self.change = threading.Condition()
        self.routes: list[Route] = []
        self.held = 0
        self.flushes = 0
        self.stopping = False
        self.hurry = False
        self.fault = ""
        self.disk_fault = ""
        self.down = False

    def divert(self, route: Route, why: str) -> None:
        """Have the rows of a run go to the spool, until Tiled has all of them; say so once."""
        with self.change:
            route.spooling = True
            if why not in route.told:
                route.told.add(why)
                logger.error(
                    "%s. Masks of run %s wait in %s, and go to Tiled as soon as it takes them",
                    why,
                    route.derived.raw.uid,
                    self.spool.masks / route.derived.uid,
                )
            self.change.notify_all()

    def prune(self) -> None:
        """Forget runs that are wholly stored; the last of them can be asked for."""
        with self.change:
            ended = [route for route in self.routes if route.ended and route.folder is None]
            gone = [route for route in ended if route.abandoned] + ended[:-KEPT]
            self.routes = [route for route in self.routes if route not in gone]

    def wait_until_safe(self, timeout: float) -> bool:
        """Wait until all is in Tiled or on disk; False after `timeout` [s]."""
        end = time.monotonic() + timeout
        with self.change:
            self.flushes += 1
            self.change.notify_all()
            try:
                while any(route.unsafe for route in self.routes):
                    left = end - time.monotonic()
                    if left <= 0:
                        return False
                    self.change.wait(left)
            finally:
                self.flushes -= 1
        return not any(route.dropped >= 0 for route in self.routes)

    def sent(self, route: Route, parcels: Iterable[Parcel], rows: int) -> list[Path]:
        """Note that Tiled has some parcels, the first of the queue; return their files."""
        paths: list[Path] = []
        with self.change:
            for parcel in parcels:
                parcel.done = True
                self.held -= parcel.nbytes
                parcel.batch = None
                if parcel in route.queue:  # else it was dropped in the meantime
                    route.queue.remove(parcel)
                if parcel.path is not None:
                    paths.append(parcel.path)
            route.safe = max(route.safe, rows)
            self.change.notify_all()
        return paths
