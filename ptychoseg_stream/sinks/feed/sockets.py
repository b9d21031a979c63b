"""The sockets of the feed: bound again and again until it works, encrypted where keys are given."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from ...errors import ProfileError
from ...node.curve import on_this_machine, open_to_others, read_pair
from .options import FeedOptions

log = logging.getLogger(__name__)

REQUEST_BYTES = 1 << 14
"""Longest request: a longer one breaks the connection."""
HIGH_WATER = 64
"""Messages that may wait in the socket for each consumer."""
_HEARTBEAT_MS = (5000, 20000)
_AGAIN = 1.0  # s between two attempts to bind
_LINGER_MS = 1000


class Sockets:
    """A ROUTER that is asked, and a PUB that tells; used by one thread.

    Parameters
    ----------
    options : FeedOptions
        Where, and with what keys.
    monotonic : callable
        Seconds of a clock that never jumps.

    Attributes
    ----------
    router : zmq.Socket or None
        None where nobody may ask.

    Raises
    ------
    ProfileError
        If the keys cannot be used.
    """

    def __init__(
        self, options: FeedOptions, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        keys = read_keys(options)
        self._now = monotonic
        self._options = options
        self._context = zmq.Context()
        self._guard = self._let_in(options) if keys else None
        self.router = self._make(zmq.ROUTER, keys) if options.serve else None
        self._pub = self._make(zmq.PUB, keys) if options.publish else None
        self._unbound = [
            (socket, endpoint)
            for socket, endpoint in ((self.router, options.serve), (self._pub, options.publish))
            if socket is not None
        ]
        self._tried = float("-inf")
        self._told: set[str] = set()
        for endpoint in (options.serve, options.publish):
            if endpoint and not keys and not on_this_machine(endpoint):
                log.warning(
                    "feed at %s: frames and masks cross the network unencrypted, and anyone who "
                    "reaches that port can read them; set feed.curve_secret and feed.curve_clients",
                    endpoint,
                )

    def bind(self) -> bool:
        """Bind what is not bound yet; return whether all is."""
        if self._unbound and self._now() - self._tried >= _AGAIN:
            self._tried = self._now()
            self._unbound = [each for each in self._unbound if not self._bound(*each)]
        return not self._unbound

    def publish(self, parts: Sequence[bytes]) -> None:
        """Tell whoever listens; what cannot be sent at once is lost."""
        if self._pub is not None:
            self._pub.send_multipart(parts, zmq.NOBLOCK)  # a PUB socket drops, and never waits

    def close(self) -> None:
        """Release the sockets, after what was sent has left or a second is over."""
        for socket in (self.router, self._pub):
            if socket is not None:
                socket.close(linger=_LINGER_MS)
        if self._guard is not None:
            self._guard.stop()
        self._context.term()

    def _make(self, kind: int, keys: tuple[bytes, bytes] | None) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        socket.sndhwm = HIGH_WATER
        socket.maxmsgsize = REQUEST_BYTES
        socket.heartbeat_ivl, socket.heartbeat_timeout = _HEARTBEAT_MS
        if kind == zmq.ROUTER:
            socket.rcvhwm = HIGH_WATER
            socket.router_mandatory = True  # else it drops for who has no room, and says nothing
        if keys:
            socket.curve_publickey, socket.curve_secretkey = keys
            socket.curve_server = True
        return socket

    def _bound(self, socket: "zmq.Socket[bytes]", endpoint: str) -> bool:
        socket.ipv6 = "[" in endpoint
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            if endpoint not in self._told:
                self._told.add(endpoint)
                log.error(
                    "feed at %s: cannot listen there (%s); it is tried on and on. Does another "
                    "node use this port? See `feed` of the profile",
                    endpoint,
                    error.strerror,
                )
            return False
        log.info("feed at %s", endpoint)
        return True

    def _let_in(self, options: FeedOptions) -> ThreadAuthenticator:
        guard = ThreadAuthenticator(self._context, log=log)
        guard.start()
        guard.configure_curve(domain="*", location=_folder(options))
        return guard


def read_keys(options: FeedOptions) -> tuple[bytes, bytes] | None:
    """Return public and secret key of the node; None without encryption.

    Raises
    ------
    ProfileError
        If they cannot be used, or there is no folder of those who may listen.
    """
    if not options.curve_secret:
        return None
    try:
        keys = read_pair("feed.curve_secret", options.curve_secret)
        zmq.auth.load_certificates(_folder(options))
    except (ValueError, OSError) as error:
        raise ProfileError(f"{error}") from error
    if open_to_others(options.curve_secret):
        log.warning("%s: other users can read it; chmod 600 it", options.curve_secret)
    return keys


def _folder(options: FeedOptions) -> str:
    return str(Path(options.curve_clients).expanduser())
