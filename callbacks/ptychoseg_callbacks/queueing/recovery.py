"""Queues what processes have left that live no more."""

import logging
from functools import partial

from ptychoseg_stream.node.guard import Guard

from ..journals.folder import Journals
from ..journals.journal import Journal
from .early import put_of
from .intake import Intake

log = logging.getLogger(__name__)


def recover(journals: Journals, intake: Intake, guard: Guard) -> int:
    """Go on with runs that are not finished; return how many those are.

    Parameters
    ----------
    journals : Journals
        Finds them.
    intake : Intake
        Queues their documents.
    guard : Guard
        One run that cannot be read must not cost the others.
    """
    # First those that are only written on: of the runs that are known, the last ones stay known.
    found = sorted(journals.unfinished(), key=lambda each: not each.aside)
    resumed = sum([_resume(each, intake, guard) for each in found if each.raw])
    for each in found:
        if not each.raw:  # what came while that process read its own journals
            _pour(each, intake, guard)
    return resumed


def _resume(journal: Journal, intake: Intake, guard: Guard) -> bool:
    step = partial(intake.resume, journal)
    count = guard.call(f"go on with the run in {journal.folder}", step, -1)
    if count == 0:
        journal.discard()  # not even its start document was written down
    elif count < 0:
        journal.release()
        if journal.aside:
            intake.leave_out(journal.raw)
    elif not journal.aside:
        log.warning("run %s: going on with it; %d documents", journal.raw, count)
        return True
    return False


def _pour(early: Journal, intake: Intake, guard: Guard) -> None:
    step = partial(_take_in, early, intake)
    if not early.aside and guard.call("read documents of earlier", step, False):
        early.discard()
    else:
        early.release()  # to the next process: what was let in here is known by its uid


def _take_in(journal: Journal, intake: Intake) -> bool:
    for _, entry, _ in journal.recover():
        intake.take_in(put_of(entry, again=True))
    intake.sync()
    return True
