"""The pipeline: start opens a run, documents yield frames, frames become masks, stop closes it."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from ptychoseg_stream.errors import PtychosegError
from ptychoseg_stream.node.ports import Account, Clock, Labeller, RunInfo, Sink
from ptychoseg_stream.node.vitals import Vitals
from ptychoseg_stream.science.frame import Frame, Mask

from .documents import Document
from .frames import FinderOptions, FrameFinder
from .guard import Guard
from .open_run import OpenRun, refusal
from .routing import Router

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SegmentationOptions:
    """How documents become masks.

    Parameters
    ----------
    finder : FinderOptions
        Which images of a run are segmented, and how files are read.
    batch : int
        Frames are labelled in groups of up to so many; a group never waits for more to come.
    max_open_runs : int
        Beyond it, the run not heard of for longest is taken to have lost its stop document.
    """

    finder: FinderOptions = field(default_factory=FinderOptions)
    batch: int = 8
    max_open_runs: int = 16


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
    """

    def __init__(
        self,
        labeller: Labeller,
        sink: Sink,
        describe: Callable[[Document], RunInfo],
        options: SegmentationOptions | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._labeller = labeller
        self._sink = sink
        self._describe = describe
        self._options = options or SegmentationOptions()
        self._clock = clock
        self._runs: Router[OpenRun] = Router()
        self._shown: OpenRun | None = None
        self._guard = Guard(log)
        self.heartbeat: Callable[[], None] = lambda: None
        self.unknown = 0  # documents of runs whose start document was not seen

    def __call__(self, name: str, doc: Document) -> None:
        """Process one document completely: its arrays may be overwritten afterwards."""
        for _ in self.steps(name, doc):
            pass
        self.flush()

    def steps(self, name: str, doc: Document, arrived: float | None = None) -> Iterator[None]:
        """Process one document, and yield whenever a batch of frames is stored.

        Frames that do not fill a batch wait for the next document, or for `flush`; their images
        must not be overwritten until then.

        Parameters
        ----------
        name, doc
            Any Bluesky document.
        arrived : float, optional
            When the document was received [s since the epoch]; default now.
        """
        arrived = self._clock() if arrived is None else arrived
        run = self._open(doc) if name == "start" else self._runs.find(name, doc)
        if run is None:
            self._note_unknown(name)
            return
        for frame in run.finder.of(name, doc, arrived):
            run.add(frame, arrived)
            if len(run.pending) >= self._options.batch:
                self._label(run)
                yield
        if name == "stop":
            self._close(run, doc.get("exit_status", "success"), doc.get("reason") or "")

    def flush(self) -> None:
        """Label the frames that wait for a full batch: nothing else is there to be done now."""
        for run in self._runs:
            self._label(run)

    def close_open_runs(self, reason: str) -> None:
        """Close all runs whose stop document has not come, as failed."""
        for run in self._runs:
            self._close(run, "fail", reason)

    def drain(self, timeout: float) -> bool:
        """Label what waits and store it; False if storing takes longer than `timeout` [s]."""
        self.flush()
        return self._sink.drain(timeout)

    def shutdown(self) -> None:
        """Close what is open and release the sink."""
        self.close_open_runs("the node was shut down before the stop document came")
        self._sink.shutdown()

    def vitals(self) -> Vitals:
        """Return how things stand: the counters of the run last heard of, learning, storing."""
        run = self._shown
        vitals = Vitals(
            open_runs=len(self._runs),
            backlog=sum(len(each.pending) for each in self._runs),
            progress=self._labeller.progress(),
            fault=self._sink.fault() or self._guard.last,
        )
        if run is None:
            return vitals
        vitals = replace(
            vitals,
            run=run.uid,
            derived=self._sink.address(run.uid),
            received=run.received,
            written=run.written,
            refused=run.refused.total(),
            lost=run.lost,
            stored=self._sink.stored(run.uid),
            alarms=run.alarms,
            alarm=run.alarm,
        )
        if (last := run.last) is None:
            return vitals
        return replace(
            vitals,
            index=last.frame.index,
            source=last.source,
            iou_to_teacher=last.quality.iou_to_teacher,
            latency_ms=1e3 * last.latency,
            student_revision=last.student_revision,
            verdict=last.verdict,
        )

    def _open(self, start: Document) -> OpenRun:
        uid: str = start["uid"]
        self._guard.renew()
        if (same := self._runs.find("start", start)) is not None:
            self._close(same, "fail", "its start document came a second time")
        if len(self._runs) >= self._options.max_open_runs:
            silent = next(iter(self._runs))
            log.warning("run %s: closed as failed, its stop document never came", silent.uid)
            self._close(silent, "fail", "the run went silent")
        with ExitStack() as undo:
            self._sink.open(self._describe(start))
            failed = Account(exit_status="fail", reason="the labeller could not begin this run")
            undo.callback(self._sink.close, uid, failed)
            self._labeller.open(uid)
            undo.pop_all()
        run = self._shown = OpenRun(uid, FrameFinder(start, self._options.finder))
        self._runs.add(uid, run)
        return run

    def _label(self, run: OpenRun) -> None:
        batch, run.pending = run.pending, []
        if not batch:
            return
        self._shown = run
        frames = [frame for frame, _ in batch]
        masks = self._guard.call("label frames", partial(self._masks, frames), None)
        if masks is None:
            masks = [refusal(frame, self._guard.last) for frame in frames]
        now = self._clock()
        masks = [
            replace(mask, latency=now - arrived)
            for mask, (_, arrived) in zip(masks, batch, strict=True)
        ]
        stored = self._guard.call("store masks", partial(self._store, run.uid, masks), False)
        run.count(masks if stored else [replace(mask, status="lost") for mask in masks])

    def _masks(self, frames: Sequence[Frame]) -> list[Mask]:
        masks = self._labeller.process(frames)
        if [mask.frame.index for mask in masks] != [frame.index for frame in frames]:
            raise PtychosegError(
                f"the labeller answered frames {[frame.index for frame in frames]} with masks of "
                f"{[mask.frame.index for mask in masks]}; it must give one mask per frame, in order"
            )
        return masks

    def _store(self, run_uid: str, masks: Sequence[Mask]) -> bool:
        self._sink.write(run_uid, masks)
        return True

    def _close(self, run: OpenRun, exit_status: str, reason: str) -> None:
        self._label(run)
        self._runs.remove(run.uid)
        run.finder.close()
        self._guard.call(
            "close a run of the labeller", partial(self._labeller.close, run.uid), None
        )
        account = run.account(exit_status, reason)
        self._guard.call(
            "close a run of the sink", partial(self._sink.close, run.uid, account), None
        )

    def _note_unknown(self, name: str) -> None:
        self.unknown += 1
        if self.unknown == 1:
            log.warning(
                "a %s document belongs to no open run: its start document was missed or refused; "
                "such documents are counted and ignored",
                name,
            )
