"""Where the frames of an HDF5 dataset are: in its file, in raw files, in sources of a virtual one.

Other files are opened by HDF5 while it reads, without asking; those that are missing read as zeros.
So each is checked before the frames that come from it are read.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from h5py import h5d, h5f, h5s

from ptychoseg_stream.errors import DatasetError

from .chunks import Chunks, leading_index
from .hdf5_open import OpenDataset, led_to, open_dataset
from .options import ReaderOptions
from .paths import Fence

_MOST_SOURCES = 2**16
_DEEPEST = 4  # virtual datasets of virtual datasets
_MOST_OPEN = 16  # sources
_UNLIMITED = h5s.UNLIMITED


class Storage(Protocol):
    """Knows which frames are there; `stored` raises `DatasetError` for what must not be read."""

    def stored(self, first: int, last: int) -> int:
        """Return how many frames from `first` on, before `last`, are stored without a gap."""
        ...


def storage_of(
    opened: OpenDataset, where: str, fence: Fence, options: ReaderOptions, depth: int = 0
) -> Storage:
    """Return where the frames of a dataset are; its shape was not asked for yet.

    Raises
    ------
    DatasetError
        When they are outside of what may be read, or their chunks are too large.
    OSError
        When another file is not there (yet).
    """
    layout = opened.dataset.id.get_create_plist().get_layout()
    if layout == h5d.VIRTUAL:
        return _Virtual(opened, where, fence, options, depth)
    if opened.dataset.external:
        _check_raw_files(opened, where, fence)
    return Chunks(opened.dataset, where, options.max_read_bytes)


def _check_raw_files(opened: OpenDataset, where: str, fence: Fence) -> None:
    for name, offset, size in opened.dataset.external or ():
        path = led_to(name, opened.path)
        fence.check_led(path, opened.path)
        if size != h5f.UNLIMITED and Path(path).stat().st_size < offset + size:
            raise OSError(f"{path}, which holds the data of {where}, is shorter than it should be")


@dataclass(frozen=True, slots=True)
class _Slab:
    """Which places along axis 0 are selected: `count` blocks of `block`, `stride` apart."""

    start: int
    stride: int
    count: int
    block: int

    def __len__(self) -> int:
        return self.count * self.block if self.is_limited else 0

    @property
    def is_limited(self) -> bool:
        return _UNLIMITED not in (self.count, self.block)

    def order(self, place: int) -> int:
        """Return as which of the selected a place comes; -1 if it is not selected."""
        turn, rest = divmod(place - self.start, self.stride)
        if self.count == 1:  # whatever the stride
            turn, rest = 0, place - self.start
        if not (0 <= turn < self.count and 0 <= rest < self.block):
            return -1
        return turn * self.block + rest

    def place(self, order: int) -> int:
        """Return the place of the n-th selected."""
        turn, rest = divmod(order, self.block)
        return self.start + turn * self.stride + rest


@dataclass(frozen=True, slots=True)
class _Source:
    """One mapping of a virtual dataset."""

    file: str
    name: str
    to: _Slab
    taken: _Slab | None  # None: not row by row
    ends: tuple[int, ...]  # per axis, the last place that is taken; () if it grows

    def taken_row(self, row: int) -> int:
        """Return the row of the source behind a row; -1: another source, -2: all of its rows."""
        order = self.to.order(row)
        if order < 0:
            return -1
        return -2 if self.taken is None else self.taken.place(order)


class _Virtual:
    def __init__(
        self, opened: OpenDataset, where: str, fence: Fence, options: ReaderOptions, depth: int
    ) -> None:
        self._opened = opened
        self._where = where
        self._fence = fence
        self._options = options
        self._depth = depth
        if depth >= _DEEPEST:
            raise DatasetError(f"{where} is a virtual dataset of too many others: do they circle?")
        self._sources = list(self._mappings())
        for source in self._sources:
            # HDF5 looks into growing sources as soon as it is asked for the shape.
            if not source.to.is_limited:
                self._open(source).close()

    def stored(self, first: int, last: int) -> int:
        shape = self._opened.dataset.shape
        done = -1
        with _OpenSources(self._open) as opened:
            for frame in range(first, last):
                row = leading_index(frame, shape)[0] if len(shape) > 2 else 0
                if row != done and not self._has(row, opened):
                    return frame - first
                done = row
        return last - first

    def _has(self, row: int, opened: "_OpenSources") -> bool:
        """Say whether all sources of a row hold it; none at all would read as zeros."""
        parts = [(source, source.taken_row(row)) for source in self._sources]
        parts = [part for part in parts if part[1] != -1]
        return bool(parts) and all(self._holds(source, n, opened.of(source)) for source, n in parts)

    def _holds(self, source: _Source, row: int, opened: OpenDataset) -> bool:
        where = f"{opened.path}:{source.name}"
        storage = storage_of(opened, where, self._fence, self._options, self._depth + 1)
        shape = opened.dataset.shape
        if any(end >= side for end, side in zip(source.ends[1:], shape[1:], strict=False)):
            return False
        if len(shape) == 2:
            return storage.stored(0, 1) == 1
        # Where axes do not correspond, all that is taken of the source must be there.
        rows = range(source.ends[0] + 1 if source.ends else shape[0])
        if row >= 0 and len(shape) == len(self._opened.dataset.shape):
            rows = range(row, row + 1)
        if rows.stop > shape[0]:
            return False
        per = math.prod(shape[1:-2])
        return storage.stored(rows.start * per, rows.stop * per) == len(rows) * per

    def _open(self, source: _Source) -> OpenDataset:
        path = self._opened.path if source.file == "." else led_to(source.file, self._opened.path)
        self._fence.check_led(path, self._opened.path)
        return open_dataset(
            path, source.name, self._fence, self._options.locking, external_links=False
        )

    def _mappings(self) -> Iterator[_Source]:
        plist = self._opened.dataset.id.get_create_plist()
        if (count := plist.get_virtual_count()) > _MOST_SOURCES:
            raise DatasetError(f"{self._where} is a virtual dataset of {count} parts: too many")
        for n in range(count):
            file, name = plist.get_virtual_filename(n), plist.get_virtual_dsetname(n)
            if "%" in file or "%" in name:
                raise DatasetError(
                    f"{self._where} is a virtual dataset of sources {file}:{name} by a pattern, "
                    "which is not read: name the sources one by one"
                )
            to, taken = plist.get_virtual_vspace(n), plist.get_virtual_srcspace(n)
            yield _source(os.fsdecode(file), name, to, taken)


class _OpenSources:
    """Sources that stay open while frames are looked for; a few at a time."""

    def __init__(self, open_source: Callable[[_Source], OpenDataset]) -> None:
        self._open_source = open_source
        self._opened: dict[_Source, OpenDataset] = {}

    def __enter__(self) -> Self:
        return self

    def of(self, source: _Source) -> OpenDataset:
        if source not in self._opened:
            if len(self._opened) >= _MOST_OPEN:
                self._close()
            self._opened[source] = self._open_source(source)
        return self._opened[source]

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        while self._opened:
            self._opened.popitem()[1].close()


def _source(file: str, name: str, to: Any, taken: Any) -> _Source:
    slab = _slab(to)
    if taken.get_select_type() == h5s.SEL_ALL:  # all of the source, of whatever shape it is
        return _Source(file, name, slab, _Slab(0, 1, 1, slab.block * slab.count), ())
    part = _slab(taken)
    limited = slab.is_limited and part.is_limited
    ends = tuple(taken.get_select_bounds()[1]) if limited else ()
    row_by_row = not limited or len(slab) == len(part)
    return _Source(file, name, slab, part if row_by_row else None, ends)


def _slab(space: Any) -> _Slab:
    if space.get_select_type() == h5s.SEL_ALL:
        return _Slab(0, 1, 1, space.shape[0])
    if not space.is_regular_hyperslab():
        first, last = (corner[0] for corner in space.get_select_bounds())
        return _Slab(first, 1, 1, last - first + 1)
    return _Slab(*(int(axes[0]) for axes in space.get_regular_hyperslab()))
