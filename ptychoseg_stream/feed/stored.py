"""Follows a derived run in Tiled: reads what is there, then what comes, until its stop document."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

from ..errors import FeedError
from ..sinks.feed.items import FrameItem, Item, PositionsItem, ProductsItem, Revision, Stop
from ..sinks.feed.news import News
from ..sources.tiled.address import TiledAddress, TiledUnavailable
from ..sources.tiled.client import TiledClient
from .derived_run import DerivedRun, find_run

log = logging.getLogger(__name__)

_POLL = 0.5  # s


def follow_stored(
    address: str,
    run: str = "",
    api_key: str = "",
    timeout: float = 600.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Item]:
    """Yield the items of a derived run, numbered as they are read.

    Parameters
    ----------
    address : str
        Of the run, or of the container of derived runs.
    run : str
        Uid of the raw or derived run, where `address` is a container; "": the newest one that has
        not ended, else the next one.
    api_key : str
        "": what the environment variable TILED_API_KEY holds.
    timeout : float
        How long Tiled may be away [s].
    clock : callable
        Seconds that only go forward.

    Raises
    ------
    SourceError
        If the address cannot be used, or Tiled refuses.
    FeedError
        If Tiled is away for too long, or `address` is no derived run.
    """
    place = TiledAddress.parse(address)
    with TiledClient(place, api_key=api_key) as client:
        stored: DerivedRun | None = None
        walk, answered = _Walk(), clock()
        while True:
            try:
                stored = stored or find_run(client, place.path, run)
                if stored is not None:
                    yield from walk.advance(stored)
                answered = clock()
            except TiledUnavailable as error:
                if clock() - answered > timeout:
                    raise FeedError(f"{place}: {error}; asked for {timeout:g} s") from error
                log.info("%s: %s; it is asked again", place, error)
            if walk.ended:
                return
            time.sleep(_POLL)


class _Walk:
    """What was read of a run so far; may be broken off anywhere by Tiled, and goes on there."""

    def __init__(self) -> None:
        self.ended = False
        self._numbers = count()
        self._begun = False
        self._rows = 0
        self._news = News()

    def advance(self, run: DerivedRun) -> Iterator[Item]:
        """Yield what is new."""
        stop = run.look()  # before the rows: those that are there then, are all
        if not self._begun and (run.shape is not None or stop is not None):
            self._begun = True
            yield run.start(next(self._numbers))
        for row in run.rows(self._rows):
            self._rows += 1
            yield self._numbered_frame(row)
        yield from self._whole(run)
        if stop is not None:
            self.ended = True
            status, reason = str(stop.get("exit_status", "")), str(stop.get("reason", ""))
            account = dict(stop.get("account") or {})
            yield Stop(next(self._numbers), run.raw, status, reason, account)

    def _numbered_frame(self, row: FrameItem) -> FrameItem:
        return replace(row, seq=next(self._numbers), revision=self._news.revision)

    def _whole(self, run: DerivedRun) -> Iterator[Item]:
        products = run.products() if self._begun else None
        if products is None:
            return
        bits = self._news.bits_of(products.of_frames.pixel_mask)
        if bits is not None and self._rows:
            revision = self._news.revise(bits)
            yield Revision(next(self._numbers), run.raw, 0, self._rows, bits, revision)
        if (known := self._news.positions_of(products.positions)) is not None:
            first, positions = known
            self._news.place(first, positions)
            yield PositionsItem(next(self._numbers), run.raw, first, positions)
        yield ProductsItem(next(self._numbers), run.raw, products)
