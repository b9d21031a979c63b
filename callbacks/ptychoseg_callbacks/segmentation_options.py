"""How documents become masks: groups of frames, limits, times."""

from dataclasses import dataclass, field

from .frames.options import FinderOptions


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
    idle_timeout : float
        A run whose documents stay away for so long is closed as failed [s]; time in which any
        document waits to be processed does not count.
    checkpoint_frames : int
        Most frames to label again after a restart, about.
    products_every : float
        Time between two looks at what a run says as a whole [s]; the last comes at its end.
    """

    finder: FinderOptions = field(default_factory=FinderOptions)
    batch: int = 8
    max_open_runs: int = 16
    idle_timeout: float = 86400.0
    checkpoint_frames: int = 256
    products_every: float = 5.0
