"""Fetches images: from the files that documents name, else from the store of raw runs."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

from numpy.typing import NDArray

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.node.ports import RawStore

from ..assets.keys import ImageKey
from .files import Files, Place
from .images import LABELLED_BEFORE, Images
from .options import FinderOptions

NEVER = "never received; "
_FIRST_PAUSE = 0.01  # [s]


class Supply:
    """Turns places into images, and fills with images of the store what the files do not have.

    Parameters
    ----------
    run : str
        Uid of the raw run.
    options : FinderOptions
        How long to wait, how much to read at once.
    files : Files
        The files of the run.
    raw : RawStore, optional
        Where raw runs are kept; row i of an array there is frame i.
    clock, sleep : callable
        Seconds, and a wait of so many.
    """

    def __init__(
        self,
        run: str,
        options: FinderOptions,
        files: Files,
        raw: RawStore | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._run = run
        self._options = options
        self._files = files
        self._raw = raw
        self._clock = clock
        self._sleep = sleep
        self._patient = True
        self.skip_before = 0

    def skipped(self, count: int, index: int) -> Images | None:
        """Return images that need not be fetched: of frames that were labelled before."""
        known = min(count, self.skip_before - index)
        return Images(known, fault=LABELLED_BEFORE) if known > 0 else None

    def at(
        self,
        source: ImageKey,
        place: Place,
        index: int,
        refilled: Literal["", "file"] = "",
    ) -> Iterator[Images]:
        """Yield the images of a place in blocks, with a fault for those that cannot be had.

        Parameters
        ----------
        source : ImageKey
            What they are.
        place : Place
            Where they are.
        index : int
            Of the first frame.
        refilled : {"", "file"}
            "file": the documents of these frames were never received.

        Raises
        ------
        DatasetError
            When a place goes far beyond what its file holds: the document is malformed.
        """
        first = place.first
        while first < place.last:
            here = replace(place, first=first)
            images = self.skipped(here.last - first, index) or self._block(source, here, index)
            missing = images.stack is None and images.fault != LABELLED_BEFORE
            if missing and here.last - first > self._options.max_gap:
                raise DatasetError(
                    f"frames {first} to {here.last} are announced, and frame {first} is not "
                    f"there ({images.fault}); a document that is wrong by more than max_gap = "
                    f"{self._options.max_gap} frames is refused"
                )
            pieces = [images]
            if missing:
                fault = (NEVER if refilled else "") + images.fault
                pieces = self.stored(source, replace(images, fault=fault), index)
            elif images.stack is not None:
                pieces = [replace(images, refilled=refilled)]
            yield from pieces
            first += images.count
            index += images.count

    def stored(self, source: ImageKey, images: Images, index: int) -> Iterator[Images]:
        """Yield what the store has of images that are missing, and the fault of `images`.

        Parameters
        ----------
        source : ImageKey
            What they are.
        images : Images
            Why they are missing, and how many.
        index : int
            Of the first frame.
        """
        left = images.count
        while left:
            piece = self.skipped(left, index) or self._from_store(source, left, index)
            if piece is None:
                yield replace(images, count=left)
                return
            yield piece
            left -= piece.count
            index += piece.count

    def _block(self, source: ImageKey, place: Place, index: int) -> Images:
        """Return the next images of a place, or why the next of them are not there."""
        first, last = place.first, min(place.last, place.first + self._options.block)
        origin = ""
        try:
            reader = self._files.reader(place.asset, source)
            if place.datum is not None:
                stack = reader.read_datum(place.datum)[first : place.last]
                last = place.last
            else:
                origin = str(reader) if first == index else ""
                stack, last = self._rows(reader.read, first, last)
            if len(stack):
                return Images(len(stack), stack, origin=origin)
            fault = (
                f"{reader} holds only {first} of the {last} frames announced: "
                "its writer stopped or lags; raise read_timeout if it lags"
            )
        except DatasetError as error:
            fault = str(error)
        return Images(last - first, fault=fault, origin=origin)

    @staticmethod
    def _rows(
        read: Callable[[int, int], NDArray[Any]], first: int, last: int
    ) -> tuple[NDArray[Any], int]:
        """Return frames [first, n), or none and the next frame that is there."""
        stack = read(first, last)
        if len(stack):
            return stack, first + len(stack)
        for row in range(first + 1, last):
            if _is_there(read, row):
                # The writer may just have gone on: then this frame is there by now, too.
                return read(first, row), row
        return stack, last

    def _from_store(self, source: ImageKey, count: int, index: int) -> Images | None:
        """Return the next images that the store has; None if it has none of them."""
        if self._raw is None:
            return None
        last = index + min(count, self._options.block)
        until = self._clock() + (self._options.refill_timeout if self._patient else 0.0)
        pause = _FIRST_PAUSE
        while True:
            found = self._raw.read(self._run, source.stream, source.key, index, last)
            if found is not None and self._fits(found):
                self._patient = True
                stack = found[: last - index]
                return Images(len(stack), stack, refilled="tiled")
            left = until - self._clock()
            if left <= 0:
                self._patient = False
                return None
            self._sleep(min(pause, left))
            pause *= 2

    def _fits(self, stack: NDArray[Any]) -> bool:
        return (
            stack.ndim == 3
            and stack.dtype.kind in "biuf"
            and stack.size > 0
            and stack.shape[1] * stack.shape[2] <= self._options.max_pixels
        )


def _is_there(read: Callable[[int, int], NDArray[Any]], row: int) -> bool:
    try:
        return len(read(row, row + 1)) > 0
    except DatasetError:  # one bad file of a sequence is no reason to give up the next one
        return False
