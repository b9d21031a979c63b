"""The Protocols that the rim fulfils, and what passes through them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from ..science.experiment import Experiment, Positions
from ..science.frame import Frame, Mask
from ..science.products import RunProducts
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
    derived : str
        Uid that the derived run gets; empty: the sink chooses one.
    began : float
        When the derived run began [s since the epoch]; 0: now.
    resumed : bool
        Whether an earlier process began this derived run. The first rows are then stored already,
        and may come again: those are left out.
    settings : mapping of str to str
        What must be the same for a derived run to be gone on with, part by part: digests. Not
        stored.
    target : str
        Where its rows go, without a key; must be the same, too. Not stored.
    experiment : Experiment
        Energy and geometry, as far as start document and profile tell.
    """

    uid: str
    start: Mapping[str, Any]
    processing: Mapping[str, Any]
    derived: str = ""
    began: float = 0.0
    resumed: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    experiment: Experiment = field(default_factory=Experiment)


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
    announced : int
        Frames that the raw run itself counts, at its end; -1 when nobody knows.
    refilled : int
        Frames whose documents or images were not received, and had from elsewhere.
    retaken : int
        Frames that took a point of the scan again.
    teacher_only : int
        Frames labelled by the teacher alone, because they came too fast.
    """

    received: int = 0
    written: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    lost: int = 0
    exit_status: str = "success"
    reason: str = ""
    verdicts: Mapping[str, int] = field(default_factory=dict)
    alarms: int = 0
    announced: int = -1
    refilled: int = 0
    retaken: int = 0
    teacher_only: int = 0

    def __str__(self) -> str:
        """Return it as one line."""
        refused = sum(self.refused.values())
        line = (
            f"{self.received} frames received = {self.written} written + {refused} refused + "
            f"{self.lost} lost"
        )
        notes = {
            "refilled": self.refilled,
            "taken again": self.retaken,
            "by the teacher only": self.teacher_only,
        }
        of_them = ", ".join(f"{count} {what}" for what, count in notes.items() if count)
        line += f" ({of_them})" if of_them else ""
        return f"{line}: it does not balance: {self.imbalance}" if self.imbalance else line

    @property
    def imbalance(self) -> str:
        """Why the account does not balance; empty if it does."""
        told = self.written + sum(self.refused.values()) + self.lost
        if told != self.received:
            return f"{self.received} frames were received, and what became of {told} is known"
        if self.announced >= 0 and self.announced != self.received:
            return f"the raw run counts {self.announced} frames, {self.received} were received"
        return ""

    @property
    def verdict(self) -> str:
        """What the run shows: what most of its frames do; empty without frames."""
        return max(self.verdicts, key=lambda name: self.verdicts[name], default="")


@dataclass(frozen=True, slots=True, eq=False)
class Products:
    """What a run says as a whole, so far.

    Parameters
    ----------
    of_frames : RunProducts
        What its frames say together.
    positions : ndarray of float64
        ``(n, 2)`` where the probe was at each frame, y and x [m]; NaN where that is not known.
    experiment : Experiment
        Energy and geometry, as far as they are known.
    final : bool
        Whether the run is over.
    """

    of_frames: RunProducts
    positions: Positions
    experiment: Experiment
    final: bool = False


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

    def publish(self, run_uid: str, products: Products) -> None:
        """Take what an open run says as a whole; in place of what it said before."""
        ...

    def close(self, run_uid: str, account: Account) -> None:
        """End a run; its account goes into the stop document."""
        ...

    def stored(self, run_uid: str) -> int:
        """How many rows of a run are safe: in Tiled, or synced to this machine's disk."""
        ...

    def settled(self, run_uid: str) -> bool:
        """Whether all that was given of a run, its end included, is safe; True if unknown."""
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


class Feed(Protocol):
    """Hears of every frame with its mask, as soon as it is labelled. Calls come from one thread.

    No method blocks or raises: a feed that cannot deliver says so in the log.
    """

    def open(self, run: RunInfo) -> None:
        """Begin a run, or go on with one that an earlier process began (`RunInfo.resumed`)."""
        ...

    def send(self, run_uid: str, frames: Sequence[Frame], masks: Sequence[Mask]) -> None:
        """Take the next frames of a run, with their images, and their masks."""
        ...

    def publish(self, run_uid: str, products: Products) -> None:
        """Take what a run says as a whole so far; positions may have become known."""
        ...

    def close(self, run_uid: str, account: Account) -> None:
        """End a run."""
        ...

    def told(self, run_uid: str) -> int:
        """How many frames of a run are kept for who listens; very many if none are to be kept."""
        ...

    def shutdown(self) -> None:
        """Release threads and sockets."""
        ...


class Labeller(Protocol):
    """What turns frames into masks; `ptychoseg_stream.node.node.Node` is the real one."""

    def open(self, run_uid: str, checkpoint: bytes = b"") -> None:
        """Begin a run, or go on where `checkpoint` was taken.

        Raises
        ------
        CheckpointError
            If the checkpoint is damaged or of another version.
        """
        ...

    def checkpoint(self, run_uid: str) -> bytes:
        """Return what is remembered of a run, so that another process can go on bit by bit."""
        ...

    def process(self, frames: Sequence[Frame]) -> list[Mask]:
        """Label a micro-batch of one run, in order; never raises for a bad frame.

        The result does not depend on how frames are cut into batches.
        """
        ...

    def products(self, run_uid: str) -> RunProducts | None:
        """Return what the frames of a run say together; None before the first mask."""
        ...

    def close(self, run_uid: str) -> None:
        """Forget what is remembered of a run."""
        ...

    def progress(self) -> Progress:
        """Where learning is."""
        ...


class RawStore(Protocol):
    """Where raw runs are kept: the truth, when a stream of documents has lost something.

    No method raises for a run that is not there, or a store that does not answer: it returns
    nothing, and says so in the log.
    """

    def start_of(self, uid: str) -> Mapping[str, Any] | None:
        """Return the start document of the run that has this uid, or a descriptor of this uid."""
        ...

    def notes_of(self, run_uid: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """Return descriptors and (stream) resources of a run, in an order that can be replayed."""
        ...

    def stop_of(self, run_uid: str) -> Mapping[str, Any] | None:
        """Return the stop document of a run, if it has one by now."""
        ...

    def read(
        self, run_uid: str, stream: str, data_key: str, first: int, last: int
    ) -> NDArray[Any] | None:
        """Return frames [first, last) or the first of them, ``(n, H, W)``; None if it has none."""
        ...

    def count(self, run_uid: str, stream: str, data_key: str) -> int:
        """Return how many frames of a key are stored; -1 if nobody knows."""
        ...
