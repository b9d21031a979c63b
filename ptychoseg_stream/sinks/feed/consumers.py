"""Who asks for what: a consumer gets what it asked for, and no more before it asks again.

::

    consumer   {"version": 1, "want": RUN or "", "next": SEQ, "credit": N}
    node       granted  {"run", "derived", "next", "last"}: messages [next, last) come, as there are
               waiting  {}: no such run is open yet; it is told when one is
               gone     {"run", "reason", "tiled"}: there will be no more here, but in Tiled
               refused  {"reason"}: that was no request

To ask for message `next` is to say that those before it came. What a consumer does not take waits
on disk, not in memory.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zmq

from ...errors import FeedError
from .log import RunLog
from .sockets import HIGH_WATER
from .wire import VERSION, pack, read_json

log = logging.getLogger(__name__)

_WINDOW = 32 << 20  # bytes that may be on their way to a consumer
_MOST = 256  # consumers
_MOMENT = 10.0  # s
_SILENT = 120.0  # s; who asked for nothing for so long is forgotten

Find = Callable[[str], RunLog | None]
"""Uid, or "" for the run that is open -> its log."""


@dataclass(slots=True)
class _Consumer:
    want: str
    run: RunLog | None = None
    next: int = 0
    last: int = 0
    credit: int = 0
    heard: float = 0.0
    told: bool = False  # that there is no more


class Consumers:
    """Answers requests, and sends messages as there are; used by one thread.

    Parameters
    ----------
    router : zmq.Socket
        A ROUTER.
    find : callable
        Finds the log of a run.
    monotonic : callable
        Seconds of a clock that never jumps.
    """

    def __init__(
        self, router: "zmq.Socket[bytes]", find: Find, monotonic: Callable[[], float]
    ) -> None:
        self._router = router
        self._find = find
        self._now = monotonic
        self._known: dict[bytes, _Consumer] = {}
        self._told_bad = False

    @property
    def used(self) -> list[RunLog]:
        """Logs that somebody reads."""
        return [each.run for each in self._known.values() if each.run is not None]

    @property
    def behind(self) -> bool:
        """Whether something is there for somebody who has not got it, and asked a moment ago."""
        return any(
            each.run is not None
            and each.next < len(each.run)
            and self._now() - each.heard < _MOMENT
            for each in self._known.values()
        )

    def receive(self) -> list[list[bytes]]:
        """Return the requests there are, for `answer`."""
        requests: list[list[bytes]] = []
        while len(requests) < _MOST and self._router.poll(0):
            requests.append(self._router.recv_multipart())
        return requests

    def answer(self, requests: Sequence[list[bytes]]) -> None:
        """Answer requests."""
        for identity, *parts in requests:
            try:
                self._take(identity, parts)
            except FeedError as error:
                self._refuse(identity, str(error))

    def serve(self) -> bool:
        """Send what was asked for and is there; return whether somebody's socket is full."""
        full = False
        for identity, consumer in list(self._known.items()):
            if self._now() - consumer.heard > _SILENT:
                del self._known[identity]
            elif consumer.run is None:
                self._begin(identity, consumer)
            full |= not self._send_to(identity, consumer)
        return full

    def _take(self, identity: bytes, parts: list[bytes]) -> None:
        want, following, credit = _request(parts)
        consumer = self._known.pop(identity, None)
        if consumer is None or not _goes_on(consumer, want, following):
            consumer = _Consumer(want, None, following)
        consumer.want, consumer.credit, consumer.heard = want, credit, self._now()
        consumer.next = max(consumer.next, following)  # what is on its way comes only once
        consumer.told = False
        while len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[identity] = consumer
        if consumer.run is None:
            self._begin(identity, consumer, told=False)
        else:
            self._grant(identity, consumer, consumer.run, following)

    def _begin(self, identity: bytes, consumer: _Consumer, told: bool = True) -> None:
        """Find the run that a consumer wants."""
        consumer.run = self._find(consumer.want)
        if consumer.run is not None:
            self._grant(identity, consumer, consumer.run, consumer.next)
        elif consumer.want:
            self._tell(identity, "gone", {"run": consumer.want, "reason": _UNKNOWN, "tiled": ""})
            self._known.pop(identity, None)
        elif not told:
            self._tell(identity, "waiting", {})

    def _grant(self, identity: bytes, consumer: _Consumer, run: RunLog, following: int) -> None:
        most = max(1, min(consumer.credit, HIGH_WATER, _WINDOW // run.largest))
        consumer.last = following + most
        about = {"run": run.run, "derived": run.derived, "next": following, "last": consumer.last}
        self._tell(identity, "granted", about)

    def _send_to(self, identity: bytes, consumer: _Consumer) -> bool:
        """Send to one consumer; return False if its socket is full."""
        run = consumer.run
        while run is not None and consumer.next < min(consumer.last, len(run)):
            try:
                parts = run.read(consumer.next)
            except (OSError, FeedError) as error:
                run.gone = f"what the feed keeps of this run cannot be read ({error})"
                log.error("%s: %s", run.path, run.gone)
                break
            try:
                self._router.send_multipart([identity, *parts], zmq.NOBLOCK)
            except zmq.Again:
                return False
            except zmq.ZMQError:  # it hung up
                self._known.pop(identity, None)
                return True
            consumer.next += 1
        if run is not None and run.gone and consumer.next >= len(run) and not consumer.told:
            about = {"run": run.run, "reason": run.gone, "tiled": run.tiled}
            consumer.told = self._tell(identity, "gone", about)
        return True

    def _refuse(self, identity: bytes, why: str) -> None:
        if not self._told_bad:
            self._told_bad = True
            log.warning("the feed was asked for what it does not understand: %s", why)
        self._tell(identity, "refused", {"reason": why})

    def _tell(self, identity: bytes, kind: str, header: Mapping[str, Any]) -> bool:
        try:
            self._router.send_multipart([identity, *pack(kind, header)], zmq.NOBLOCK)
        except zmq.ZMQError:  # it hung up, or has no room: it will ask again
            return False
        return True


_UNKNOWN = "the feed keeps no such run: its uid is wrong, it is too old, or another node has it"


def _goes_on(consumer: _Consumer, want: str, following: int) -> bool:
    """Whether a request is about the run that the consumer has had messages of."""
    run = consumer.run
    if run is None or want:
        return want == consumer.want or (run is not None and want in (run.run, run.derived))
    return not (run.ended and following == 0)  # else it asks for the next run


def _request(parts: list[bytes]) -> tuple[str, int, int]:
    """Return what is wanted, from which message on, and how many.

    Raises
    ------
    FeedError
        If that is no request.
    """
    request = read_json(parts[0]) if len(parts) == 1 else {}
    if request.get("version") != VERSION:
        raise FeedError(f"a request has one part, JSON, with version {VERSION}")
    want = request.get("want")
    if not isinstance(want, str):
        raise FeedError("a request names the run that it wants, a text")
    return want, _whole(request, "next", 0, 1 << 62), _whole(request, "credit", 1, 1 << 31)


def _whole(request: Mapping[str, Any], name: str, least: int, limit: int) -> int:
    value = request.get(name)
    if type(value) is not int or not least <= value < limit:
        raise FeedError(f"a request has {name}, a whole number from {least} on")
    return value
