"""What is remembered of an open run: the frames that wait, and the account of the others."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ptychoseg_stream.node.ports import Account
from ptychoseg_stream.science.frame import ClassCode, Frame, Mask

from .frames import FrameFinder

log = logging.getLogger(__name__)


MOST_KINDS = 20
"""Kinds of refusal counted apart: the stop document must not grow with the run."""


def kind_of(reason: str) -> str:
    """Return what refusals of one kind have in common: the text before the details.

    The table holds each reason in full; a key of the stop document may have no dots.
    """
    head = re.split(r"[:;(]", reason, maxsplit=1)[0].strip()
    return re.sub(r"\d+([.]\d+)?%?", "some", head).replace(".", " ")[:80] or "no reason given"


@dataclass(slots=True)
class OpenRun:
    """A run between its start and stop documents.

    Parameters
    ----------
    uid : str
        Of the raw run.
    finder : FrameFinder
        Finds its frames.
    pending : list of (Frame, float)
        Frames that wait for a full batch, and when their documents arrived [s since the epoch].
    received, written, lost, refused
        As in `ptychoseg_stream.node.ports.Account`.
    last : Mask, optional
        The newest mask.
    told_lost : bool
        Whether a lost frame was logged already.
    verdicts
        Frames by what they show.
    alarms : int
        Alarms raised so far.
    alarm : str
        The last one, in one line.
    """

    uid: str
    finder: FrameFinder
    pending: list[tuple[Frame, float]] = field(default_factory=list[tuple[Frame, float]])
    received: int = 0
    written: int = 0
    lost: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])
    last: Mask | None = None
    told_lost: bool = False
    verdicts: Counter[str] = field(default_factory=Counter[str])
    alarms: int = 0
    alarm: str = ""

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
        self.received += 1

    def count(self, masks: Sequence[Mask]) -> None:
        """Book the masks of a batch."""
        for mask in masks:
            if mask.status == "ok":
                self.written += 1
            elif mask.status == "lost":
                self.lost += 1
            else:
                self._refuse(mask.reason)
            if mask.status != "lost":
                self.verdicts[mask.verdict] += 1
            self._tell(mask)
        self.last = masks[-1]

    def _tell(self, mask: Mask) -> None:
        """Write what the operator should know as lines of the log."""
        for alarm in mask.alarms:
            self.alarms += 1
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

    def _refuse(self, reason: str) -> None:
        kind = kind_of(reason)
        known = kind in self.refused or len(self.refused) < MOST_KINDS
        self.refused[kind if known else "other reasons"] += 1

    def account(self, exit_status: str, reason: str) -> Account:
        """Return what became of all frames."""
        return Account(
            self.received,
            self.written,
            dict(self.refused),
            self.lost,
            exit_status,
            reason,
            dict(self.verdicts),
            self.alarms,
        )


def refusal(frame: Frame, reason: str) -> Mask:
    """Return the row of a frame whose labelling failed: class 255, never zeros."""
    return Mask(
        frame=replace(frame, image=None),
        classes=np.full(frame.shape, ClassCode.INVALID, np.uint8),
        source="none",
        status="lost" if frame.image is None else "refused",
        reason=frame.fault or reason,
    )
