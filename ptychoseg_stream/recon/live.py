"""Iterates while frames arrive: what has come is taken between two epochs.

The feed is read by a thread of its own, so that no frame waits for an epoch; the reconstruction
belongs to the caller's thread, and to nobody else.
"""

import queue
import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Protocol

from ..errors import DatasetError
from ..sinks.feed.items import (
    FrameItem,
    Item,
    PositionsItem,
    ProductsItem,
    Revision,
    Start,
    Stop,
)
from .engine import ENOUGH, Engine, ReconOptions, Step
from .growing import GrowingScan

PATIENT = 32
"""Frames from which on it begins though the run has said nothing as a whole yet."""


class Inbox(Protocol):
    """Where items of a feed come in."""

    def take(self, *, wait: bool) -> list[Item]:
        """Return what has come since; with `wait`, at least one item."""
        ...


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How a run is followed.

    Parameters
    ----------
    after : int
        Epochs after the run has ended.
    pedestal, gain : float
        Of the detector, see `GrowingScan`.
    """

    after: int = 10
    pedestal: float = 0.0
    gain: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """What there is after an epoch.

    Parameters
    ----------
    step : Step
    engine : Engine
        With object and probe as they are now.
    start : Start
        The run's `Start`.
    come, planned : int
        Frames that have come; frames that are planned, 0 if nobody knows.
    ended : bool
        Whether the run is over.
    last : bool
        Whether this is the last epoch.
    """

    step: Step
    engine: Engine
    start: Start
    come: int
    planned: int
    ended: bool
    last: bool


class Follower:
    """Takes the items of one run, in the order of the feed, into a scan.

    Parameters
    ----------
    options : LiveOptions
    """

    def __init__(self, options: LiveOptions) -> None:
        self._options = options
        self.start: Start | None = None
        self.scan: GrowingScan | None = None
        self.come = 0
        self.ended = False

    def take(self, item: Item) -> None:
        """Take the next item; what comes before the start of the run is not of it."""
        if isinstance(item, Start):
            if self.start is None or item.run != self.start.run:  # else told again, from elsewhere
                self._begin(item)
        elif isinstance(item, Stop):
            self.ended = True
        elif self.scan is not None:
            self._put(item, self.scan)

    def _begin(self, start: Start) -> None:
        options = self._options
        self.start = start
        self.scan = GrowingScan(
            start.shape, start.num_points, start.experiment, options.pedestal, options.gain
        )
        if start.positions is not None:
            self.scan.place(0, start.positions)

    def _put(self, item: Item, scan: GrowingScan) -> None:
        if isinstance(item, FrameItem):
            scan.add(item)
            self.come = max(self.come, item.index + 1)
        elif isinstance(item, Revision):
            scan.revise(item.first, item.last, item.bits)
        elif isinstance(item, PositionsItem):
            scan.place(item.first, item.positions)
        elif isinstance(item, ProductsItem):
            scan.learn(item.products.of_frames)
            scan.place(0, item.products.positions)
            scan.experiment = item.products.experiment


def live(
    inbox: Inbox, options: ReconOptions | None = None, follow: LiveOptions | None = None
) -> Generator[Update]:
    """Reconstruct a run from its first frames on; one update per epoch.

    It begins with `ENOUGH` frames and ends some epochs after the run.

    Raises
    ------
    DatasetError
        If the run ends without a frame that can be used; as `Engine`.
    """
    follow = follow or LiveOptions()
    run, engine, left = Follower(follow), None, follow.after
    while left > 0:
        busy = run.scan is not None and _enough(run)
        for item in inbox.take(wait=not busy and not run.ended):
            run.take(item)
        if run.scan is None or run.start is None or not _enough(run):
            if run.ended:
                raise DatasetError(f"the run has ended, and {_lack(run)}")
            continue
        left -= run.ended
        engine = engine or Engine(run.scan, options)
        step, start = engine.epoch(), run.start
        yield Update(step, engine, start, run.come, start.num_points, run.ended, left == 0)


def _enough(run: Follower) -> bool:
    """Whether to iterate: the first probe is better with a pupil, which soon comes."""
    assert run.scan is not None
    enough = ENOUGH if run.scan.products is not None else PATIENT
    return len(run.scan.ready) >= (1 if run.ended else enough)


def _lack(run: Follower) -> str:
    if not run.come:
        return "no frame has come"
    return f"of {run.come} frames none has both a mask and a position: does the plan move motors?"


class ThreadInbox:
    """Reads a feed in a thread of its own.

    Parameters
    ----------
    items : iterable
        Blocks between items; ends with the run. What it raises, `take` raises.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._queue: queue.SimpleQueue[Item | Exception] = queue.SimpleQueue()
        self._thread = threading.Thread(
            name="ptychoseg-recon", target=self._read, args=(items,), daemon=True
        )
        self._thread.start()

    def take(self, *, wait: bool) -> list[Item]:
        """Return what has come since; with `wait`, at least one item."""
        items: list[Item] = []
        while True:
            try:
                item = self._queue.get(wait and not items)
            except queue.Empty:
                return items
            if isinstance(item, Exception):
                raise item
            items.append(item)

    def _read(self, items: Iterable[Item]) -> None:
        try:
            for item in items:
                self._queue.put(item)
                if isinstance(item, Stop):
                    return
            self._queue.put(DatasetError("the feed has ended before the run"))
        except Exception as error:  # noqa: BLE001 - raised again by `take`, in the caller's thread
            self._queue.put(error)
