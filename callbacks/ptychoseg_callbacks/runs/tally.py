"""Counts what becomes of the frames of a run."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ptychoseg_stream.node.ports import Account
from ptychoseg_stream.science.frame import Mask

MOST_KINDS = 20
"""Kinds of refusal counted apart: the stop document must not grow with the run."""


def kind_of(reason: str) -> str:
    """Return what refusals of one kind have in common: the text before the details.

    The table holds each reason in full; a key of the stop document may have no dots.
    """
    head = re.split(r"[:;(]", reason, maxsplit=1)[0].strip()
    return re.sub(r"\d+([.]\d+)?%?", "some", head).replace(".", " ")[:80] or "no reason given"


@dataclass(slots=True)
class Tally:
    """The account of a run while it grows; fields as in `ptychoseg_stream.node.ports.Account`."""

    received: int = 0
    written: int = 0
    lost: int = 0
    alarms: int = 0
    refilled: int = 0
    retaken: int = 0
    teacher_only: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])
    verdicts: Counter[str] = field(default_factory=Counter[str])

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Tally":
        """Rebuild what `plain` gave."""
        numbers = {name: int(data[name]) for name in _NUMBERS}
        return cls(**numbers, refused=Counter(data["refused"]), verdicts=Counter(data["verdicts"]))

    def plain(self) -> dict[str, Any]:
        """Return plain numbers and texts, fit for msgpack."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return {**numbers, "refused": dict(self.refused), "verdicts": dict(self.verdicts)}

    def count(self, masks: Sequence[Mask]) -> None:
        """Book masks; `received` is counted where frames come in."""
        for mask in masks:
            if mask.status == "ok":
                self.written += 1
            elif mask.status == "lost":
                self.lost += 1
            else:
                self._refuse(mask.reason)
            if mask.status != "lost":
                self.verdicts[mask.verdict] += 1
            self.alarms += len(mask.alarms)
            self.refilled += bool(mask.frame.refilled)
            self.retaken += mask.frame.attempt > 0
            self.teacher_only += mask.frame.teacher_only

    def _refuse(self, reason: str) -> None:
        kind = kind_of(reason)
        known = kind in self.refused or len(self.refused) < MOST_KINDS
        self.refused[kind if known else "other reasons"] += 1

    def account(self, exit_status: str, reason: str, announced: int = -1) -> Account:
        """Return what became of all frames.

        Parameters
        ----------
        exit_status, reason : str
            As the raw run ended.
        announced : int
            Frames that the raw run counts; -1 if nobody knows.
        """
        return Account(
            received=self.received,
            written=self.written,
            refused=dict(self.refused),
            lost=self.lost,
            exit_status=exit_status,
            reason=reason,
            verdicts=dict(self.verdicts),
            alarms=self.alarms,
            announced=announced,
            refilled=self.refilled,
            retaken=self.retaken,
            teacher_only=self.teacher_only,
        )


_NUMBERS = ("received", "written", "lost", "alarms", "refilled", "retaken", "teacher_only")
