"""Which run is to blame if this process dies."""

from ..journals.journal import Journal
from ..loop import Received


class Suspect:
    """The run whose document, left by an earlier process, is worked on; used by who takes.

    Its journal says so on disk, until the process has lived through what it did with the run.
    """

    def __init__(self) -> None:
        self._journal: Journal | None = None
        self._idle = False

    def taken(self, received: Received) -> None:
        """Blame the run that is gone on with, until another one is worked on."""
        replayed = received.journal if received.number == 0 else None
        if replayed is not None:
            replayed.attempt()  # first: if this process dies now, one is to blame
        if self._journal is not replayed:
            self.clear()
        self._journal, self._idle = replayed, False

    def nothing_taken(self) -> None:
        """Blame nobody any more when this is the second time.

        The first is followed by `Target.flush`, which may still be deadly.
        """
        journal = self._journal
        if self._idle or (journal is not None and (journal.finished or journal.aside)):
            self.clear()
        self._idle = True

    def clear(self) -> None:
        """Blame nobody; hold no journal either: its file would stay open."""
        if self._journal is not None:
            self._journal.spare()
        self._journal = None
