"""A 0MQ socket to a node's feed: made anew when nobody answers, given up after a time."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import zmq

from ..errors import FeedError
from ..sinks.feed.wire import MOST_BYTES, Message, unpack
from ..sources.zmq.curve import load_keys
from ..sources.zmq.options import endpoint_of

_ASK_AGAIN = 1.0  # s of silence
_RENEW = 5.0  # s of silence
_HEARTBEAT_MS = (5000, 20000)
_HIGH_WATER = 1000


class Line:
    """Asks and hears; used by one thread, as a context manager.

    Parameters
    ----------
    address : str
        ``zmq://HOST:PORT``.
    published : bool
        Whether messages are published there, and nothing can be asked.
    timeout : float
        Longest silence [s].
    keys : tuple of str
        Files of this side's secret and of the node's public key; empty without encryption.
    clock : callable
        Seconds that only go forward.

    Raises
    ------
    SourceError
        If the address or the keys cannot be used.
    """

    def __init__(
        self,
        address: str,
        published: bool = False,
        timeout: float = 600.0,
        keys: tuple[str, str] = ("", ""),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self._endpoint = endpoint_of(address)
        self._kind = zmq.SUB if published else zmq.DEALER
        self._timeout = timeout
        self._keys = load_keys(*keys) if any(keys) else None
        self._clock = clock
        self._heard = self._made = clock()
        self._context = zmq.Context()
        self._socket = self._connected()

    def __enter__(self) -> "Line":
        """Return this line."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the socket."""
        self._socket.close(linger=0)
        self._context.term()

    def ask(self, request: Mapping[str, Any]) -> None:
        """Send a request; into the void if nobody is there."""
        with suppress(zmq.Again):  # nobody has answered for long
            self._socket.send(json.dumps(request).encode(), zmq.NOBLOCK)

    def hear(self) -> Message | None:
        """Return the next message; None after a moment of silence.

        Raises
        ------
        FeedError
            If the silence is too long, or what comes is no message.
        """
        if self._socket.poll(int(min(_ASK_AGAIN, self._timeout) * 1000)):
            self._heard = self._made = self._clock()
            return unpack(self._socket.recv_multipart())
        silent = self._clock() - self._heard
        if silent >= self._timeout:
            raise FeedError(
                f"{self.address}: nothing heard for {silent:.0f} s; does the node run, is this its "
                f"port, and {'do the keys fit' if self._keys else 'does it use no keys'}?"
            )
        if self._clock() - self._made >= _RENEW:
            self.renew()
        return None

    def renew(self) -> None:
        """Connect anew: what was on its way is lost, and can be asked for again."""
        self._socket.close(linger=0)
        self._socket = self._connected()

    def _connected(self) -> "zmq.Socket[bytes]":
        self._made = self._clock()
        socket = self._context.socket(self._kind)
        socket.maxmsgsize = MOST_BYTES
        socket.rcvhwm = _HIGH_WATER
        socket.sndhwm = 8
        socket.ipv6 = "[" in self._endpoint
        socket.heartbeat_ivl, socket.heartbeat_timeout = _HEARTBEAT_MS
        if self._kind == zmq.SUB:
            socket.subscribe(b"")
        if self._keys is not None:
            self._keys.apply(socket)
        socket.connect(self._endpoint)
        return socket
