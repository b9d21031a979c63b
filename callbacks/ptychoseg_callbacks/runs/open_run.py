"""What is remembered of an open run: the frames that wait, and the account of the others."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ptychoseg_stream.node.ports import Account, Sink
from ptychoseg_stream.node.vitals import Vitals
from ptychoseg_stream.science.experiment import Experiment
from ptychoseg_stream.science.frame import ClassCode, Frame, Mask

from ..frames.finder import FrameFinder
from .resume import RunJournal
from .tally import Tally

log = logging.getLogger(__name__)
accounts = logging.getLogger("ptychoseg_callbacks.accounts")
"""One line at the end of each run, also where only warnings are shown otherwise."""


@dataclass(slots=True)
class OpenRun:
    """A run between its start and stop documents.

    Parameters
    ----------
    uid : str
        Of the raw run.
    finder : FrameFinder
        Finds its frames.
    journal : RunJournal, optional
        Its documents on disk.
    derived : str
        Uid of the derived run; empty if the sink chose one.
    settings, target
        What it is labelled with, and where its rows go: as in `RunInfo`.
    replaces : str
        Uid of the derived run that was given up for this one; empty if none was.
    pending : list of (Frame, float)
        Frames that wait for a full batch, and when their documents arrived [s since the epoch].
    tally : Tally
        What became of the others.
    last : Mask, optional
        The newest mask.
    heard : float
        When a document of it, or a batch of its frames, was processed last [s, monotonic].
    heard_here : bool
        Whether a document of it came to this process, and not only to an earlier one.
    safe : int
        Frames before this one need not be labelled again after a restart.
    waiting : (int, bytes), optional
        A checkpoint that is written once all rows before its frame are stored.
    told_lost : bool
        Whether a lost frame was logged already.
    alarm : str
        The last alarm, in one line.
    experiment : Experiment
        Energy and geometry, as far as they are known.
    published : float
        When it was last published what it says as a whole [s, monotonic].
    """

    uid: str
    finder: FrameFinder
    journal: RunJournal | None = None
    derived: str = ""
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    target: str = ""
    replaces: str = ""
    pending: list[tuple[Frame, float]] = field(default_factory=list[tuple[Frame, float]])
    tally: Tally = field(default_factory=Tally)
    last: Mask | None = None
    heard: float = 0.0
    heard_here: bool = False
    safe: int = 0
    waiting: tuple[int, bytes] | None = None
    told_lost: bool = False
    alarm: str = ""
    experiment: Experiment = field(default_factory=Experiment)
    published: float = 0.0

    def add(self, frame: Frame, arrived: float) -> None:
        """Take a frame; its mask comes later."""
        if frame.image is None and not self.told_lost:
            self.told_lost = True
            log.warning(
                "run %s: frame %d is lost: %s (further ones are only counted)",
                self.uid,
                frame.index,
                frame.fault,
            )
        self.pending.append((frame, arrived))
        self.tally.received += 1

    def count(self, masks: Sequence[Mask]) -> None:
        """Book the masks of a batch."""
        self.tally.count(masks)
        for mask in masks:
            self._tell(mask)
        self.last = masks[-1]

    def _tell(self, mask: Mask) -> None:
        """Write what the operator should know as lines of the log."""
        for alarm in mask.alarms:
            self.alarm = f"frame {alarm.index}: {alarm.text}"
            log.warning("run %s, %s", self.uid, self.alarm)
        for stage in mask.stages:
            if not stage.promoted:
                log.warning(
                    "run %s: the student of stage %d does not serve: %s",
                    self.uid,
                    stage.stage,
                    stage.reason,
                )

    def shown_in(self, vitals: Vitals, sink: Sink) -> Vitals:
        """Return vitals with the numbers of this run."""
        vitals = replace(
            vitals,
            run=self.uid,
            derived=sink.address(self.uid),
            received=self.tally.received,
            written=self.tally.written,
            refused=self.tally.refused.total(),
            lost=self.tally.lost,
            stored=sink.stored(self.uid),
            alarms=self.tally.alarms,
            alarm=self.alarm,
        )
        if (last := self.last) is None:
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

    def end(self, exit_status: str, reason: str, announced: int, sink: Sink) -> Account:
        """Return what became of all frames, and say it; see `Tally.account`."""
        account = self.tally.account(exit_status, reason, announced)
        level = logging.ERROR if account.imbalance else logging.INFO
        place = sink.address(self.uid) or "on their way"
        if not account.received:
            place = "none; no image was found (see frames.streams and frames.data_keys)"
        accounts.log(level, "run %s: %s; masks: %s", self.uid, account, place)
        return account


def refusal(frame: Frame, reason: str) -> Mask:
    """Return the row of a frame whose labelling failed: class 255, never zeros."""
    return Mask(
        frame=replace(frame, image=None),
        classes=np.full(frame.shape, ClassCode.INVALID, np.uint8),
        source="none",
        status="lost" if frame.image is None else "refused",
        reason=frame.fault or reason,
    )
