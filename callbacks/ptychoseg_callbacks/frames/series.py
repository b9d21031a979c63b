"""The frames of a run, one after the other: index, event and attempt of each."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.science.frame import Frame

from ..assets.keys import ImageKey
from .files import Files, Place
from .gaps import Gap
from .images import LABELLED_BEFORE, Images
from .supply import NEVER, Supply
from .takes import Takes


class Series:
    """Gives images their identity.

    Parameters
    ----------
    run : str
        Uid of the raw run.
    supply : Supply
        Fetches images.
    files : Files
        Learns which frames of which file were had.
    max_gap : int
        Most frames that may be missing at once.

    Attributes
    ----------
    next : int
        Index of the next frame.
    takes : Takes
        The events that were taken.
    place : Place, optional
        Where the images of the last event were.
    seq_nums, within : array of int
        Of each frame: the number of its event, and which of the event's frames it is, from 0.
    """

    def __init__(self, run: str, supply: Supply, files: Files, max_gap: int) -> None:
        self._run = run
        self._supply = supply
        self._files = files
        self._max_gap = max_gap
        self._per_event = 0
        self.next = 0
        self.takes = Takes()
        self.place: Place | None = None
        self.seq_nums, self.within = array("q"), array("l")

    def usual(self, source: ImageKey) -> int:
        """Return how many images an event has whose images are not there to be counted."""
        return self._per_event or source.per_event

    def used(self, per_event: int, place: Place | None = None) -> None:
        """Note how many images the last event had, and where they were."""
        self._per_event = per_event
        self.place = place
        if place is not None and place.datum is None:
            self._files.shelf(place.asset).use(place.first, place.last)

    def missing(
        self, source: ImageKey, gap: Gap, seq_num: int, per_event: int, time: float
    ) -> Iterator[Frame]:
        """Yield the frames of events from `seq_num` on that were never received.

        Raises
        ------
        DatasetError
            When there are more of them than can be believed.
        """
        if gap.events * per_event > self._max_gap:
            raise DatasetError(
                f"seq_num jumps from {self.takes.last} by {gap.events + 1}: more than max_gap = "
                f"{self._max_gap} frames cannot be missing"
            )
        rows = self._rows(range(seq_num, seq_num + gap.events), per_event)
        if unplaced := gap.unplaced(per_event):
            why = f"{NEVER}its document was lost on the way, and no file or store has it"
            pieces = self._supply.stored(source, Images(unplaced, fault=why), self.next)
            yield from self._frames(source, pieces, rows, time)
        for place in gap.places:
            pieces = self._supply.at(source, place, self.next, refilled="file")
            yield from self._frames(source, pieces, rows, time)

    def at(
        self, source: ImageKey, place: Place, seq_nums: Iterable[int], per_event: int, time: float
    ) -> Iterator[Frame]:
        """Yield the frames of events whose images are at a place."""
        pieces, before = self._supply.at(source, place, self.next), self.next
        try:
            yield from self._frames(source, pieces, self._rows(seq_nums, per_event), time)
        finally:  # of a document that is refused half way, what was had counts
            self.used(per_event, replace(place, last=place.first + self.next - before))

    def given(
        self, source: ImageKey, images: Images, seq_nums: Iterable[int], per_event: int, time: float
    ) -> Iterator[Frame]:
        """Yield the frames of events whose images are at hand, or may be elsewhere."""
        pieces: Iterable[Images] = [images]
        if images.elsewhere:
            pieces = self._supply.stored(source, images, self.next)
        yield from self._frames(source, pieces, self._rows(seq_nums, per_event), time)

    def _rows(self, seq_nums: Iterable[int], per_event: int) -> Iterator[tuple[int, int]]:
        """Yield seq_num and attempt of each frame; the events are taken as the frames are."""
        for seq_num in seq_nums:
            attempt = self.takes.take(seq_num)
            for within in range(per_event):
                self.seq_nums.append(seq_num)
                self.within.append(within)
                yield seq_num, attempt

    def _frames(
        self,
        source: ImageKey,
        pieces: Iterable[Images],
        rows: Iterator[tuple[int, int]],
        time: float,
    ) -> Iterator[Frame]:
        for images in pieces:
            for n in range(images.count):
                seq_num, attempt = next(rows)
                known = self.next < self._supply.skip_before
                image = None if images.stack is None or known else images.stack[n]
                index, self.next = self.next, self.next + 1
                yield Frame(
                    run=self._run,
                    index=index,
                    image=image,
                    shape=source.shape if image is None else (image.shape[0], image.shape[1]),
                    seq_num=seq_num,
                    stream=source.stream,
                    data_key=source.key,
                    time=time,
                    fault=LABELLED_BEFORE if known else images.fault,
                    origin=images.origin,
                    attempt=attempt,
                    refilled=images.refilled,
                )
