"""Counts the events of a stream: which one comes next, which are missing, which come again."""

from bisect import bisect_left, insort

_MOST_TAKES = 1000  # a plan that goes back more often is told too low a number of attempts


class Takes:
    """The events of a stream, told by their seq_num; see `Takes.take`.

    A plan that goes back to a checkpoint takes points again: 1 2 3 4 5 4 5 6. Only the last
    seq_num of each stretch is remembered: that says how often a number was there before.

    Attributes
    ----------
    last : int
        seq_num of the last event; 0 before the first.
    events : int
        Events taken, those that came again included.
    retaken : int
        Events that were taken again later, or will be.
    """

    def __init__(self) -> None:
        self.last = 0
        self.events = 0
        self.retaken = 0
        self._ends: list[int] = []  # sorted: where stretches ended that were gone back from

    def missing(self, seq_num: int) -> int:
        """Return how many events are missing before this one."""
        return max(0, seq_num - self.last - 1)

    def take(self, seq_num: int) -> int:
        """Take the next event; return how often its seq_num was taken before."""
        if seq_num <= self.last:
            insort(self._ends, self.last)
            self.retaken += self.last - seq_num + 1
            del self._ends[:-_MOST_TAKES]
        self.last = seq_num
        self.events += 1
        return len(self._ends) - bisect_left(self._ends, seq_num)

    def counted(self, num_events: int) -> int:
        """Return how many events a run has that counts `num_events`; -1 if that cannot be told.

        A run that ends just after it went back counts fewer than were taken, and so do some that
        have no events at all.
        """
        return num_events + self.retaken if num_events >= self.last else -1
