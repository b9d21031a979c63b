"""Which documents are let in: each one once, and those of a run that nobody saw start."""

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..documents import Document
from ..journals.folder import Journals
from ..journals.journal import Entry, Journal
from ..routing import Router

log = logging.getLogger(__name__)

MOST_IDS = 200_000
"""Documents remembered, so that they are not taken twice."""
_MOST_RUNS = 64  # runs whose later documents are recognised
_MOST_ASKED = 1000  # uids that a raw store was asked for


@dataclass(slots=True, eq=False)
class _Run:
    """A run as far as the documents of it are concerned."""

    raw: str
    serial: int
    journal: Journal | None = None
    stopped: bool = False
    skipped: bool = False  # an earlier process has finished it

    @property
    def open(self) -> bool:
        """Whether its next documents are still to come."""
        self.let_go()
        return not self.stopped

    def waits(self, redelivered: bool) -> bool:
        """Whether it is left aside, and a start document that comes again begins no new run."""
        journal = self.journal
        return journal is not None and journal.aside and (redelivered or journal.resumed)

    def let_go(self) -> None:
        """Hold the journal no longer than needed: its file is closed when nobody holds it."""
        if self.journal is not None and self.journal.finished:
            self.journal = None
            self.stopped = True


@dataclass(frozen=True, slots=True)
class Admitted:
    """A document that is to be processed, and the journal of its run."""

    name: str
    doc: Document
    journal: Journal | None = None


@dataclass(frozen=True, slots=True)
class Missed:
    """What a raw store knows of a run whose beginning was missed.

    Parameters
    ----------
    start : mapping
        Its start document.
    notes : sequence of (str, mapping)
        Its descriptors and resources.
    """

    start: Document
    notes: Sequence[tuple[str, Document]]


class Admission:
    """Knows the runs and the documents that came; used by one thread at a time.

    Parameters
    ----------
    journals : Journals, optional
        Where each new run gets a journal.
    """

    def __init__(self, journals: Journals | None = None) -> None:
        self._journals = journals
        self._runs: Router[_Run] = Router(lambda run: run.open)
        self._serial = 0
        # Hashes of (run, id), the oldest first; a dict would look for it among all it has deleted.
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._asked: dict[str, None] = {}
        self.duplicates = 0

    def missing(self, name: str, doc: Document) -> str:
        """Return the uid of a run, or of a descriptor, that a raw store should know.

        Empty if the run of this document is known, or was asked for before.
        """
        if name == "start" or self._runs.find(name, doc) is not None:
            return ""
        uid = doc.get("run_start") or doc.get("descriptor")
        if not isinstance(uid, str) or uid in self._asked:
            return ""
        self._asked[uid] = None
        if len(self._asked) > _MOST_ASKED:
            del self._asked[next(iter(self._asked))]
        return uid

    def wants(self, start: Document) -> bool:
        """Whether the beginning of this run, which was missed, is of use."""
        known = self._runs.find("start", start)
        # What comes late of a run that is done with must not begin it again.
        return not self._is_finished(start["uid"]) if known is None else known.open

    def admit(
        self, name: str, doc: Document, redelivered: bool = False, missed: Missed | None = None
    ) -> Iterator[Admitted]:
        """Yield what is to be processed: nothing for what came before, more for a late joiner.

        Parameters
        ----------
        name, doc
            Any Bluesky document.
        redelivered : bool
            Whether the source may deliver again what an earlier process has finished.
        missed : Missed, optional
            The beginning of its run, if that was missed.
        """
        if name == "start":
            yield from self._start(doc, redelivered)
            return
        if missed is not None:
            yield from self._catch_up(missed)
        run = self._runs.find(name, doc)
        if run is None:
            yield Admitted(name, doc)  # who processes it counts it as unknown
            return
        if run.skipped or self._is_known(run, name, doc):
            self.duplicates += 1
        else:
            yield Admitted(name, doc, run.journal)
        run.stopped = run.stopped or name == "stop"

    def resume(self, journal: Journal) -> Iterator[tuple[int, Entry, int]]:
        """Know a run again, and yield what `Journal.recover` does."""
        run: _Run | None = None
        for offset, entry, after in journal.recover():
            if run is None:
                run = self._add(_Run(journal.raw, self._next_serial(), journal))
            self._runs.find(entry.name, entry.doc)
            self._is_known(run, entry.name, entry.doc)
            run.stopped = run.stopped or entry.name == "stop"
            yield offset, entry, after

    def leave_out(self, raw: str) -> None:
        """Know a run of which nothing is to be processed."""
        self._add(_Run(raw, self._next_serial(), skipped=True))

    def journals(self) -> Iterator[Journal]:
        """Yield the journals of the runs that are known and not done with."""
        for run in self._runs:
            run.let_go()
            if run.journal is not None:
                yield run.journal

    def _start(self, doc: Document, redelivered: bool) -> Iterator[Admitted]:
        uid: str = doc["uid"]
        known = self._runs.find("start", doc)
        if known is not None and (known.open or known.waits(redelivered)):
            self.duplicates += 1
            if not known.skipped and not redelivered:
                text = "run %s: its start document came again while it is open; it is left out"
                if known.waits(True):
                    text = "run %s: it comes again, and is left aside: what is new is written down"
                log.warning(text, uid)
            return
        if redelivered and (known is not None or self._is_finished(uid)):
            log.info("run %s: it was processed before; its documents are left out", uid)
            self._add(_Run(uid, self._next_serial(), skipped=True))
            self.duplicates += 1
            return
        journal = self._journals.create(uid) if self._journals is not None else None
        self._add(_Run(uid, self._next_serial(), journal))
        yield Admitted("start", doc, journal)

    def _catch_up(self, missed: Missed) -> Iterator[Admitted]:
        """Yield the beginning of a run that was missed."""
        log.info("run %s: documents were missed; the raw store is asked", missed.start["uid"])
        if self._runs.find("start", missed.start) is None:
            yield from self._start(missed.start, False)
        for each, note in missed.notes:
            yield from self.admit(each, note)

    def let_go(self) -> None:
        """Hold journals of runs that are done with no longer."""
        for run in self._runs:
            run.let_go()

    def _add(self, run: _Run) -> _Run:
        self.let_go()
        if len(self._runs) >= _MOST_RUNS:
            oldest = min(self._runs, key=lambda each: (each.open, each.serial))
            self._runs.remove(oldest.raw)
        self._runs.add(run.raw, run)
        return run

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def _is_finished(self, uid: str) -> bool:
        return self._journals is not None and self._journals.is_finished(uid)

    def _is_known(self, run: _Run, name: str, doc: Document) -> bool:
        """Whether a document of a run came before; from now on it did."""
        keys = [hash((run.serial, name.removesuffix("_page"), each)) for each in _ids(name, doc)]
        known = bool(keys) and all(key in self._seen for key in keys)
        for key in keys:
            self._seen[key] = None
        while len(self._seen) > MOST_IDS:
            self._seen.popitem(last=False)
        return known


def _ids(name: str, doc: Document) -> list[str]:
    """Return what tells a document from all others of its run; of a page, one for each row."""
    ids = doc.get("datum_id" if name in ("datum", "datum_page") else "uid")
    if isinstance(ids, str):
        return [ids]
    rows = list(ids) if isinstance(ids, list | tuple) else []
    return [each for each in rows if isinstance(each, str)]
