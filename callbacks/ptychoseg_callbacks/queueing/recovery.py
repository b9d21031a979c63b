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
    found = journals.unfinished()
    for raw in filter(None, journals.aside):
        intake.leave_out(raw)
    resumed = sum([_resume(each, intake, guard) for each in found if each.raw])
    for each in found:
        if not each.raw:  # what came while that process read its own journals
            guard.call("read documents of earlier", partial(_take_in, each, intake), None)
            each.discard()
    return resumed


def _resume(journal: Journal, intake: Intake, guard: Guard) -> bool:
    step = partial(intake.resume, journal)
    count = guard.call(f"go on with the run in {journal.folder}", step, -1)
    if count > 0:
        log.warning("run %s: going on with it; %d documents", journal.raw, count)
    elif count == 0:
        journal.discard()  # not even its start document was written down
    else:
        journal.release()
    return count > 0


def _take_in(journal: Journal, intake: Intake) -> None:
    for _, entry, _ in journal.recover():
        intake.take_in(put_of(entry, again=True))
