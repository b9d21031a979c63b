"""Frames that stream_datum documents announce, of scans that step or fly."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.science.frame import Frame

from ..assets.keys import MAX_FRAMES, ImageKey
from ..documents import Document
from .files import Place
from .gaps import Gap
from .images import Images
from .indices import number, span_of
from .known import Known


class StreamDatums:
    """Reads stream_datum documents.

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

    def of(self, doc: Document, arrived: float) -> Iterator[Frame]:
        """Yield the frames of a stream_datum, those of lost ones before it first."""
        descriptor, resource = doc["descriptor"], doc["stream_resource"]
        if not self._known.descriptor(descriptor):
            self._known.orphans.stream_datum(doc)
            return
        start, stop = span_of(doc, "indices")
        # The numbers are 0 where no RunEngine gave them.
        seq_num = number(doc["seq_nums"], "start") or self._series.takes.last + 1
        source = self._choice.source(descriptor)
        if not self._known.resource(resource):
            self._known.orphans.missed("stream_resource", resource)
            if source is not None and source.alone and start < stop:
                yield from self._unknown(source, resource, stop - start, seq_num, arrived)
            return
        note = self._files.resource(resource)
        key = self._choice.key(descriptor, note["data_key"])
        per_event = max(key.per_event if key else 1, _multiplier(note))
        place = Place((resource, ""), start * per_event, stop * per_event)
        if source is None or note["data_key"] != source.key:
            self._files.shelf(place.asset).claim(place.first, place.last)
            if source is None:
                self._choice.saw(descriptor, stop - start)
        elif start < stop:
            yield from self._placed(source, place, per_event, seq_num, arrived)

    def _placed(
        self, source: ImageKey, place: Place, per_event: int, seq_num: int, arrived: float
    ) -> Iterator[Frame]:
        series = self._series
        events = series.takes.missing(seq_num)
        gap = self._known.gaps.before_stream(source, events, per_event, place, seq_num)
        yield from series.missing(source, gap, seq_num - gap.events, per_event, arrived)
        seq_nums = range(seq_num, seq_num + (place.last - place.first) // per_event)
        yield from series.at(source, place, seq_nums, per_event, arrived)

    def _unknown(
        self, source: ImageKey, resource: str, events: int, seq_num: int, arrived: float
    ) -> Iterator[Frame]:
        """Yield the frames of a file that nobody named."""
        series, max_gap = self._series, self._known.options.max_gap
        per_event = series.usual(source)
        if events * per_event > max_gap:
            raise DatasetError(
                f"stream_resource {resource} was missed, and {events} events of it are announced: "
                f"more than max_gap = {max_gap} frames are not believed"
            )
        missing = series.takes.missing(seq_num)
        yield from series.missing(source, Gap(missing), seq_num - missing, per_event, arrived)
        fault = f"stream_resource {resource} was missed: which file has this frame is not known"
        images = Images(events * per_event, fault=fault, elsewhere=True)
        seq_nums = range(seq_num, seq_num + events)
        yield from series.given(source, images, seq_nums, per_event, arrived)
        series.used(per_event)


def _multiplier(resource: Document) -> int:
    """Return the images per event that older ophyd-async puts into its stream_resource."""
    parameters = resource.get("parameters")
    if not isinstance(parameters, Mapping):
        return 1
    value: Any = cast(Document, parameters).get("multiplier")
    return value if isinstance(value, int) and 1 <= value <= MAX_FRAMES else 1
