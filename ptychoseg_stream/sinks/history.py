"""Rows already stored, kept small, in case the run has to be written somewhere else after all."""

import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..science.frame import ClassMap
from .rows import Row

BATCH = 64


class History:
    """The last rows of a run, with class maps compressed (about a tenth of their size, or less).

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
            maps = {"": row.mask.classes, **row.mask.alternatives}
            packed = {name: zlib.compress(classes.tobytes(), 1) for name, classes in maps.items()}
            # The shape survives as a broadcast single byte.
            hollow = {name: _hollow(classes) for name, classes in maps.items()}
            mask = replace(row.mask, classes=hollow.pop(""), alternatives=hollow)
            self._kept.append((Row(mask, row.time), packed))
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
        maps = {"": row.mask.classes, **row.mask.alternatives}
        full = {
            name: np.frombuffer(zlib.decompress(packed[name]), np.uint8).reshape(hollow.shape)
            for name, hollow in maps.items()
        }
        return Row(replace(row.mask, classes=full.pop(""), alternatives=full), row.time)


def _hollow(classes: ClassMap) -> ClassMap:
    return np.broadcast_to(np.uint8(0), classes.shape)


def _size(packed: dict[str, bytes]) -> int:
    return 512 + sum(map(len, packed.values()))  # a row itself takes about half a kilobyte
