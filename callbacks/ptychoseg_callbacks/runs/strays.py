"""Documents that belong to no open run: counted, and said of which run, if that is known."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from ..documents import Document
from ..routing import Router

log = logging.getLogger(__name__)

_MOST_CLOSED = 64  # runs whose later documents are recognised


@dataclass(slots=True)
class _Closed:
    """A run that was closed before its stop document came."""

    uid: str
    why: str
    late: int = 0


class Strays:
    """Counts documents without an open run.

    Attributes
    ----------
    count : int
        How many came.
    """

    def __init__(self) -> None:
        self.count = 0
        self._told = False
        self._closed: Router[_Closed] = Router(lambda _: False)

    def began(self, run_uid: str) -> None:
        """Learn that a run is open: what comes of it is no stray."""
        self._closed.remove(run_uid)

    def closed(self, run_uid: str, why: str, references: Iterable[str]) -> None:
        """Learn that a run was closed early, and the uids of its descriptors and resources."""
        if len(self._closed) >= _MOST_CLOSED:
            self._closed.remove(next(iter(self._closed)).uid)
        self._closed.add(run_uid, _Closed(run_uid, why), references)

    def note(self, name: str, doc: Document) -> None:
        """Count a document, and say so: once for each run that is known, once for all others."""
        self.count += 1
        run = self._closed.find(name, doc)
        if run is not None:
            self._late(run, name)
        elif not self._told:
            self._told = True
            log.warning(
                "a %s document belongs to no open run: its start document was missed or refused; "
                "such documents are counted and ignored",
                name,
            )

    def _late(self, run: _Closed, name: str) -> None:
        run.late += 1
        if run.late == 1:
            log.error(
                "run %s: a %s document came after it was closed (%s): it and those that follow "
                "have no rows; when the run has ended, label it again with `ptychoseg replay`",
                run.uid,
                name,
                run.why,
            )
        if name == "stop":
            log.error("run %s: %d documents came after it was closed", run.uid, run.late)
            self._closed.remove(run.uid)
