"""What is wrong with a Tiled server, or with one run on it: since when, and who was told."""

import logging
import time
from collections.abc import Callable

from ...errors import SourceError
from .address import TiledRefused

log = logging.getLogger(__name__)

_SHORTEST = 0.25  # s
_LONGEST = 8.0  # s


class Trouble:
    """Tells each kind of failure once, until all is well again.

    Parameters
    ----------
    name : str
        What may fail, for the line that it answers again.
    clock : callable
        Seconds that only go forward.

    Attributes
    ----------
    failures : int
        How many attempts failed since the last that succeeded.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.failures = 0
        self._name = name
        self._clock = clock
        self._refused_since = -1.0
        self._told: set[tuple[type[SourceError], bool]] = set()

    def note(self, error: SourceError, what_then: str) -> None:
        """Count a failure, and tell it if it is the first of its kind."""
        self.failures += 1
        if not isinstance(error, TiledRefused):
            self._refused_since = -1.0
        elif self._refused_since < 0:
            self._refused_since = self._clock()
        kind = (type(error), bool(getattr(error, "reached", False)))
        if kind not in self._told:
            self._told.add(kind)
            log.warning("%s; %s", error, what_then)

    def over(self) -> None:
        """Learn that an attempt succeeded."""
        if self._told:
            log.warning("%s answers again", self._name)
        self.forget()

    def forget(self) -> None:
        """Begin anew: what failed was due to something else."""
        self.failures, self._refused_since = 0, -1.0
        self._told.clear()

    @property
    def refused_for(self) -> float:
        """How long nothing but refusals came [s]; below 0 if the last answer was none."""
        return self._clock() - self._refused_since if self._refused_since >= 0 else -1.0

    @property
    def pause(self) -> float:
        """How long to wait before the next attempt [s]; longer after each that failed."""
        return min(_SHORTEST * 2.0 ** min(max(0, self.failures - 1), 10), _LONGEST)
