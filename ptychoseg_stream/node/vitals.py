"""One immutable snapshot of how the node is doing: what progress bars and logs are made of."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """Where learning is: the last record of the trainer.

    Parameters
    ----------
    stage : int
        Stage being learned or last learned, from 0; -1 before the first.
    step, steps : int
        Training steps done and planned in this round of the stage.
    loss, iou : float
        Of the last step: training loss; ring IoU of the prediction with the pseudo-label.
    training : bool
        Whether a stage is being learned right now.
    fault : str
        Why the student of the last stage does not serve; empty if it does.
    round : int
        Round of refinement, from 1; 0 while the teacher's label is learned.
    """

    stage: int = -1
    step: int = 0
    steps: int = 0
    loss: float = float("nan")
    iou: float = float("nan")
    training: bool = False
    fault: str = ""
    round: int = 0

    def line(self) -> str:
        """Say it in one line: ``stage 2, round 1, step 7/20, loss 0.121, IoU 0.93``."""
        if self.stage < 0:
            return "not yet"
        if self.fault:
            return f"stage {self.stage} refused, the student before it serves: {self.fault}"
        refining = f", round {self.round}" if self.round else ""
        return (
            f"stage {self.stage}{refining}, step {self.step}/{self.steps}, "
            f"loss {self.loss:.3f}, IoU {self.iou:.3f}"
        )


@dataclass(frozen=True, slots=True)
class Vitals:
    """Counters of the run being processed (the last one while idle) and the state of the node.

    Parameters
    ----------
    run : str
        Uid of the raw run; empty before the first.
    derived : str
        Where its masks are: an address in Tiled, or the path of a file.
    open_runs : int
        Runs started and not yet stopped.
    received, written, refused, lost : int
        Frames of this run so far, as in `ptychoseg_stream.node.ports.Account`.
    backlog : int
        Documents and frames received and not yet labelled.
    index : int
        Index of the last labelled frame.
    source : str
        Which mask it got: teacher, student, fused, none.
    iou_to_teacher, latency_ms : float
        Of that frame.
    student_revision : int
        Student that serves; -1 for none.
    stored : int
        Rows known to be stored by the sink.
    verdict : str
        What the last labelled frame shows: annulus, disc, none, no beam.
    alarms : int
        Alarms raised in this run so far.
    alarm : str
        The last one, in one line; empty if there was none.
    progress : Progress
        Where learning is.
    fault : str
        Last thing that went wrong, in one line; empty if nothing did.
    """

    run: str = ""
    derived: str = ""
    open_runs: int = 0
    received: int = 0
    written: int = 0
    refused: int = 0
    lost: int = 0
    backlog: int = 0
    index: int = -1
    source: str = "none"
    iou_to_teacher: float = float("nan")
    latency_ms: float = float("nan")
    student_revision: int = -1
    stored: int = 0
    verdict: str = ""
    alarms: int = 0
    alarm: str = ""
    progress: Progress = Progress()
    fault: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, fit for msgpack or JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Vitals":
        """Rebuild what `to_dict` made."""
        values = dict(data)
        values["progress"] = Progress(**values["progress"])
        return cls(**values)
