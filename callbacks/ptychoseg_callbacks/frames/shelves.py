"""Which frames of a file belong to the stream that is segmented, and which were never announced."""

_MOST_CLAIMS = 1000


class Shelf:
    """The points of one file (or sequence of files), one after the other as they were taken.

    One file may serve several streams, as dark and primary: their points are mixed.

    Attributes
    ----------
    used : bool
        Whether the stream that is segmented has a point here.
    reached : int
        One past the last point of the stream that is segmented.
    """

    def __init__(self) -> None:
        self.used = False
        self.reached = 0
        self._claims: list[tuple[int, int]] = []  # points of other streams, in order of arrival

    def use(self, start: int, stop: int) -> None:
        """Note that points [start, stop) belong to the stream that is segmented."""
        self.used = True
        self.reached = stop
        self._claims = [claim for claim in self._claims if claim[1] > stop]

    def claim(self, start: int, stop: int) -> None:
        """Note that points [start, stop) belong to another stream."""
        if self._claims and self._claims[-1][1] == start:
            start, _ = self._claims.pop()
        self._claims.append((start, stop))
        del self._claims[:-_MOST_CLAIMS]

    def before(self, start: int) -> list[tuple[int, int]]:
        """Return the points from `reached` to `start` that no other stream has, as ranges."""
        free: list[tuple[int, int]] = []
        first = self.reached
        for begin, end in sorted(self._claims):
            if first < min(begin, start):
                free.append((first, min(begin, start)))
            first = max(first, end)
        if first < start:
            free.append((first, start))
        return free

    def after(self, count: int) -> list[tuple[int, int]]:
        """Return the first `count` points from `reached` on that no other stream has."""
        last = max([self.reached, *(end for _, end in self._claims)])
        ranges: list[tuple[int, int]] = []
        for first, end in self.before(last + count):
            ranges.append((first, min(end, first + count)))
            count -= ranges[-1][1] - first
            if count == 0:
                break
        return ranges


def size(ranges: list[tuple[int, int]]) -> int:
    """Return how many points ranges hold."""
    return sum(stop - first for first, stop in ranges)
