"""Goes on with a run where an earlier process left it, or begins it anew beside what is there."""

import hashlib
import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import replace

from ptychoseg_stream.errors import CheckpointError
from ptychoseg_stream.node.guard import Guard
from ptychoseg_stream.node.ports import Account, Labeller, RunInfo, Sink

from .open_run import OpenRun
from .resume import Checkpoint
from .tally import Tally

log = logging.getLogger(__name__)


class TakeOver:
    """Decides whether a run can be gone on with, from the checkpoint beside its journal.

    Rows of two settings must never be in one derived run. Where it is not certain that those that
    are stored and those to come would be alike, the old derived run is closed as failed, and the
    raw run is labelled from its first frame into a new one.

    Parameters
    ----------
    labeller : Labeller
        Goes on with a run, or refuses to.
    sink : Sink
        Where the old derived run is closed.
    guard : Guard
        A disk that cannot be read must not cost the run.
    """

    def __init__(self, labeller: Labeller, sink: Sink, guard: Guard) -> None:
        self._labeller = labeller
        self._sink = sink
        self._guard = guard

    def go_on(self, run: OpenRun, info: RunInfo) -> Checkpoint | None:
        """Have the labeller go on with a run; None if it is to begin it. Names the derived run."""
        journal = run.journal
        run.derived = journal.derived if journal else info.derived
        if journal is None or not journal.resumed:
            return None
        data = self._guard.call("read a checkpoint", journal.load_checkpoint, None)
        if data == b"":
            return None
        try:
            about = Checkpoint.about(data or b"")
        except CheckpointError as error:
            # Whose rows are stored is not known, nor what they were labelled with.
            unknown = Checkpoint(0, journal.derived, target=info.target)
            mark = hashlib.sha256(data or b"").hexdigest()  # two of them are not the same run
            self._unusable(run, info, unknown, error, mark)
            return None
        run.derived = about.derived
        if about.target != info.target:
            self._moved(run, info, about)
        elif changed := _changed(about.settings, info.settings):
            self._changed(run, info, about, changed, self._account(data or b""))
        else:
            return self._with(run, info, about, data or b"")
        return None

    def _with(
        self, run: OpenRun, info: RunInfo, about: Checkpoint, data: bytes
    ) -> Checkpoint | None:
        try:
            found = Checkpoint.unpack(data)
            self._labeller.open(run.uid, found.labeller)
            return found
        except CheckpointError as error:
            if about.next:
                self._unusable(run, info, about, error)
            else:
                # Its rows come again, and the sink leaves them out.
                log.warning("run %s: labelled again from its first frame: %s", run.uid, error)
            return None

    def _moved(self, run: OpenRun, info: RunInfo, about: Checkpoint) -> None:
        run.derived = _beside(about, info)
        log.warning(
            "run %s: its rows go to %s now; labelled anew as %s. The derived run %s stays at %s, "
            "without an end, and so does what waits on disk for it",
            run.uid,
            info.target,
            run.derived,
            about.derived,
            about.target,
        )

    def _changed(
        self, run: OpenRun, info: RunInfo, about: Checkpoint, changed: str, account: Account
    ) -> None:
        run.derived = _beside(about, info)
        reason = f"the profile changed while the node was down; labelled anew as {run.derived}"
        log.warning("run %s: %s (other than before: %s)", run.uid, reason, changed)
        self._close(run, info, about, replace(account, reason=reason))

    def _unusable(
        self, run: OpenRun, info: RunInfo, about: Checkpoint, error: Exception, mark: str = ""
    ) -> None:
        run.derived = _beside(about, info, mark)
        reason = f"its checkpoint cannot be used; labelled anew as {run.derived}"
        log.warning("run %s: %s: %s", run.uid, reason, error)
        self._close(run, info, about, Account(exit_status="fail", reason=reason))

    def _close(self, run: OpenRun, info: RunInfo, about: Checkpoint, account: Account) -> None:
        began = run.journal.began if run.journal else 0.0
        old = replace(info, derived=about.derived, began=began, resumed=True)

        def close() -> None:
            self._sink.open(old)
            self._sink.close(run.uid, account)
            run.replaces = about.derived

        self._guard.call("close a derived run that is not gone on with", close, None)

    def _account(self, data: bytes) -> Account:
        try:
            tally = Checkpoint.unpack(data).tally
        except CheckpointError:
            tally = {}
        empty = Account(exit_status="fail")
        return Tally.of(tally).account("fail", "") if tally else empty


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Name the parts that differ."""
    names = sorted(before.keys() | now.keys())
    return ", ".join(name for name in names if before.get(name) != now.get(name))


def _beside(about: Checkpoint, info: RunInfo, mark: str = "") -> str:
    """Return the uid of the next derived run: the same one whenever this is decided again."""
    what = json.dumps([dict(info.settings), info.target, mark], sort_keys=True)
    return str(uuid.uuid5(uuid.UUID(about.derived), what))
