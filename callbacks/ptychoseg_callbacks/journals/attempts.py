"""Counts, beside a journal, how often a run was gone on with in vain."""

import contextlib
import logging
import os
from pathlib import Path
from typing import ClassVar

from ptychoseg_stream.node.disk import write_whole

log = logging.getLogger(__name__)

MOST_DEATHS = 10
"""So often a node may die at the same document; one that is killed from outside is elsewhere."""
MOST_REFUSALS = 3
"""So often a run may not be opened."""

_PLACE = "attempts.at"
_REFUSED = 0  # place of a run that was not even opened
_DIGITS = 12


class Attempts:
    """How many attempts failed one after the other, and at which document.

    An attempt is written down before it is made: what it costs may be the process. Deaths at other
    documents than the last one are no sign that the run is to blame, and begin the count anew.

    Parameters
    ----------
    folder : Path
        Of the journal.
    """

    FILE: ClassVar[str] = "attempts"

    def __init__(self, folder: Path) -> None:
        self.path = folder / self.FILE
        self._at = folder / _PLACE  # is there during an attempt: the document that is replayed
        self._failed, self._place = (*_numbers_in(self.path), 0, 0)[:2]
        self._saved = ""
        self._under_way = False
        self._reached = 0
        for died_at in _numbers_in(self._at):
            self._fail(died_at)

    @property
    def used_up(self) -> bool:
        """Whether the run is to be left aside."""
        most = MOST_REFUSALS if self._place == _REFUSED else MOST_DEATHS
        return self._failed >= most

    @property
    def failed(self) -> int:
        """How many attempts failed in the same way."""
        return self._failed

    def reach(self) -> None:
        """Note that the next document is replayed. Never raises."""
        begins, self._under_way = not self._under_way, True
        self._reached += 1
        try:
            if begins and self._failed:
                self._save()
            handle = os.open(self._at, os.O_WRONLY | os.O_CREAT, 0o600)
            try:  # not synced: a process that dies leaves it, and a loss of power is no reason
                os.pwrite(handle, b"%0*d" % (_DIGITS, self._reached), 0)
            finally:
                os.close(handle)
        except OSError as error:
            if begins:
                log.warning(
                    "%s cannot be written: %s. If this run ends the process, so it will next time",
                    self.path,
                    error,
                )

    def refuse(self) -> None:
        """Count that the run could not be opened. Never raises."""
        self.undo()
        self._fail(_REFUSED)
        with contextlib.suppress(OSError):
            self._save()

    def undo(self) -> None:
        """Do not count the attempt: it ended in good order. Never raises."""
        if self._under_way:
            self._under_way = False
            with contextlib.suppress(OSError):
                self._at.unlink(missing_ok=True)

    def reset(self) -> None:
        """Count none: the run has come further than before. Never raises."""
        self.undo()
        if self._failed:
            self._failed, self._saved = 0, ""
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _fail(self, place: int) -> None:
        self._failed = self._failed + 1 if place == self._place else 1
        self._place = place

    def _save(self) -> None:
        text = f"{self._failed} {self._place}"
        if text != self._saved:
            write_whole(self.path, text.encode())
            self._saved = text


def _numbers_in(path: Path) -> list[int]:
    """Return the numbers in a file; none if it is not there, or not ours."""
    try:
        words = path.read_bytes()[: 2 * _DIGITS + 1].split()
    except OSError:
        return []
    return [int(word) for word in words] if all(word.isdigit() for word in words) else []
