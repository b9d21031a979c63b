"""What is remembered of a run between two frames: all that a checkpoint holds, beside the trainer.

Whatever the walk of the next frame depends on has its place here, with a declared type.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..science.background import Background
from ..science.drift import Monitors
from ..science.fusion import Fusion
from ..science.learning import Student
from ..science.records import Alarm
from ..science.som import Centroids
from ..science.totals import Totals
from ..science.track import BeamTracker
from ..science.validity import PixelHistory
from ..science.window import Window
from .ladder import Ladder
from .options import NodeOptions
from .store import Known


@dataclass(slots=True, eq=False)
class RunState:
    """The memory of one run, changed frame by frame.

    Parameters
    ----------
    ladder : Ladder
        Mean, reference, and the frames that are learned from.
    tracker : BeamTracker
    monitors : Monitors
    fusion : Fusion
    shape : tuple of int or None
        ``(H, W)`` of the frames of the run; None before the first.
    window : Window or None
        Part of the frame that is looked at; None: the next frame chooses.
    history : PixelHistory or None
    background : Background or None
    totals : Totals or None
        What all frames add up to; None before the first.
    centroids : Centroids or None
        That this run uses; None before it fitted or found them.
    known : tuple of Known or None
        Those it may find: that there were when it began. None: whatever there is now.
    usual : ndarray of float64
        ``(m,)`` hits of the prototypes, summed over the good frames.
    student : Student or None
        That serves.
    alarms : list of Alarm
        Raised, and not yet told with a mask.
    """

    ladder: Ladder
    tracker: BeamTracker
    monitors: Monitors
    fusion: Fusion
    shape: tuple[int, int] | None = None
    window: Window | None = None
    history: PixelHistory | None = None
    background: Background | None = None
    totals: Totals | None = None
    centroids: Centroids | None = None
    known: tuple[Known, ...] | None = None
    usual: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    student: Student | None = None
    alarms: list[Alarm] = field(default_factory=list)

    @classmethod
    def begin(cls, options: NodeOptions, known: tuple[Known, ...] | None = None) -> "RunState":
        """Return the memory of a run that has had no frame."""
        return cls(
            Ladder(options),
            BeamTracker(),
            Monitors(options.drift),
            Fusion(options.fusion, options.teacher.edge_level),
            known=known,
        )

    def leave(self, options: NodeOptions, index: int) -> None:
        """Forget the beam that is followed: from frame `index` on it is looked for elsewhere."""
        self.window = None
        self.ladder = Ladder(options, index)
        self.tracker = BeamTracker()
        self.monitors = Monitors(options.drift)
        self.fusion.forget()

    def misfit(self) -> str:
        """Say which parts are not of the same size, so not of one run; empty if they are."""
        sizes = {
            "the window": self.window.shape if self.window else None,
            "the pixel history": self.history.shape if self.history else None,
            "the background": self.background.mean.shape if self.background else None,
            "what the frames add up to": self.totals.shape if self.totals else None,
        }
        wrong = [f"{k} is of {v}" for k, v in sizes.items() if v is not None and v != self.shape]
        return f"frames are {self.shape}, {' and '.join(wrong)}" if wrong else ""
