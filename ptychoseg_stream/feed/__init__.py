"""Follow a run while it is labelled: ``for item in follow("zmq://127.0.0.1:5571"): ...``.

::

    client     the acknowledged feed of a node: nothing is missed, whoever restarts
    published  the same messages over PUB, for who can do without some
    stored     the same items out of Tiled, for who comes late
    line       a 0MQ socket that is made anew when nobody answers
    lines      an item in one line, for people
"""

from ..sinks.feed.items import (
    FrameItem,
    Item,
    PositionsItem,
    ProductsItem,
    Revision,
    Start,
    Stop,
)
from .follow import follow

__all__ = [
    "FrameItem",
    "Item",
    "PositionsItem",
    "ProductsItem",
    "Revision",
    "Start",
    "Stop",
    "follow",
]
