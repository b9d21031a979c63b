"""The HDF5 file of one derived run.

::

    /                attributes: class_codes, bit_legend (JSON), raw_run
    /start, /stop    documents (JSON)
    /mask            (N, H, W) uint8, chunked, compressed; row i is frame i of the raw run
    /valid_bits ...  other arrays, where there are any
    /internal/...    one dataset of N values per column of the table
    /alarms/...      one dataset per column, one value per alarm; there once there is one
    /stages/...      the same, one value per stage
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..science.frame import bit_legend, legend
from .arrays import ARRAYS, stack
from .columns import schema
from .derived import STREAM, TABLE, Derived, raw_metadata
from .rows import NEVER_ANNOUNCED, Row, Shape, fitted, lost_row, run_shape, table, table_schema
from .side_tables import SIDE_TABLES, Entry, Journal, side_table

ELSEWHERE = "in Tiled, not in this file"
"""The reason of rows in the file of a run whose beginning Tiled took."""
CHUNK = 16
BLOCK = 256  # values per chunk of a column
TEXT = h5py.string_dtype()
DTYPES = {"bool": np.bool_, "int64": np.int64, "double": np.float64, "string": TEXT}


class RunFile:
    """Takes rows in any order and puts each where its frame index says.

    The file is opened for each batch and closed after it, so that what was written outlives a
    crash.

    Parameters
    ----------
    path : Path
        File to make.
    derived : Derived
        The run.
    arrays : sequence of str
        Names of the arrays to store.

    Attributes
    ----------
    rows : int
        Rows written.

    Raises
    ------
    OSError
        Any method: if the disk does not take it.
    """

    def __init__(self, path: Path, derived: Derived, arrays: Sequence[str]) -> None:
        self.path = path
        self.rows = 0
        self.elsewhere = 0  # first rows that are not in this file, because they are in Tiled
        self._derived = derived
        self._arrays = tuple(arrays)
        self._shape: Shape | None = None
        self._last: Row | None = None
        self._journal = Journal()
        self._written: dict[str, int] = {}  # entries in the file, by side table
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file.attrs["class_codes"] = json.dumps(legend())
            file.attrs["bit_legend"] = json.dumps(bit_legend())
            file.attrs["raw_run"] = derived.raw.uid
            # A dataset, since an attribute holds 64 kB at most.
            file.create_dataset("start", data=json.dumps(derived.start()), dtype=TEXT)
            _columns_for(file.create_group(TABLE), table_schema(self._arrays))
        _sync(path)

    def append(self, rows: Sequence[Row], *, last: bool = False) -> bool:
        """Write rows; False if no frame had a size yet, and nothing was written."""
        if self._shape is None:
            self._shape = run_shape(rows) or ((1, 1) if last else None)
        shape = self._shape
        if shape is None:
            return False
        ordered = sorted((fitted(row, shape) for row in rows), key=_index)
        with h5py.File(self.path, "a") as file:
            for name in self._arrays:
                if name not in file:
                    _array(file, name, shape)
                    file[name].attrs.update(raw_metadata(ordered[0].mask.frame))
            for group in _neighbours(ordered):
                first = _index(group[0])
                for name in self._arrays:
                    _put(file[name], first, stack(group, name, shape))
                self._put_table(file, group)
            self._journal.take(ordered)
            self._put_notes(file)
        _sync(self.path)
        self._last = ordered[-1]
        self.rows += len(ordered)
        return True

    def append_notes(self, pages: Mapping[str, Sequence[Entry[Any]]]) -> None:
        """Write alarms and stages that no row has told."""
        self._journal.merge(pages)
        with h5py.File(self.path, "a") as file:
            self._put_notes(file)
        _sync(self.path)

    def events(self) -> dict[str, int]:
        """Return the number of rows written, by name of the stream."""
        return {STREAM: self.rows, **self._written}

    def end(self, stop: dict[str, Any]) -> None:
        """Write the stop document, and rows that say so where there are none."""
        with h5py.File(self.path, "a") as file:
            if self._last is not None:
                self._tell_holes(file, self._last)
            file.create_dataset("stop", data=json.dumps(stop), dtype=TEXT)
        _sync(self.path)

    def _tell_holes(self, file: h5py.File, last: Row) -> None:
        columns = _group(file, TABLE)
        missing: list[int] = np.flatnonzero(np.asarray(columns["seq_num"]) == 0).tolist()
        for first in range(0, len(missing), BLOCK):
            rows = [
                lost_row(
                    last.mask.frame,
                    index,
                    last.time,
                    NEVER_ANNOUNCED if index >= self.elsewhere else ELSEWHERE,
                )
                for index in missing[first : first + BLOCK]
            ]
            # Without the size of frames: the arrays hold their fill already.
            shaped = [fitted(row, last.mask.classes.shape) for row in rows]
            for group in _neighbours(shaped):
                self._put_table(file, group)

    def _put_table(self, file: h5py.File, rows: Sequence[Row]) -> None:
        columns = _group(file, TABLE)
        for name, values in table(rows, self._arrays).to_pydict().items():
            _put(columns[name], _index(rows[0]), values)

    def _put_notes(self, file: h5py.File) -> None:
        for name, page in self._journal.pages.items():
            if len(page) > self._written.get(name, 0):
                if name not in file:
                    _columns_for(file.create_group(name), schema(SIDE_TABLES[name]))
                group = _group(file, name)
                # All anew: rows of earlier frames may have come later. They are few.
                ordered = sorted(page, key=_frame)
                for column, values in side_table(name, ordered).to_pydict().items():
                    _put(group[column], 0, values)
                self._written[name] = len(page)


def _index(row: Row) -> int:
    return row.mask.frame.index


def _frame(entry: Entry[Any]) -> int:
    return entry.frame


def _neighbours(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Yield runs of rows whose indices follow each other."""
    for _, group in groupby(enumerate(rows), key=lambda item: _index(item[1]) - item[0]):
        yield [row for _, row in group]


def _array(file: h5py.File, name: str, shape: Shape) -> None:
    kind = ARRAYS[name]
    data = file.create_dataset(
        name,
        shape=(0, *shape),
        maxshape=(None, *shape),
        chunks=(CHUNK, *shape) if shape[0] * shape[1] < 1 << 17 else (1, *shape),
        dtype=kind.dtype,
        fillvalue=kind.fill,
        compression="gzip",
        compression_opts=1,
    )
    for key, value in kind.metadata.items():
        data.attrs[key] = value if isinstance(value, str) else json.dumps(value)


def _columns_for(group: h5py.Group, columns: Any) -> None:
    for column in columns:
        group.create_dataset(
            column.name,
            shape=(0,),
            maxshape=(None,),
            chunks=(BLOCK,),
            dtype=DTYPES[str(column.type)],
        )


def _group(file: h5py.File, name: str) -> h5py.Group:
    group = file[name]
    if not isinstance(group, h5py.Group):
        raise OSError(f"{file.filename}: {name} is no group: do not edit files while they grow")
    return group


def _put(data: Any, first: int, values: Any) -> None:
    stop = first + len(values)
    if data.shape[0] < stop:
        data.resize(stop, axis=0)
    data[first:stop] = values


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
