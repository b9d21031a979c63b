"""Documents from a RunEngine elsewhere: bluesky's Publisher, a proxy, and this end.

Its RemoteDispatcher is not used: it unpickles unless told otherwise, prints whole messages that it
cannot read, connects only once its event loop runs, and says nothing when keys do not fit.
"""

import logging
import threading
import time
from collections.abc import Callable

from ptychoseg_callbacks.source import Callback

from ..messages import Messages
from .curve import load_keys
from .link import Link
from .options import ZmqOptions, endpoint_of

log = logging.getLogger(__name__)

_ADVICE = (
    "have the RunEngine send msgpack: Publisher(ADDRESS, serializer=encode) with "
    "`from ptychoseg_callbacks.documents import encode`"
)


class ZmqDocuments:
    """Feeds what a bluesky-0MQ-proxy publishes; a `ptychoseg_callbacks.source.Source`.

    0MQ keeps nothing: what is published while nobody listens, or faster than it is taken, is gone.
    The frame finder behind notices the gap.

    Parameters
    ----------
    url : str
        ``zmq://HOST:PORT`` of the proxy's out port; ``tcp://`` and ``ipc://`` are taken as well.
    options : ZmqOptions
        Keys, limits, prefix.
    monotonic : callable
        Seconds of a clock that never jumps.

    Attributes
    ----------
    received : int
        Documents handed on.

    Raises
    ------
    SourceError
        For an address or a key file that cannot be used.
    """

    def __init__(
        self,
        url: str,
        options: ZmqOptions | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.received = 0
        self._endpoint = endpoint_of(url)
        self._options = options or ZmqOptions()
        secret, server = self._options.curve_secret, self._options.curve_server
        self._keys = load_keys(secret, server) if secret else None
        self._now = monotonic
        self._link: Link | None = None
        self._messages = Messages(self._endpoint, _ADVICE, log)

    @property
    def redelivers(self) -> bool:
        """No: nothing comes twice."""
        return False

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the proxy."""
        return self._link is not None and self._link.connected

    @property
    def unreadable(self) -> int:
        """Messages that were left out."""
        return self._messages.unreadable

    def run(self, callback: Callback, stopping: threading.Event) -> None:
        """Feed documents until `stopping` is set; a connection that breaks is made again."""
        with self._open() as self._link:
            while not stopping.is_set():
                message = self._link.receive()
                document = None if message is None else self._messages.read_named(message)
                if document is not None:
                    self.received += 1
                    callback(*document)
        log.info(
            "%s: %d documents received, %d messages left out, %d connections lost",
            self._endpoint,
            self.received,
            self.unreadable,
            self._link.breaks,
        )

    def stored(self, number: int) -> None:
        """Nothing to do: 0MQ keeps no documents that could be given up now."""

    def probe(self, timeout: float) -> str:
        """Return why there is no connection after `timeout` [s]; empty if there is one.

        Nothing is fed.
        """
        end = self._now() + timeout
        with self._open() as link:
            while not link.connected and self._now() < end:
                link.receive()
            return "" if link.connected else link.fault or "nobody answers"

    def _open(self) -> Link:
        return Link(self._endpoint, self._options, self._keys, self._now)
