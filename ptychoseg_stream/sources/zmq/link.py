"""A socket that listens to a proxy, and what its monitor tells about the connection.

libzmq says nothing when keys do not fit, and gives up for good after some failures (a key that is
refused, a message above its limit, the wrong port): both are made good here.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import zmq
from zmq.utils.monitor import recv_monitor_message

from ...errors import SourceError
from ...node.curve import on_this_machine
from .curve import CurveKeys, open_to_others
from .options import FORM, ZmqOptions

log = logging.getLogger(__name__)

_RETRY = 2.0  # s between two attempts of ours; libzmq's own come more often
_RECONNECT_MS = (100, 2000)  # pause of libzmq before its next attempt: the first, and the longest
_HEARTBEAT_MS = (5000, 20000)  # how often it asks whether the other side lives, and how long
_TICK_MS = 50


class Link:
    """A SUB socket with its monitor; used by one thread, as a context manager.

    Parameters
    ----------
    endpoint : str
        Address of the proxy, see `ptychoseg_stream.sources.zmq.options.endpoint_of`.
    options : ZmqOptions
        Limits, prefix.
    keys : CurveKeys, optional
        Those of `options`; without any, the connection is not encrypted.
    monotonic : callable
        Seconds of a clock that never jumps.

    Attributes
    ----------
    connected : bool
        Whether there is a connection, its handshake done.
    fault : str
        Why there is none, and what to do; empty when nothing is known.
    breaks : int
        How often a connection was lost.

    Raises
    ------
    SourceError
        For an address that cannot be used.
    """

    def __init__(
        self,
        endpoint: str,
        options: ZmqOptions,
        keys: CurveKeys | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connected = False
        self.fault = ""
        self.breaks = 0
        self._endpoint = endpoint
        self._options = options
        self._encrypted = keys is not None
        self._now = monotonic
        self._since = self._tried = monotonic()
        self._told = ""  # what was reported of this break
        self._sure = False
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._monitor = self._socket.get_monitor_socket()
        try:
            self._set_up(keys)
            self._socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise SourceError(f"{endpoint}: cannot be used ({error.strerror}); {FORM}") from error
        self._warn()

    def __enter__(self) -> "Link":
        """Return this link."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def receive(self) -> bytes | None:
        """Return the next message; None if there is none within a moment."""
        arrived = self._socket.poll(_TICK_MS)
        for event in self._events():
            self._note(zmq.Event(event["event"]), int(event["value"]))
        if arrived:
            return self._socket.recv(zmq.NOBLOCK)
        if not self.connected:
            self._try_again()
        return None

    def close(self) -> None:
        """Release the socket; what waits in it is lost."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
        self._context.term()

    def _set_up(self, keys: CurveKeys | None) -> None:
        socket = self._socket
        socket.rcvhwm = self._options.high_water
        socket.maxmsgsize = self._options.max_message
        socket.ipv6 = "[" in self._endpoint  # else localhost may be ::1, where no proxy listens
        socket.reconnect_ivl, socket.reconnect_ivl_max = _RECONNECT_MS
        # Without it, a proxy whose machine was switched off is never missed.
        socket.heartbeat_ivl, socket.heartbeat_timeout = _HEARTBEAT_MS
        prefix = self._options.prefix
        socket.subscribe(f"{prefix} ".encode() if prefix else b"")
        if keys is not None:
            keys.apply(socket)

    def _warn(self) -> None:
        if self._encrypted and open_to_others(self._options.curve_secret):
            log.warning(
                "%s: other users can read this secret; run: chmod 600 %s",
                self._options.curve_secret,
                self._options.curve_secret,
            )
        if not self._encrypted and not on_this_machine(self._endpoint):
            log.warning(
                "%s: documents cross the network unencrypted, and anyone who reaches that port "
                "can read them; set curve_secret and curve_server",
                self._endpoint,
            )

    def _events(self) -> Iterator[dict[str, Any]]:
        while self._monitor.poll(0):
            yield cast(dict[str, Any], recv_monitor_message(self._monitor))

    def _note(self, event: zmq.Event, value: int) -> None:
        """Learn from one event of the monitor."""
        if event == zmq.Event.HANDSHAKE_SUCCEEDED:
            self.connected, self.fault, self._sure = True, "", False
            log.info("%s: connected", self._endpoint)
            self._told = ""
        elif event == zmq.Event.DISCONNECTED and self.connected:
            self.connected = False
            self.breaks += 1
            self._since = self._tried = self._now()
            log.warning("%s: the connection is lost; it is made again", self._endpoint)
        elif reason := self._reason(event, value):
            self.fault, self._sure = reason, True
        elif not self._sure:
            self.fault = self._guess(event) or self.fault

    def _reason(self, event: zmq.Event, value: int) -> str:
        """Return why there is no connection, if an event says so."""
        if event == zmq.Event.HANDSHAKE_FAILED_AUTH:
            return (
                "the proxy refuses our key: put the public part of curve_secret into its folder "
                "of client keys, and start it again"
            )
        if value == zmq.Event.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            return "one side uses CURVE and the other does not: set both keys, or neither"
        return ""

    def _guess(self, event: zmq.Event) -> str:
        """Return why there may be no connection; empty if an event says nothing about it."""
        if event in (zmq.Event.CLOSED, zmq.Event.CONNECT_RETRIED) and not self.fault:
            return "nobody answers: is the proxy running, and is this its host and out port?"
        if event in (zmq.Event.HANDSHAKE_FAILED_NO_DETAIL, zmq.Event.DISCONNECTED):
            if self._encrypted:
                return (
                    f"the handshake fails: is {self._options.curve_server} the public key of this "
                    "proxy, and does it use CURVE on its out port?"
                )
            return (
                "it hangs up at once: is this the out port of a bluesky-0MQ-proxy, and does it use "
                "no CURVE?"
            )
        return ""

    def _try_again(self) -> None:
        """Report a connection that is missing, and make it; not only as often as libzmq does."""
        now = self._now()
        why = self.fault or "nobody answers so far"
        # A reason may be known later than a guess: which one a socket shows first is a race.
        news = not self._told or (self._sure and why != self._told)
        if news and now - self._since >= self._options.patience:
            self._told = why
            log.error("%s: no connection; %s (it is tried on and on)", self._endpoint, why)
        if now - self._tried >= _RETRY:
            self._tried = now
            with contextlib.suppress(zmq.ZMQError):  # it may have forgotten the address
                self._socket.disconnect(self._endpoint)
            self._socket.connect(self._endpoint)
