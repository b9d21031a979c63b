"""Where the images of events are that were never received."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from ptychoseg_stream.errors import DatasetError

from ..assets.keys import ImageKey
from ..documents import Document
from .choice import Choice
from .files import Files, Place
from .orphans import Orphans
from .shelves import size


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that are missing, one after the other.

    Parameters
    ----------
    events : int
        How many.
    places : sequence of Place
        Where the images of the last of them are; those of the first are in no known file.
    """

    events: int
    places: Sequence[Place] = ()

    def unplaced(self, per_event: int) -> int:
        """Return how many images are in no known file."""
        return self.events * per_event - sum(place.last - place.first for place in self.places)


class Gaps:
    """Finds the frames of a file that belong to lost documents, and to no other stream.

    A frame of the wrong stream would be worse than none: where it cannot be told which frames of a
    file were meant, none is named.

    Parameters
    ----------
    choice : Choice
        Which streams there are.
    files : Files
        Which frames are whose.
    orphans : Orphans
        Whether there are streams that nobody knows.
    max_gap : int
        Most frames that may be missing at once.
    """

    def __init__(self, choice: Choice, files: Files, orphans: Orphans, max_gap: int) -> None:
        self._choice = choice
        self._files = files
        self._orphans = orphans
        self._max_gap = max_gap

    def before_datum(
        self, source: ImageKey, events: int, per_event: int, place: Place | None, datum_id: str
    ) -> Gap:
        """Return the gap of `events` before an event whose images are at `place`.

        Frames that no event names are nothing strange here: a point that was triggered and given
        up leaves one.
        """
        if not events or place is None:
            return Gap(events)
        if place.datum is None:
            free = self._files.shelf(place.asset).before(place.first)
            # All that was lost is free. If there is as much as was lost, it is what was lost.
            if size(free) == events * per_event:
                return Gap(events, [replace(place, first=first, last=last) for first, last in free])
        return Gap(
            events, self._of_datums(self._files.unclaimed(datum_id), source, events, per_event)
        )

    def before_stream(
        self, source: ImageKey, events: int, per_event: int, place: Place, seq_num: int
    ) -> Gap:
        """Return the gap before a stream_datum: of `events`, or more if indices are missing."""
        shelf = self._files.shelf(place.asset)
        free = shelf.before(place.first)
        indices = size(free) // per_event
        if size(free) > self._max_gap:
            raise DatasetError(
                f"indices jump to frame {place.first}: more than max_gap = {self._max_gap} frames "
                "cannot be missing"
            )
        only = self._only_stream(source)
        if only and shelf.used:
            # Each index was announced once: points that were taken again are missing, too.
            events = max(events, min(indices, seq_num - 1))
        if not only and indices != events:
            return Gap(events)
        found = _last(free, min(indices, events) * per_event)
        return Gap(events, [replace(place, first=first, last=last) for first, last in found])

    def at_end(
        self, source: ImageKey, events: int, per_event: int, last: Place | None, stop: Document
    ) -> Gap:
        """Return the gap after the last event, whose images were at `last`."""
        others = self._choice.sharing(source.key) - {source.stream}
        counts = cast(Mapping[str, Any], stop["num_events"])
        # Whatever another stream has after our last frame must be known, not to be taken for ours.
        unknown = any(not self._choice.described(name) for name in counts)
        if last is None or unknown or any(self._choice.events[s] != counts.get(s) for s in others):
            return Gap(events)
        left = self._files.left_over(last.asset[0])
        received = self._of_datums(left, source, events, per_event)
        if received or last.datum is not None:
            return Gap(events, received)
        free = self._files.shelf(last.asset).after(events * per_event)
        return Gap(events, [replace(last, first=first, last=end) for first, end in free])

    def _only_stream(self, source: ImageKey) -> bool:
        """Return whether no other stream is known to have images under the same key."""
        return not self._orphans.images and len(self._choice.sharing(source.key)) == 1

    def _of_datums(
        self, datum_ids: Sequence[str], source: ImageKey, events: int, per_event: int
    ) -> list[Place]:
        """Return the places of datums whose events were lost, if there is one for each."""
        if len(datum_ids) != events or not self._only_stream(source):
            return []
        try:
            places = [self._files.datum_place(datum_id, source) for datum_id in datum_ids]
        except DatasetError:
            return []
        alike = all(place.last - place.first == per_event for place in places)
        return places if alike else []


def _last(ranges: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """Return the last `count` points of ranges."""
    found: list[tuple[int, int]] = []
    for first, stop in reversed(ranges):
        if count <= 0:
            break
        found.insert(0, (max(first, stop - count), stop))
        count -= stop - first
    return found
