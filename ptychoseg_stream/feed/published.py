"""What a node publishes: the same messages, without a way to ask for those that were lost."""

import logging
from collections.abc import Iterator

from ..errors import FeedError
from ..sinks.feed.items import Item, Start, Stop
from ..sinks.feed.messages import decode
from .line import Line

log = logging.getLogger(__name__)


def follow_published(line: Line, run: str = "") -> Iterator[Item]:
    """Yield the items of a run whose start is heard.

    Raises
    ------
    FeedError
        If the run began before, or something of it was lost.
    """
    following, seq, passed = "", 0, ""
    while True:
        message = line.hear()
        if message is None or message.kind == "alive":
            continue
        item = decode(message)
        if not following and isinstance(item, Start) and run in ("", item.run, item.derived):
            following = item.run
        if not following and run == item.run:
            raise FeedError(f"run {run} began before anybody listened here; {_ELSEWHERE}")
        if item.run != following:
            if not following and not run and item.run != passed:
                passed = item.run
                log.warning("run %s began before; the next one is waited for", passed)
            continue
        if item.seq != seq:
            what = f"messages {seq} to {item.seq - 1} were not heard"
            what = what if item.seq > seq else "the node was started anew"
            raise FeedError(f"run {following}: {what}; {_ELSEWHERE}")
        seq += 1
        yield item
        if isinstance(item, Stop):
            return


_ELSEWHERE = "follow it over zmq://, where nothing is lost, or in Tiled"
