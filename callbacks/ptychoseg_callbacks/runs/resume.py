"""Where a run can be gone on with after its node has died: a checkpoint, beside its journal."""

import json
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

from ptychoseg_stream.errors import CheckpointError

from ..documents import decode, encode

VERSION = 2
_SUM = 9  # characters of the checksum in front


class RunJournal(Protocol):
    """What is kept of an open run on disk; `ptychoseg_callbacks.journals` has the real one."""

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

    def discard(self) -> None:
        """Forget the run: nobody can go on with it."""
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that is needed, beside the documents of a run, to go on from a frame.

    As bytes it is a line of text that says what it belongs to, and the rest behind it; each has a
    checksum of its own. So it is known whose rows are stored already when the rest is damaged.

    Parameters
    ----------
    next : int
        Index of the first frame to label; rows of those before it are stored.
    derived : str
        Uid of the derived run.
    settings : mapping of str to str
        What the run is labelled with; see `ptychoseg_stream.node.ports.RunInfo`.
    target : str
        Where its rows go.
    labeller : bytes
        What the labeller remembers; empty before the first frame.
    tally : dict
        Account of the frames before `next`.
    """

    next: int
    derived: str
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    target: str = ""
    labeller: bytes = b""
    tally: dict[str, Any] = field(default_factory=dict[str, Any])

    def pack(self) -> bytes:
        """Return it as bytes."""
        about = [VERSION, self.next, self.derived, dict(self.settings), self.target]
        body = encode([self.labeller, self.tally])
        return b"".join([_summed(json.dumps(about).encode()), b"\n", _summed(body)])

    @classmethod
    def unpack(cls, data: bytes) -> "Checkpoint":
        """Rebuild what `pack` gave.

        Raises
        ------
        CheckpointError
            If that is damaged, or was written by another version.
        """
        about = cls.about(data)
        try:
            labeller, tally = decode(_content(data.partition(b"\n")[2]))
            return replace(about, labeller=bytes(labeller), tally=dict(tally))
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"it is damaged: {type(error).__name__}: {error}") from error

    @classmethod
    def about(cls, data: bytes) -> "Checkpoint":
        """Return the first line only, without labeller and tally; the rest may be damaged.

        Raises
        ------
        CheckpointError
            If the line is damaged, or was written by another version.
        """
        try:
            version, *what = json.loads(_content(data.partition(b"\n")[0]))
            if version != VERSION:
                raise CheckpointError(f"it has version {version}, this is version {VERSION}")
            following, derived, settings, target = what
            uuid.UUID(derived)
            return cls(int(following), derived, dict(settings), str(target))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"it is damaged: {type(error).__name__}: {error}") from error


def _summed(data: bytes) -> bytes:
    return f"{zlib.crc32(data):08x} ".encode() + data


def _content(summed: bytes) -> bytes:
    if summed != _summed(summed[_SUM:]):
        raise ValueError("its checksum does not fit")
    return summed[_SUM:]


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
