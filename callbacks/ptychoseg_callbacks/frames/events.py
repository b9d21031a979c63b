"""Frames that events bring: as arrays, as lists, or by the name of a datum."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from event_model import unpack_event_page
from event_model.documents import EventPage

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.science.frame import Frame

from ..assets.keys import ImageKey
from ..documents import Document, drop_reason, dropped
from .gaps import Gap
from .images import Images, frames_of, inline_images
from .indices import MALFORMED, number, seconds
from .known import Known


class Events:
    """Reads events and event pages.

    Parameters
    ----------
    known : Known
        What is known of their run.
    """

    def __init__(self, known: Known) -> None:
        self._known = known
        self._choice = known.choice
        self._files = known.files
        self._series = known.series

    def of_page(self, doc: Document, arrived: float) -> Iterator[Frame]:
        """Yield the frames of an event page; a malformed event costs none of the others."""
        wrong: Exception | None = None
        for event in unpack_event_page(cast(EventPage, _with_notes(doc))):
            try:
                yield from self.of(cast(Document, event), arrived)
            except (DatasetError, *MALFORMED) as error:
                wrong = wrong or error
        if wrong is not None:
            raise wrong

    def of(self, doc: Document, arrived: float) -> Iterator[Frame]:
        """Yield the frames of an event, those of lost events before it first."""
        descriptor, data = doc["descriptor"], doc["data"]
        if not self._known.descriptor(descriptor):
            self._known.orphans.event(doc)
            return
        source = self._choice.source(descriptor)
        if source is None:
            self._of_another_stream(doc)
            return
        if source.key not in data:
            if source.streamed or self._files.has_stream_of(source.key):
                return  # the images of a stream_datum have no value in the event
            raise DatasetError(
                f"event {doc.get('seq_num')} of stream {source.stream} has no {source.key}, "
                "which its descriptor announces"
            )
        seq_num, time = number(doc, "seq_num", 1), _time(doc, source, arrived)
        if isinstance(data[source.key], str):
            yield from self._of_datum(source, data[source.key], seq_num, time)
            self._files.claim(_datum_ids(doc))
        else:
            yield from self._inline(source, data[source.key], seq_num, time)

    def _inline(self, source: ImageKey, value: Any, seq_num: int, time: float) -> Iterator[Frame]:
        series, options = self._series, self._known.options
        events = series.takes.missing(seq_num)
        gap = Gap(events)
        yield from series.missing(source, gap, seq_num - events, series.usual(source), time)
        count = frames_of(value, source, options.max_gap)
        images = self._known.supply.skipped(count, series.next)
        if images is None or images.count < count:
            images = inline_images(value, source, options.max_gap, options.max_pixels)
        yield from series.given(source, images, [seq_num], count, time)
        series.used(count)

    def _of_datum(
        self, source: ImageKey, datum_id: str, seq_num: int, time: float
    ) -> Iterator[Frame]:
        series, place, fault = self._series, None, ""
        self._known.resource(self._files.resource_of(datum_id))
        try:
            place = self._files.datum_place(datum_id, source)
        except DatasetError as error:
            fault = f"data key {source.key} of stream {source.stream}: {error}"
        count = place.last - place.first if place else series.usual(source)
        max_gap = self._known.options.max_gap
        jump = place.first - self._files.shelf(place.asset).reached if place else 0
        if not 1 <= count <= max_gap or jump > max_gap:
            raise DatasetError(
                f"datum {datum_id} names {count} frames, {jump} after the last ones: not from 1 to "
                f"max_gap = {max_gap}"
            )
        events = series.takes.missing(seq_num)
        gap = self._known.gaps.before_datum(source, events, count, place, datum_id)
        yield from series.missing(source, gap, seq_num - events, count, time)
        if place is not None:
            yield from series.at(source, place, [seq_num], count, time)
            return
        missed = Images(count, fault=fault, elsewhere=True)
        yield from series.given(source, missed, [seq_num], count, time)
        series.used(count)

    def _of_another_stream(self, doc: Document) -> None:
        """Remember which frames of which files do not belong to the stream that is segmented."""
        shared = self._choice.chosen.key if self._choice.chosen else ""
        for key, value in doc["data"].items():
            if not isinstance(value, str):
                continue
            try:
                place = self._files.datum_place(value, self._choice.key(doc["descriptor"], key))
            except DatasetError:
                continue  # a text, or of a file that is none of ours
            if place.datum is None:
                self._files.shelf(place.asset).claim(place.first, place.last)
            if place.datum is None and shared in ("", key):
                self._choice.saw(doc["descriptor"])
        self._files.claim(_datum_ids(doc))


def _time(doc: Document, source: ImageKey, arrived: float) -> float:
    """Return when the images of an event were taken [s since the epoch]."""
    stamps = doc.get("timestamps")
    event = seconds(doc.get("time"), arrived)
    if not isinstance(stamps, Mapping):
        return event
    return seconds(cast(Document, stamps).get(source.key), event)


def _datum_ids(doc: Document) -> Iterator[str]:
    """Yield the texts in an event, which may be ids of datums."""
    return (value for value in doc["data"].values() if isinstance(value, str))


def _with_notes(page: Document) -> Document:
    """Return an event page in which a column that was dropped whole has one note per event."""
    columns, events = cast(dict[str, Any], page["data"]), len(page["seq_num"])
    data = dict(columns)
    for key, column in columns.items():
        if reason := drop_reason(column):
            data[key] = [dropped(reason, column["shape"][1:])] * events
    return {**page, "data": data}
