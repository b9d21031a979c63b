"""Finds the images of a run, whatever way its documents carry them, and those that were lost."""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.node.ports import RawStore
from ptychoseg_stream.science.frame import Frame

from ..assets.keys import ImageKey
from ..documents import Document
from .events import Events
from .indices import MALFORMED, number, seconds
from .known import Known
from .options import FinderOptions
from .streams import StreamDatums

__all__ = ["FinderOptions", "FrameFinder"]

log = logging.getLogger(__name__)

_Sight: TypeAlias = Callable[[Document, float], Iterator[Frame]]


class FrameFinder:
    """Turns the documents of one run into frames, in order.

    One (stream, data key) of a run is segmented: the first that matches the options. A frame that
    cannot be read is a `Frame` without image whose `fault` says why: no index is ever skipped.
    Frames whose documents were lost are found by the gap they leave, and had from elsewhere.

    Parameters
    ----------
    start : mapping
        The run's start document.
    options : FinderOptions
        Which images, and how files are read.
    raw : RawStore, optional
        Where raw runs are kept: what was lost on the way may be there.
    handlers : mapping, optional
        Spec of a resource -> class that reads it; default: the installed ones (entry points
        ``databroker.handlers``).

    Attributes
    ----------
    skip_before : int
        Images of frames below this index are neither read nor kept: they were labelled before.
    """

    def __init__(
        self,
        start: Document,
        options: FinderOptions | None = None,
        raw: RawStore | None = None,
        handlers: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self._run: str = start["uid"]
        self._options = options or FinderOptions()
        self._known = Known(start, self._options, raw, handlers)
        events = Events(self._known)
        self._sights: dict[str, _Sight] = {
            "event": events.of,
            "event_page": events.of_page,
            "stream_datum": StreamDatums(self._known).of,
        }
        positions = self._known.positions
        self._places: dict[str, Callable[[Document], None]] = {
            "event": positions.event,
            "event_page": positions.page,
            "stream_datum": positions.stream_datum,
        }

    @property
    def skip_before(self) -> int:
        """Images of frames below this index are neither read nor kept: they were labelled."""
        return self._known.supply.skip_before

    @skip_before.setter
    def skip_before(self, index: int) -> None:
        self._known.supply.skip_before = index

    def of(self, name: str, doc: Document, arrived: float = 0.0) -> Iterator[Frame]:
        """Yield the frames that a document carries or announces; files are read as you iterate.

        Frames that must have come before, and did not, are yielded first.

        Parameters
        ----------
        name, doc
            Any document of this run.
        arrived : float
            The time of frames whose document carries none, as a stream_datum [s since the epoch].

        Raises
        ------
        DatasetError
            When the document is malformed; the next one can be read all the same.
        """
        misplaced = ""
        try:
            if note := self._places.get(name):
                note(doc)
        except (DatasetError, *MALFORMED) as error:
            misplaced = f"run {self._run}: no positions in a {name} document: {error}"
        try:
            if note := self._known.notes.get(name):
                note(doc)
            elif sight := self._sights.get(name):
                yield from sight(doc, arrived)
        except MALFORMED as error:
            raise DatasetError(
                f"run {self._run}: a {name} document is malformed: {type(error).__name__}: {error}"
            ) from error
        if misplaced:  # which costs no frame
            raise DatasetError(misplaced)

    def positions(self) -> NDArray[np.float64]:
        """Return ``(n, 2)`` where the probe was at each frame so far, y and x [m]; NaN: unknown."""
        series = self._known.series
        return self._known.positions.of(series.seq_nums, series.within)

    def finish(self, stop: Document) -> Iterator[Frame]:
        """Yield frames that the raw run counts and that never came: had from elsewhere, or lost.

        Parameters
        ----------
        stop : mapping
            The run's stop document.
        """
        series, source = self._known.series, self._chosen(stop)
        if source is None:
            return
        events = self._num_events(stop) - series.takes.last
        if events <= 0:
            return
        per_event = series.usual(source)
        if events * per_event > self._options.max_gap:
            log.error(
                "run %s: its stop document counts %d events more than came, which is more than "
                "max_gap = %d frames: they have no rows",
                self._run,
                events,
                self._options.max_gap,
            )
            return
        gap = self._known.gaps.at_end(source, events, per_event, series.place, stop)
        time = seconds(stop.get("time"), 0.0)
        yield from series.missing(source, gap, series.takes.last + 1, per_event, time)

    def announced(self, stop: Document) -> int:
        """Return how many frames the raw run counts, retaken ones included; -1 if unknown.

        Parameters
        ----------
        stop : mapping
            The run's stop document.
        """
        series, chosen = self._known.series, self._known.choice.chosen
        if chosen is None:
            return -1 if self._known.orphans.images else 0
        counted = self._num_events(stop)
        events = series.takes.counted(counted) if counted >= 0 else -1
        if events < 0:
            return -1
        return series.next + (events - series.takes.events) * series.usual(chosen)

    def close(self) -> None:
        """Give all files back."""
        self._known.choice.tell()
        self._known.files.close()

    def _num_events(self, stop: Document) -> int:
        """Return how many events the stream that is segmented has; -1 if nobody says."""
        counts, chosen = stop.get("num_events"), self._known.choice.chosen
        if chosen is None or not isinstance(counts, Mapping) or chosen.stream not in counts:
            return -1
        try:
            return number(cast(Document, counts), chosen.stream)
        except DatasetError:
            return -1

    def _chosen(self, stop: Document) -> ImageKey | None:
        """Return what is segmented; what a missed descriptor described, if none came."""
        choice, orphans = self._known.choice, self._known.orphans
        counts = stop.get("num_events")
        if choice.chosen is not None or not isinstance(counts, Mapping):
            return choice.chosen
        numbers = cast(Document, counts)
        wanted = self._options.streams or tuple(numbers)
        missed = [name for name in wanted if numbers.get(name) and not choice.described(name)]
        if missed:
            orphans.fetch(missed[0], self._known.note_missed)
            if choice.chosen is None and orphans.images:
                choice.chosen = orphans.source(missed[0])
        return choice.chosen
