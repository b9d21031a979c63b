"""The thread that brings runs to Tiled: whose turn it is, and how long to wait after a failure."""

import logging
import time
from functools import partial

from ..errors import StoreError
from ..node.guard import Guard
from .connection import Refusal, Unavailable
from .courier import Courier
from .options import TiledOptions
from .route import Desk, Route

logger = logging.getLogger("ptychoseg_stream.sinks")

_GIVES_WAY = 8  # turns that others get before a run without rows that wait


class Uploader:
    """Attends to one run after the other.

    Parameters
    ----------
    desk : Desk
        Where runs come from.
    courier : Courier
        Does the work.
    options : TiledOptions
        Pauses.
    secret : str
        API key, which must not appear in any message.
    """

    def __init__(
        self, desk: Desk, courier: Courier, options: TiledOptions, secret: str = ""
    ) -> None:
        self._desk = desk
        self._courier = courier
        self._options = options
        self._secret = secret
        self._pause = 0.0
        self._not_before = 0.0
        self._turn = 0
        self._guard = Guard(logger)

    def run(self) -> None:
        """Work until the sink is in a hurry to end."""
        desk = self._desk
        while True:
            with desk.change:
                if desk.hurry:
                    return
                route = self._next(time.monotonic())
                if route is None:
                    desk.change.wait(self._wait(time.monotonic()))
                    continue
            self.attend(route)

    def attend(self, route: Route) -> str:
        """Do the next thing for a run; return why that failed, empty if it did not."""
        self._turn += 1
        route.turn = self._turn
        failures = self._guard.failures
        error = self._guard.call("bring masks to Tiled", partial(self._advance, route), None)
        if self._guard.failures > failures:
            error = Refusal(f"{self._guard.last}: this is a fault of the node, please report it")
        if error is not None:
            return self._failed(route, error)
        self._worked()
        return ""

    def _advance(self, route: Route) -> StoreError | None:
        try:
            self._courier.advance(route)
        except StoreError as error:
            return error
        return None

    def renew(self) -> None:
        """Have everything offered to Tiled again, now."""
        with self._desk.change:
            self._not_before = 0.0
            for route in self._desk.routes:
                route.not_before = 0.0
            self._desk.change.notify_all()

    def _next(self, now: float) -> Route | None:
        if now < self._not_before:
            return None
        ready = [route for route in self._desk.routes if route.work and route.next_try <= now]
        return min(ready, key=self._rank, default=None)

    def _rank(self, route: Route) -> tuple[bool, bool, int]:
        """What is in memory only comes first, then rows before products, and then in turn."""
        # Products take many requests; only for so long, or a busy run would keep another open.
        waits = route.begun and not route.queue and self._turn - route.turn < _GIVES_WAY
        return not route.in_memory, waits, route.turn

    def _wait(self, now: float) -> float | None:
        if now < self._not_before:
            return self._not_before - now
        waits = [route.next_try - now for route in self._desk.routes if route.work]
        return max(0.0, min(waits)) if waits else None

    def _worked(self) -> None:
        desk = self._desk
        self._pause = 0.0
        with desk.change:
            desk.down = False
            for route in desk.routes:
                if route.idle and route.spooling and route.not_before <= time.monotonic():
                    route.spooling = False  # it has caught up
            desk.change.notify_all()

    def _failed(self, route: Route, error: StoreError) -> str:
        desk, options = self._desk, self._options
        why = str(error)
        if len(self._secret) >= 8:
            why = why.replace(self._secret, "***")
        self._courier.forget(route)
        now = time.monotonic()
        with desk.change:
            desk.fault = why
            desk.down = isinstance(error, Unavailable)
            if desk.down:
                self._pause = min(options.retry_longest, max(options.retry_wait, 2 * self._pause))
                self._not_before = now + self._pause
                for other in desk.routes:
                    if not other.ended and not other.spooling:
                        desk.divert(other, why)
            else:
                route.not_before = now + options.refused_wait
            desk.divert(route, why)
        return why
