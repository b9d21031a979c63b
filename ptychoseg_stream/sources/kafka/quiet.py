"""One line of a kind now and then: librdkafka says the same many times a second."""

import re
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

_EVERY = 300.0  # s
_MOST_KINDS = 100


@dataclass(slots=True)
class _Kind:
    """When a line was let through, and how many were not since then."""

    told: float
    kept_back: int = 0


class Quiet:
    """Lets through the first line of each kind, and one more after a while; for any thread.

    Parameters
    ----------
    every : float
        From one line of a kind to the next [s].
    monotonic : callable
        Seconds of a clock that never jumps.
    """

    def __init__(
        self, every: float = _EVERY, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._every = every
        self._now = monotonic
        self._kinds: dict[Hashable, _Kind] = {}
        self._guard = threading.Lock()

    def passes(self, level: int, text: str) -> int:
        """Return how many lines of this kind were kept back since the last; -1: keep this one back.

        Parameters
        ----------
        level : int
            As of `logging`; lines of different levels are of different kinds.
        text : str
            The line; numbers in it, and what stands in parentheses, make no other kind of it.
        """
        name = level, re.sub(r"\([^()]*\)|\d+", "", text)
        now = self._now()
        with self._guard:
            kind = self._kinds.get(name)
            if kind is not None and now < kind.told + self._every:
                kind.kept_back += 1
                return -1
            count = 0 if kind is None else kind.kept_back
            self._kinds.pop(name, None)
            self._kinds[name] = _Kind(now)  # at the end: the oldest one goes first
            if len(self._kinds) > _MOST_KINDS:
                del self._kinds[next(iter(self._kinds))]
        return count
