"""The Protocols that the rim fulfils, and what passes through them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from ..science.frame import Frame, Mask
from .vitals import Progress

Clock: TypeAlias = Callable[[], float]  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a sink learns when a raw run begins.

    Parameters
    ----------
    uid : str
        Uid of the raw run.
    start : mapping
        Its start document.
    processing : mapping
        Profile name, software versions, options and their digest: goes into the derived start.
    """

    uid: str
    start: Mapping[str, Any]
    processing: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the frames of a run: received = written + refused + lost.

    Parameters
    ----------
    received : int
        Frames the documents announced.
    written : int
        Frames with a mask (status "ok").
    refused : mapping of str to int
        Frames with a row of class 255, by reason.
    lost : int
        Frames that could not be read.
    exit_status, reason : str
        As in the raw run's stop document.
    verdicts : mapping of str to int
        Frames by what they show, those that were lost left out.
    alarms : int
        Alarms raised during the run.
    """

    received: int = 0
    written: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    lost: int = 0
    exit_status: str = "success"
    reason: str = ""
    verdicts: Mapping[str, int] = field(default_factory=dict)
    alarms: int = 0

    @property
    def verdict(self) -> str:
        """What the run shows: what most of its frames do; empty without frames."""
        return max(self.verdicts, key=lambda name: self.verdicts[name], default="")


class Sink(Protocol):
    """Where masks go. Calls come from one thread, in order; none of them may block on a network.

    Rows of a run may arrive in batches of any size; row i of what is stored is frame index i.
    """

    def open(self, run: RunInfo) -> None:
        """Begin a run."""
        ...

    def write(self, run_uid: str, masks: Sequence[Mask]) -> None:
        """Take the next masks of a run, in order of their index."""
        ...

    def close(self, run_uid: str, account: Account) -> None:
        """End a run; its account goes into the stop document."""
        ...

    def stored(self, run_uid: str) -> int:
        """How many rows of a run are known to be stored."""
        ...

    def address(self, run_uid: str) -> str:
        """Where the masks of a run are to be found (a Tiled URI, a path, ...); empty if unknown."""
        ...

    def fault(self) -> str:
        """Last thing that went wrong, in one line; empty if nothing did."""
        ...

    def drain(self, timeout: float) -> bool:
        """Wait until all that was given is stored; False if that took longer than `timeout` [s]."""
        ...

    def shutdown(self) -> None:
        """Store what is left and release threads and connections."""
        ...


class Labeller(Protocol):
    """What turns frames into masks; `ptychoseg_stream.node.node.Node` is the real one."""

    def open(self, run_uid: str) -> None:
        """Begin a run."""
        ...

    def process(self, frames: Sequence[Frame]) -> list[Mask]:
        """Label a micro-batch of one run, in order; never raises for a bad frame.

        The result does not depend on how frames are cut into batches.
        """
        ...

    def close(self, run_uid: str) -> None:
        """Forget what is remembered of a run."""
        ...

    def progress(self) -> Progress:
        """Where learning is."""
        ...
