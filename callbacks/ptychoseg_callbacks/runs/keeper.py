"""Keeps what lets another process go on with a run: its checkpoints, until all of it is stored."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from ptychoseg_stream.node.guard import Guard
from ptychoseg_stream.node.ports import Feed, Labeller, RunInfo, Sink

from .open_run import OpenRun
from .resume import Checkpoint, RunJournal
from .takeover import TakeOver
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
    feed : Feed, optional
        Must have kept frames that are not labelled again, too.
    """

    def __init__(
        self, labeller: Labeller, sink: Sink, guard: Guard, every: int, feed: Feed | None = None
    ) -> None:
        self._labeller = labeller
        self._sink = sink
        self._guard = guard
        self._every = every
        self._feed = feed
        self._take_over = TakeOver(labeller, sink, guard)
        self._ended: list[OpenRun] = []  # whose rows are not all safe yet
        self._left: list[OpenRun] = []  # to the next process

    def named(self, run: OpenRun, info: RunInfo) -> RunInfo:
        """Return what the sink is told of a run: with the identity that its journal gives it."""
        if run.journal is None:
            return info
        began, resumed = run.journal.began, run.journal.resumed
        return replace(info, derived=run.derived, began=began, resumed=resumed)

    def begin(self, run: OpenRun, info: RunInfo) -> None:
        """Have the labeller begin a run, or go on with it; name the derived run."""
        run.settings, run.target = info.settings, info.target
        checkpoint = self._take_over.go_on(run, info)
        if checkpoint is None:
            self._labeller.open(run.uid)
            if run.journal is not None:
                self._keep_beginning(run, run.journal)
            return
        run.finder.skip_before = run.safe = checkpoint.next
        if checkpoint.tally:
            run.tally = Tally.of(checkpoint.tally)
        log.warning("run %s: goes on from frame %d", run.uid, checkpoint.next)

    def _keep_beginning(self, run: OpenRun, journal: RunJournal) -> None:
        """Write down what a run is labelled with, before it has any rows."""
        # The labeller remembers what there was when the run began: that may change.
        _, data = self._taken(run, 0) or (0, _checkpoint(run, 0).pack())
        if run.replaces:  # first that one is to end: until then the old checkpoint tells of it
            run.waiting = 0, data
        elif not self._save(run, data, 0):
            # Who went on with it could not know what its rows were labelled with.
            log.error(
                "run %s: there is no journal, because its first checkpoint cannot be written. The "
                "run goes on; but if the node is killed, the rest of the run is lost",
                run.uid,
            )
            run.journal = None
            journal.discard()

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
        empty = _checkpoint(run, following)
        return following, replace(empty, labeller=state, tally=run.tally.plain()).pack()

    def _save_waiting(self, run: OpenRun) -> None:
        if run.waiting is None or (run.replaces and not self._sink.settled(run.replaces)):
            return
        told = run.waiting[0] if self._feed is None else self._feed.told(run.uid)
        if min(told, self._sink.stored(run.uid)) >= run.waiting[0]:
            following, data = run.waiting
            run.waiting = None
            self._save(run, data, following)

    def _save(self, run: OpenRun, data: bytes, following: int) -> bool:
        journal = run.journal
        if journal is None:
            return False

        def save() -> bool:
            journal.save_checkpoint(data)
            return True

        saved = self._guard.call("write a checkpoint", save, False)
        if saved:
            run.safe = following
        return saved


def _checkpoint(run: OpenRun, following: int) -> Checkpoint:
    """Return a checkpoint that says what it belongs to, and nothing else."""
    return Checkpoint(following, run.derived, run.settings, run.target)
