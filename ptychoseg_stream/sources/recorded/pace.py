"""When a document of a replay is due: at once, at a given rate, or as it was recorded."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from ptychoseg_callbacks.documents import Document

from ...errors import SourceError
from .document_files import Named
from .frame_count import FrameCounter

Wait: TypeAlias = Callable[[threading.Event, float], bool]
"""Waits for so many seconds, or until the event is set; returns whether it is."""

_MOST_HELD = 1 << 15  # small documents without a time, between two that have one
_TIMED = frozenset({"start", "descriptor", "event", "event_page", "stop"})


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast documents come.

    Parameters
    ----------
    rate : float
        Frames per second; 0 for no limit.
    recorded : bool
        At the intervals of the times in the documents.
    longest : float
        No recorded interval is made longer than this [s]: such times are not believed, or it was a
        pause that nobody wants to wait for again. Of a fly scan that is an interval between frames.
    """

    rate: float = 0.0
    recorded: bool = False
    longest: float = 3600.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not 0 <= self.rate < math.inf:
            raise ValueError(f"rate: {self.rate} must be 0 (no limit) or more frames per second")
        if not 0 < self.longest < math.inf:
            raise ValueError(f"longest: {self.longest} must be more than 0 seconds")

    @classmethod
    def parse(cls, text: str) -> "Pace":
        """Return what ``--pace`` means: nothing, ``recorded``, or frames per second.

        Raises
        ------
        SourceError
            It means none of these.
        """
        if text in ("", "recorded"):
            return cls(recorded=bool(text))
        try:
            pace = cls(rate=float(text))
        except ValueError:
            pace = cls()
        if not pace.rate:
            raise SourceError(
                f"pace {text!r} is not understood: give frames per second, such as 10, or "
                "'recorded'; leave it out for full speed"
            )
        return pace


class Pacer:
    """Lets documents through when they are due, and never faster.

    A callback that takes longer than an interval delays what comes after it; nothing is hurried to
    catch up.

    Parameters
    ----------
    pace : Pace
        How fast.
    counter : FrameCounter
        Knows what is a frame; nobody else may use it.
    clock : callable
        Seconds of a clock that never jumps.
    wait : callable
        Waits, unless told to stop.
    """

    def __init__(
        self,
        pace: Pace,
        counter: FrameCounter,
        clock: Callable[[], float] = time.monotonic,
        wait: Wait = threading.Event.wait,
    ) -> None:
        self._pace = pace
        self._counter = counter
        self._clock = clock
        self._wait = wait
        self._due = -math.inf

    def of(self, documents: Iterable[Named], stopping: threading.Event) -> Iterator[Named]:
        """Yield documents in order, each when it is due; ends as soon as `stopping` is set."""
        for gap, name, doc in self._gaps(documents):
            now = self._clock()
            self._due = max(self._due + gap, now) if math.isfinite(self._due) else now + gap
            if self._due > now:
                self._wait(stopping, self._due - now)
            if stopping.is_set():
                return
            yield name, doc

    def _gaps(self, documents: Iterable[Named]) -> Iterator[tuple[float, str, Document]]:
        """Yield how long after the one before it each document is due [s]."""
        if self._pace.recorded:
            yield from self._recorded(documents)
            return
        for name, doc in documents:
            rate = self._pace.rate
            yield (self._counter.of(name, doc) / rate if rate else 0.0), name, doc

    def _recorded(self, documents: Iterable[Named]) -> Iterator[tuple[float, str, Document]]:
        """Give a time to those without: that of their event, or evenly up to the next that has one.

        The frames of a fly scan are announced without times; so they come evenly spread over it.
        """
        last, held, open_runs = -math.inf, list[Named](), 0
        for name, doc in documents:
            taken = time_of(name, doc)
            if math.isnan(taken) and name in _TIMED:  # it should say, and may hold images
                taken = last
            if math.isnan(taken):
                held.append((name, doc))
                if len(held) >= _MOST_HELD:
                    yield from self._spread(held, 0.0, at_once=True)
                    held = []
                continue
            if name == "start" and not open_runs:
                last = taken  # nobody waits from one run to the next
            open_runs = max(0, open_runs + (name == "start") - (name == "stop"))
            gap = max(0.0, taken - last) if math.isfinite(last) else 0.0
            if held:
                yield from self._spread(held, gap, at_once=name in ("event", "event_page"))
                held, gap = [], 0.0
            gap = min(gap, self._pace.longest)
            last = max(last, taken)
            yield gap, name, doc
            self._counter.of(name, doc)
        yield from self._spread(held, 0.0, at_once=True)

    def _spread(
        self, held: list[Named], gap: float, at_once: bool
    ) -> Iterator[tuple[float, str, Document]]:
        frames = [self._counter.of(name, doc) for name, doc in held]
        total = sum(frames)
        longest = self._pace.longest
        for n, (name, doc) in enumerate(held):
            if at_once or not total:
                yield (0.0 if n else min(gap, longest)), name, doc
            else:
                yield min(gap / total, longest) * frames[n], name, doc


def time_of(name: str, doc: Document) -> float:
    """Return when a document was made [s since the epoch]; NaN if it does not say.

    Of a page that is the time of its last event.
    """
    if name not in _TIMED:
        return math.nan
    taken = doc.get("time")
    if isinstance(taken, list):
        taken = taken[-1] if taken else None
    try:
        number = float(taken) if isinstance(taken, int | float) else math.nan
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan
