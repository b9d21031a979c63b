"""Where a run can be gone on with after its node has died: a checkpoint, beside its journal."""

import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeAlias

from ptychoseg_stream.errors import CheckpointError

from .documents import decode, encode

VERSION = 1
_SUM = 4  # bytes of the checksum in front


class RunJournal(Protocol):
    """What is kept of an open run on disk; `ptychoseg_callbacks.journal.Journal` is the real."""

    derived: str
    """Uid of the derived run."""
    began: float
    """When that began [s since the epoch]."""
    resumed: bool
    """Whether an earlier process began it."""

    def load_checkpoint(self) -> bytes:
        """Return what was saved last; empty if nothing was."""
        ...

    def save_checkpoint(self, data: bytes) -> None:
        """Write a checkpoint, whole or not at all."""
        ...

    def finish(self) -> None:
        """Forget the run: all of it is stored."""
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that is needed, beside the documents of a run, to go on from a frame.

    Parameters
    ----------
    next : int
        Index of the first frame to label; rows of those before it are stored.
    derived : str
        Uid of the derived run.
    digest : str
        Of the options the run is labelled with.
    labeller : bytes
        What the labeller remembers; empty before the first frame.
    tally : dict
        Account of the frames before `next`.
    """

    next: int
    derived: str
    digest: str
    labeller: bytes = b""
    tally: dict[str, Any] = field(default_factory=dict[str, Any])

    def pack(self) -> bytes:
        """Return it as bytes."""
        body = encode({"version": VERSION, **asdict(self)})
        return zlib.crc32(body).to_bytes(_SUM, "little") + body

    @classmethod
    def unpack(cls, data: bytes) -> "Checkpoint":
        """Rebuild what `pack` gave.

        Raises
        ------
        CheckpointError
            If that is damaged, or was written by another version.
        """
        try:
            if zlib.crc32(data[_SUM:]) != int.from_bytes(data[:_SUM], "little"):
                raise ValueError("its checksum does not fit")
            values = dict(decode(data[_SUM:]))
            version = values.pop("version")
            if version != VERSION:
                raise CheckpointError(f"it has version {version}, this is version {VERSION}")
            return cls(**values)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CheckpointError(f"it is damaged: {type(error).__name__}: {error}") from error


Safe: TypeAlias = Callable[[str, int], bool]
"""``safe(run, rows)``: whether the first `rows` rows of a run (all of it: `ENDED`) are safe."""

ENDED = -1


@dataclass(slots=True)
class _Receipt:
    number: int
    rows: dict[str, int]  # by run


class Receipts:
    """Tells up to which document all rows are safe.

    Parameters
    ----------
    most : int
        So many documents are remembered apart; beyond it, they are told together.
    """

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._open: deque[_Receipt] = deque()
        self._stored = 0

    def add(self, number: int, run: str, rows: int) -> None:
        """Note a document that was processed: its run has `rows` rows by then, or has `ENDED`."""
        if number <= 0:
            return
        last = self._open[-1] if self._open else None
        same = last is not None and last.rows == {run: rows}
        if last is not None and (same or len(self._open) >= self._most):
            last.number = number
            last.rows[run] = rows
        else:
            self._open.append(_Receipt(number, {run: rows}))

    def stored(self, safe: Safe) -> int:
        """Return the number of the last document such that all up to it are safe."""
        while self._open and all(safe(*each) for each in self._open[0].rows.items()):
            self._stored = self._open.popleft().number
        return self._stored
