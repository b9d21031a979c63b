"""Keeps what lets another process go on with a run: its checkpoints, until all of it is stored."""

import logging
import uuid
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from ptychoseg_stream.errors import CheckpointError
from ptychoseg_stream.node.ports import Account, Labeller, RunInfo, Sink

from .guard import Guard
from .open_run import OpenRun
from .resume import Checkpoint
from .tally import Tally

log = logging.getLogger(__name__)


class Keeper:
    """Takes checkpoints of runs that have a journal, and gives up what is no longer needed.

    A checkpoint is written only when the rows of all frames before it are safe: whoever goes on
    from it makes those that are missing, and none is missing before it.

    Parameters
    ----------
    labeller : Labeller
        Its state is what is kept.
    sink : Sink
        Knows which rows are safe.
    guard : Guard
        A disk that refuses must not cost a frame its mask.
    every : int
        Frames between two checkpoints.
    """

    def __init__(self, labeller: Labeller, sink: Sink, guard: Guard, every: int) -> None:
        self._labeller = labeller
        self._sink = sink
        self._guard = guard
        self._every = every
        self._ended: list[OpenRun] = []  # whose rows are not all safe yet
        self._left: list[OpenRun] = []  # to the next process

    def find(self, run: OpenRun, info: RunInfo) -> Checkpoint | None:
        """Return the checkpoint that an earlier process left, if it can be used; name the run."""
        journal = run.journal
        if journal is None:
            run.derived = info.derived
            return None
        run.derived = journal.derived
        if not journal.resumed:
            return None
        data = self._guard.call("read a checkpoint", journal.load_checkpoint, b"")
        try:
            found = Checkpoint.unpack(data) if data else None
        except CheckpointError as error:
            log.warning("run %s: labelled again from its first frame: %s", run.uid, error)
            return None
        if found is None or found.digest == run.digest:
            run.derived = found.derived if found else run.derived
            return found
        self._give_up(run, found, info)
        return None

    def named(self, run: OpenRun, info: RunInfo) -> RunInfo:
        """Return what the sink is told of a run: with the identity that its journal gives it."""
        if run.journal is None:
            return info
        began, resumed = run.journal.began, run.journal.resumed
        return replace(info, derived=run.derived, began=began, resumed=resumed)

    def begin(self, run: OpenRun, checkpoint: Checkpoint | None) -> None:
        """Have the labeller begin a run, or go on with it."""
        try:
            self._labeller.open(run.uid, checkpoint.labeller if checkpoint else b"")
        except CheckpointError as error:
            # Its rows come again, and the sink leaves them out: slower, and the same in the end.
            log.warning("run %s: labelled again from its first frame: %s", run.uid, error)
            checkpoint = None
            self._labeller.open(run.uid)
        if checkpoint is None:
            if run.journal is not None:
                # The labeller remembers what there was when the run began: that may change.
                _, data = self._taken(run, 0) or (0, b"")
                self._save(run, data or Checkpoint(0, run.derived, run.digest).pack(), 0)
            return
        run.finder.skip_before = run.safe = checkpoint.next
        if checkpoint.tally:
            run.tally = Tally.of(checkpoint.tally)
        log.warning("run %s: goes on from frame %d", run.uid, checkpoint.next)

    def labelled(self, run: OpenRun, following: int) -> None:
        """Take a checkpoint if it is time for one; `following` is the next frame to label."""
        due = following - run.safe >= self._every
        if run.journal is not None and run.waiting is None and due and not run.pending:
            run.waiting = self._taken(run, following)

    def keep(self, run: OpenRun) -> None:
        """Write a checkpoint of this moment, as soon as all rows are safe: the run is left."""
        following = run.last.frame.index + 1 if run.last is not None else 0
        if run.journal is not None and following > run.safe:
            run.waiting = self._taken(run, following)
            self._left.append(run)
            self._save_waiting(run)

    def closed(self, run: OpenRun) -> None:
        """Remember a run that has ended until all of it is safe."""
        if run.journal is not None:
            self._ended.append(run)

    def tick(self, runs: Iterable[OpenRun]) -> None:
        """Write checkpoints whose rows are safe by now; forget the journals of settled runs."""
        for run in (*runs, *self._left):
            self._save_waiting(run)
        for run in [run for run in self._ended if self._sink.settled(run.uid)]:
            self._ended.remove(run)
            if run.journal is not None:
                self._guard.call("remove a journal", run.journal.finish, None)

    def _taken(self, run: OpenRun, following: int) -> tuple[int, bytes] | None:
        take = partial(self._labeller.checkpoint, run.uid)
        state = self._guard.call("take a checkpoint", take, None)
        if state is None:
            return None
        tally = run.tally.plain()
        packed = Checkpoint(following, run.derived, run.digest, state, tally).pack()
        return following, packed

    def _save_waiting(self, run: OpenRun) -> None:
        if run.waiting is not None and self._sink.stored(run.uid) >= run.waiting[0]:
            following, data = run.waiting
            run.waiting = None
            self._save(run, data, following)

    def _save(self, run: OpenRun, data: bytes, following: int) -> None:
        journal = run.journal
        if journal is None:
            return

        def save() -> bool:
            journal.save_checkpoint(data)
            return True

        if self._guard.call("write a checkpoint", save, False):
            run.safe = following

    def _give_up(self, run: OpenRun, found: Checkpoint, info: RunInfo) -> None:
        """Close what was labelled with other options, and begin anew beside it."""
        run.derived = str(uuid.uuid5(uuid.UUID(found.derived), run.digest))
        reason = f"the profile changed while the node was down; labelled anew as {run.derived}"
        log.warning("run %s: %s", run.uid, reason)
        began = run.journal.began if run.journal else 0.0
        old = replace(info, derived=found.derived, began=began, resumed=True)
        account = Tally.of(found.tally).account("fail", reason) if found.tally else None

        def close() -> None:
            self._sink.open(old)
            self._sink.close(run.uid, account or Account(exit_status="fail", reason=reason))

        self._guard.call("close a run of another profile", close, None)
