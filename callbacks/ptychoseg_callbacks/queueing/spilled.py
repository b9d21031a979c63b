"""Places of documents that wait on disk."""

from array import array

from ..journals.journal import Journal

_MOST = 1024  # stretches in one object: what was read of it is given back with it


class Spilled:
    """Documents on disk in the order of arrival; their numbers follow each other, or are 0.

    Those that follow each other in one journal are one stretch; a stretch takes 14 bytes.

    Parameters
    ----------
    number : int
        Of the first document.

    Attributes
    ----------
    number : int
        Of the next one to be read.
    count : int
        Documents that are still to be read.
    images : int
        How many of them carry images, about: until the end, those that were lost count.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.count = self.images = 0
        self._journals: list[Journal] = []
        self._which, self._offsets, self._counts = array("H"), array("Q"), array("I")
        self._end = 0  # of the last document in its journal
        self._first = 0  # stretch that is being read
        self._offset = 0  # where, in its journal

    def add(self, journal: Journal, offset: int, end: int, number: int) -> bool:
        """Take one more document, at [offset, end) of a journal; False if it does not fit here."""
        if number != (self.number + self.count if self.number else 0):
            return False
        last = self._journals[self._which[-1]] if self._which else None
        if journal is last and offset == self._end:
            self._counts[-1] += 1
        elif len(self._which) < _MOST:
            self._begin(journal, offset)
        else:
            return False
        self._end = end
        self.count += 1
        return True

    def next(self) -> tuple[Journal, int]:
        """Return the journal of the next document, and its place there."""
        return self._journals[self._which[self._first]], self._offset

    def advance(self, after: int) -> None:
        """Go to the next document; `after` is where the journal goes on."""
        self._offset = after
        self._drop(1)

    def skip(self) -> int:
        """Go to the next stretch; return how many documents are left out."""
        left_out = self._counts[self._first]
        self._drop(left_out)
        return left_out

    def _begin(self, journal: Journal, offset: int) -> None:
        if journal not in self._journals:
            self._journals.append(journal)
        self._which.append(self._journals.index(journal))
        self._offsets.append(offset)
        self._counts.append(1)
        if len(self._which) == 1:
            self._offset = offset

    def _drop(self, documents: int) -> None:
        self.count -= documents
        self.number += documents if self.number else 0
        self._counts[self._first] -= documents
        if not self._counts[self._first] and self.count:
            self._first += 1
            self._offset = self._offsets[self._first]
