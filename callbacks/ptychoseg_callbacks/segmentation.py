"""The pipeline: start opens a run, documents yield frames, frames become masks, stop closes it."""

import logging
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from ptychoseg_stream.node.guard import Guard
from ptychoseg_stream.node.ports import Clock, Feed, Labeller, RawStore, RunInfo, Sink
from ptychoseg_stream.node.vitals import Vitals
from ptychoseg_stream.science.frame import Frame

from .documents import Document
from .frames.finder import FrameFinder
from .loop import Received
from .routing import Router
from .runs.keeper import Keeper
from .runs.labelling import Labelling
from .runs.open_run import OpenRun
from .runs.publishing import Publishing
from .runs.resume import ENDED, Receipts
from .runs.strays import Strays
from .segmentation_options import SegmentationOptions

__all__ = ["Segmentation", "SegmentationOptions"]

log = logging.getLogger(__name__)

Describe = Callable[[Document], RunInfo]


class Segmentation:
    """Turns documents into stored masks, for any number of runs at once; lives on one thread.

    Once a run is open, nothing that a labeller or a sink raises leaves it: the frames concerned are
    accounted for as refused or lost, and the next ones are processed.

    Parameters
    ----------
    labeller : Labeller
        Makes masks of frames.
    sink : Sink
        Stores masks.
    describe : callable
        Start document -> `RunInfo`, which the sink gets.
    options : SegmentationOptions
        Which images, in what batches.
    clock : callable
        Seconds since the epoch.
    raw : RawStore, optional
        Where the raw runs are kept: fills gaps, knows how a silent run ended.
    monotonic : callable
        Seconds of a clock that never jumps.
    feed : Feed, optional
        Hears of every frame as soon as it is labelled.
    """

    def __init__(
        self,
        labeller: Labeller,
        sink: Sink,
        describe: Describe,
        options: SegmentationOptions | None = None,
        clock: Clock = time.time,
        raw: RawStore | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        feed: Feed | None = None,
    ) -> None:
        self._labeller = labeller
        self._sink = sink
        self._describe = describe
        self._options = options or SegmentationOptions()
        self._clock = clock
        self._raw = raw
        self._now = monotonic
        self._runs: Router[OpenRun] = Router()
        self._receipts = Receipts()
        self._shown: OpenRun | None = None
        self._guard = Guard(log)
        self._labelling = Labelling(labeller, sink, self._guard, clock, feed)
        self._keeper = Keeper(labeller, sink, self._guard, self._options.checkpoint_frames, feed)
        every = self._options.products_every
        self._publishing = Publishing(labeller, sink, feed, self._guard, every, monotonic)
        self._strays = Strays()
        self._quiet = monotonic()  # when nothing waited to be processed
        self.heartbeat: Callable[[], None] = lambda: None

    @property
    def unknown(self) -> int:
        """Documents of runs that are not open: their start was missed, or they were closed."""
        return self._strays.count

    def __call__(self, name: str, doc: Document) -> None:
        """Process one document completely: its arrays may be overwritten afterwards."""
        for _ in self.steps(Received(name, doc, self._clock())):
            pass
        self.flush()
        self.tick()

    def steps(self, received: Received) -> Generator[None]:
        """Process one document, and yield whenever a batch of frames is stored.

        Frames that do not fill a batch wait for the next document, or for `flush`; their images
        must not be overwritten until then. Whoever closes the generator breaks the document off:
        its run must then be left to the next process, which begins with that document again.
        """
        name, doc = received.name, received.doc
        with ExitStack() as undo:
            if name == "start" and received.journal is not None:
                undo.callback(received.journal.refuse)
            run = self._open(received) if name == "start" else self._runs.find(name, doc)
            undo.pop_all()
        if run is None:
            self._strays.note(name, doc)
            return
        run.heard = self._now()
        run.heard_here = run.heard_here or received.number != 0
        whole = True
        try:
            yield from self._take(run, run.finder.of(name, doc, received.arrived), received)
            if name == "stop":
                yield from self._take(run, run.finder.finish(doc), received)
        except GeneratorExit:
            whole = False
            raise
        finally:
            # Also when a frame of the document could not be found: the next document is processed.
            if whole:
                self._done(run, received)

    def flush(self) -> None:
        """Label the frames that wait for a full batch: nothing else is there to be done now."""
        self._quiet = self._now()
        self._label_all()

    def tick(self) -> None:
        """Write the checkpoints that are due, forget what is stored, close silent runs.

        Time in which documents wait does not count: some of them may be of the run that is silent.
        """
        self._keeper.tick(self._runs)
        silent = [r for r in self._runs if self._quiet - r.heard > self._options.idle_timeout]
        for run in silent:
            self._end_silent(run)

    def stored(self) -> int:
        """Return the number of the last document such that the rows of all up to it are safe."""
        return self._receipts.stored(self._is_safe)

    def close_open_runs(self, reason: str, spare: Collection[str] = ()) -> None:
        """Close all runs whose stop document has not come, as failed, but those in `spare`."""
        for run in self._runs:
            if run.uid not in spare:
                self._close(run, "fail", reason)

    def suspend(self) -> None:
        """Leave the open runs to the next process; one without a journal is closed as failed."""
        for run in self._runs:
            if run.journal is None:
                self._close(run, "fail", "the node ended, and kept no journal of this run")
                continue
            self._leave(run)

    def drain(self, timeout: float) -> bool:
        """Label what waits and store it; False if storing takes longer than `timeout` [s]."""
        self._label_all()
        return self._sink.drain(timeout)

    def shutdown(self) -> None:
        """Close what is open and release the sink."""
        self.close_open_runs("the node was shut down before the stop document came")
        self._publishing.shutdown()
        self._keeper.tick(self._runs)

    def vitals(self) -> Vitals:
        """Return how things stand: the counters of the run last heard of, learning, storing."""
        run = self._shown
        vitals = Vitals(
            open_runs=len(self._runs),
            backlog=sum(len(each.pending) for each in self._runs),
            progress=self._labeller.progress(),
            fault=self._sink.fault() or self._guard.last,
        )
        return run.shown_in(vitals, self._sink) if run else vitals

    def _open(self, received: Received) -> OpenRun:
        start, journal = received.doc, received.journal
        uid: str = start["uid"]
        self._guard.renew()
        if (same := self._runs.find("start", start)) is not None:
            self._close(same, "fail", "its start document came a second time")
        if len(self._runs) >= self._options.max_open_runs:
            self._make_room(next(iter(self._runs)))
        info = self._describe(start)
        run = OpenRun(uid, FrameFinder(start, self._options.finder, self._raw), journal)
        run.heard_here = journal is None or not journal.resumed
        with ExitStack() as undo:
            if journal is None:  # else the next process tries again
                undo.callback(self._publishing.refuse, info)
            self._keeper.begin(run, info)
            undo.pop_all()
        with ExitStack() as undo:
            undo.callback(self._labeller.close, uid)
            self._publishing.begin(run, self._keeper.named(run, info))
            undo.pop_all()
        self._shown = run
        self._runs.add(uid, run)
        self._strays.began(uid)
        return run

    def _make_room(self, silent: OpenRun) -> None:
        """End a run that was not heard of for long; what an earlier process has left waits."""
        if silent.heard_here:
            log.warning("run %s: closed as failed, its stop document never came", silent.uid)
            self._close(silent, "fail", "the run went silent")
        else:
            log.warning("run %s: too many runs are open; it waits for the next start", silent.uid)
            self._leave(silent)

    def _leave(self, run: OpenRun) -> None:
        """Leave a run as it is to the next process."""
        self._label(run)
        self._keeper.keep(run)
        log.info("run %s: goes on from frame %d when a node starts", run.uid, run.safe)
        self._forget(run)

    def _done(self, run: OpenRun, received: Received) -> None:
        """Book a document that was processed as far as it can be."""
        run.heard = self._now()  # a document of a whole scan takes its time
        ended = received.name == "stop"
        if ended:
            self._stop(run, received.doc)
        self._receipts.add(received.number, run.uid, ENDED if ended else run.tally.received)

    def _label_all(self) -> None:
        for run in self._runs:
            self._label(run)

    def _take(self, run: OpenRun, frames: Iterable[Frame], received: Received) -> Iterator[None]:
        for frame in frames:
            if frame.index < run.finder.skip_before:
                continue  # its row was stored by an earlier process
            hurried = replace(frame, teacher_only=True) if received.teacher_only else frame
            run.add(hurried, received.arrived)
            if len(run.pending) >= self._options.batch:
                self._label(run)
                yield

    def _label(self, run: OpenRun) -> None:
        following = self._labelling.label(run)
        if following:
            self._shown = run
            run.heard = self._now()
            self._keeper.labelled(run, following)
            self._publishing.tick(run)

    def _stop(self, run: OpenRun, stop: Document) -> None:
        announced = self._guard.call("count", partial(run.finder.announced, stop), -1)
        reason = str(stop.get("reason") or "")
        self._close(run, str(stop.get("exit_status", "success")), reason, announced)

    def _end_silent(self, run: OpenRun) -> None:
        """End a run whose documents stay away: as the raw run ended, if that is known."""
        raw, uid = self._raw, run.uid
        ask = partial(raw.stop_of, uid) if raw is not None else lambda: None
        stop = self._guard.call("ask for the stop document", ask, None)
        if stop is not None:
            log.warning("run %s: its stop document was missed, and found in the raw store", uid)
            for _ in self.steps(Received("stop", stop, self._clock())):
                pass
            return
        limit = self._options.idle_timeout
        log.warning("run %s: closed as failed, no document came for %.3g s", uid, limit)
        self._close(run, "fail", f"the raw run went silent: no document for {limit:.3g} s")

    def _close(self, run: OpenRun, exit_status: str, reason: str, count: int | None = None) -> None:
        """End a run; `count` is what its stop document announces, None without one."""
        self._label(run)
        account = run.end(exit_status, reason, -1 if count is None else count, self._sink)
        self._publishing.finish(run)
        references = self._forget(run)
        if count is None:
            self._strays.closed(run.uid, reason, references)
        self._publishing.end(run.uid, account)
        self._keeper.closed(run)

    def _forget(self, run: OpenRun) -> list[str]:
        """Open a run no more; return the uids of its descriptors and resources."""
        references = self._runs.remove(run.uid)
        run.finder.close()
        close = partial(self._labeller.close, run.uid)
        self._guard.call("close a run of the labeller", close, None)
        return references

    def _is_safe(self, run_uid: str, rows: int) -> bool:
        still_open = rows != ENDED and any(run.uid == run_uid for run in self._runs)
        return self._sink.stored(run_uid) >= rows if still_open else self._sink.settled(run_uid)
