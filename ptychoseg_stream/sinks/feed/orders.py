"""From the labelling thread to the feed's own: bounded, and never waiting."""

import socket
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from ...node.ports import Account, Products, RunInfo
from ...science.frame import Frame, Mask

MOST_BYTES = 128 << 20  # images that wait
MOST_ORDERS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Open:
    """A run begins."""

    info: RunInfo


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Frames with their masks; the images are copies."""

    run: str
    frames: Sequence[Frame]
    masks: Sequence[Mask]
    nbytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Publish:
    """What a run says as a whole."""

    run: str
    products: Products


@dataclass(frozen=True, slots=True, eq=False)
class Overflow:
    """Something of a run was left out: there was no room."""

    run: str


@dataclass(frozen=True, slots=True, eq=False)
class Close:
    """A run is over."""

    run: str
    account: Account


@dataclass(frozen=True, slots=True, eq=False)
class Quit:
    """Nothing follows."""


Order: TypeAlias = Open | Frames | Publish | Overflow | Close | Quit


class Orders:
    """A queue whose other end can be polled.

    Attributes
    ----------
    bell : socket.socket
        Can be read when there is something; used by the taker.
    """

    def __init__(self) -> None:
        self.bell, self._button = socket.socketpair()
        self.bell.setblocking(False)
        self._button.setblocking(False)
        self._lock = threading.Lock()
        self._waiting: deque[Order] = deque()
        self._nbytes = 0

    def put(self, order: Order) -> None:
        """Add an order; frames and products for which there is no room are left out."""
        with self._lock:
            admitted = self._admitted(order)
            if admitted is None:
                return
            self._waiting.append(admitted)
        with suppress(OSError):  # it rings already, or nobody listens any more
            self._button.send(b"!")

    def take(self) -> list[Order]:
        """Return all orders."""
        with suppress(BlockingIOError):
            while self.bell.recv(4096):
                pass
        with self._lock:
            orders = list(self._waiting)
            self._waiting.clear()
            self._nbytes = 0
        return orders

    def close(self) -> None:
        """Release the sockets."""
        self.bell.close()
        self._button.close()

    def _admitted(self, order: Order) -> Order | None:
        """Return what is queued in place of an order."""
        full = len(self._waiting) >= MOST_ORDERS
        if isinstance(order, Publish) and full:
            return None  # the next one says all of it again
        if not isinstance(order, Frames):
            return order
        if full or (self._nbytes and self._nbytes + order.nbytes > MOST_BYTES):
            last = self._waiting[-1] if self._waiting else None
            again = isinstance(last, Overflow) and last.run == order.run
            return None if again else Overflow(order.run)
        self._nbytes += order.nbytes
        return order
