"""One run that is read from Tiled, in turns: a run in trouble must not keep others waiting."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

from ptychoseg_callbacks.source import Callback

from ...errors import SourceError
from ...node.guard import Guard
from .address import TiledRefused
from .documents import Named, RunDocuments
from .trouble import Trouble


class Reading:
    """Delivers a run bit by bit; what is wrong with it stays here.

    Parameters
    ----------
    run : RunDocuments
        The run.
    guard : Guard
        For what no server should send.
    clock : callable
        Seconds that only go forward.

    Attributes
    ----------
    trouble : Trouble
        What is wrong with it now.
    error : SourceError or None
        Why the last turn ended early.
    """

    def __init__(
        self, run: RunDocuments, guard: Guard, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.run = run
        self.name = f"run {run.run.path[-1]}"
        self.trouble = Trouble(self.name, clock)
        self.error: SourceError | None = None
        self._guard = guard
        self._clock = clock
        self._left: Iterator[Named] | None = None  # of a turn that was over before its documents

    @property
    def behind(self) -> bool:
        """Whether there is more that can be had at once."""
        return self._left is not None or self.run.behind

    @property
    def hopeless(self) -> bool:
        """Whether Tiled has refused it for so long that this is believed."""
        return self.trouble.refused_for >= self.run.wanted.read_wait

    def take(
        self,
        callback: Callback,
        stopping: threading.Event,
        seconds: float = math.inf,
        final: bool = False,
    ) -> int:
        """Deliver what is new; return how many documents. `error` says why there are not more.

        Parameters
        ----------
        callback : callable
            Takes them.
        stopping : threading.Event
            Ends it early.
        seconds : float
            How long a turn is; it goes on where it was with the next one.
        final : bool
            Whether nobody writes to this run any more, see `RunDocuments.advance`.
        """
        before = self.run.delivered
        step = partial(self._take, callback, stopping, self._clock() + seconds, final)
        odd = TiledRefused(f"{self.name}: Tiled sent what is no run")
        self.error = self._guard.call(f"read {self.name}", step, odd)
        return self.run.delivered - before

    def give_up(self, callback: Callback, reason: str) -> None:
        """Deliver the end of a run that cannot be read."""
        self._left = None
        for name, doc in self.run.abandon(reason):
            callback(name, doc)

    def _take(
        self, callback: Callback, stopping: threading.Event, end: float, final: bool
    ) -> SourceError | None:
        turn, self._left = self._left or self.run.advance(final), None
        try:
            for name, doc in turn:
                callback(name, doc)
                if stopping.is_set() or self._clock() >= end:
                    self._left = turn
                    break
        except SourceError as error:
            return error
        return None
