"""Rows already stored, kept small, in case the run has to be written somewhere else after all."""

import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..science.frame import Mask
from .arrays import CONFIDENCE, Pixels
from .arrays import VALID_BITS as BITS
from .rows import Row

BATCH = 64
ROW = 2048  # what a row takes beside its pixels [bytes], about


class History:
    """The last rows of a run, with arrays compressed (class maps and bits to about a thirtieth).

    Parameters
    ----------
    limit : int
        Most it may hold [bytes]; the oldest rows go first.

    Attributes
    ----------
    dropped : int
        Rows that had to go.
    """

    def __init__(self, limit: int) -> None:
        self.dropped = 0
        self._limit = limit
        self._size = 0
        self._kept: deque[tuple[Row, dict[str, bytes]]] = deque()

    def add(self, rows: Sequence[Row]) -> None:
        """Remember rows."""
        for row in rows:
            arrays = _arrays(row.mask)
            packed = {name: zlib.compress(array.tobytes(), 1) for name, array in arrays.items()}
            # Shape and type survive as a broadcast single pixel.
            hollow = {name: _hollow(array) for name, array in arrays.items()}
            self._kept.append((_with(row, hollow), packed))
            self._size += _size(packed)
        while self._size > self._limit and self._kept:
            self._size -= _size(self._kept.popleft()[1])
            self.dropped += 1

    def batches(self) -> Iterator[list[Row]]:
        """Yield what is remembered, oldest first, and forget it."""
        while self._kept:
            yield [self._unpack() for _ in range(min(BATCH, len(self._kept)))]

    def _unpack(self) -> Row:
        row, packed = self._kept.popleft()
        self._size -= _size(packed)
        full = {
            name: np.frombuffer(zlib.decompress(packed[name]), hollow.dtype).reshape(hollow.shape)
            for name, hollow in _arrays(row.mask).items()
        }
        return _with(row, full)


def _arrays(mask: Mask) -> dict[str, Pixels]:
    """Return all arrays of a mask, by names that tell their field."""
    arrays = {"": mask.classes, BITS: mask.valid_bits, CONFIDENCE: mask.confidence}
    found = {name: array for name, array in arrays.items() if array is not None}
    return found | dict(mask.alternatives)


def _with(row: Row, arrays: dict[str, Pixels]) -> Row:
    """Return the row with the arrays that `_arrays` gave, in another form."""
    others = dict(arrays)
    mask = replace(
        row.mask,
        classes=others.pop(""),
        valid_bits=others.pop(BITS, None),
        confidence=others.pop(CONFIDENCE, None),
        alternatives=others,
    )
    return Row(mask, row.time)


def _hollow(array: Pixels) -> Pixels:
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def _size(packed: dict[str, bytes]) -> int:
    return ROW + sum(map(len, packed.values()))
