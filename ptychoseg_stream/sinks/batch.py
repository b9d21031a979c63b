"""Rows of one run on their way to a store: what memory, a segment on disk and Tiled all speak."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from .arrays import ARRAYS, Pixels, itemsize, stack
from .derived import frame_metadata, raw_metadata
from .rows import NEVER_ANNOUNCED, Row, Shape, fitted, lost_row, table, table_schema
from .side_tables import SIDE_TABLES, Entry, side_table


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows that follow each other.

    Parameters
    ----------
    first : int
        Index of the first row.
    arrays : mapping of str to ndarray
        ``(n, H, W)`` by name.
    table : pyarrow.Table
        The n rows beside them.
    notes : mapping of str to pyarrow.Table
        New rows of side tables, by name; their ``seq_num`` is that within the batch.
    raw : mapping of str to str
        Where the raw frames are; empty without rows.
    """

    first: int
    arrays: Mapping[str, Pixels]
    table: pa.Table
    notes: Mapping[str, pa.Table]
    raw: Mapping[str, str]

    @property
    def last(self) -> int:
        """Index of the row after the last one."""
        return self.first + self.table.num_rows

    @property
    def shape(self) -> Shape:
        """``(H, W)`` of the arrays."""
        block = next(iter(self.arrays.values()))
        return block.shape[1], block.shape[2]

    @property
    def nbytes(self) -> int:
        """Memory of the arrays [bytes]."""
        return sum(block.nbytes for block in self.arrays.values())

    def since(self, row: int) -> "Batch":
        """Return the rows from index `row` on, and all notes."""
        skipped = min(max(row - self.first, 0), self.table.num_rows)
        if not skipped:
            return self
        arrays = {name: block[skipped:] for name, block in self.arrays.items()}
        return replace(
            self, first=self.first + skipped, arrays=arrays, table=self.table.slice(skipped)
        )

    def until(self, row: int) -> "Batch":
        """Return the rows before index `row`, without notes."""
        kept = max(row - self.first, 0)
        arrays = {name: block[:kept] for name, block in self.arrays.items()}
        return replace(self, arrays=arrays, table=self.table.slice(0, kept), notes={})


def make_batch(
    first: int,
    rows: Sequence[Row],
    shape: Shape,
    arrays: Sequence[str],
    notes: Mapping[str, Sequence[Entry[Any]]] | None = None,
) -> Batch:
    """Return the batch of rows that follow each other from `first` on.

    Parameters
    ----------
    first : int
        Index of the first row.
    rows : sequence of Row
        May be empty, where only notes are left.
    shape : tuple of int
        ``(H, W)`` of the run; a mask of another size becomes class 255.
    arrays : sequence of str
        Names of the arrays to publish.
    notes : mapping, optional
        New entries by name of the side table.
    """
    todo = [fitted(row, shape) for row in rows]
    return Batch(
        first,
        {name: stack(todo, name, shape) for name in arrays},
        table(todo, arrays) if todo else table_schema(arrays).empty_table(),
        {name: side_table(name, page) for name, page in (notes or {}).items() if page},
        raw_metadata(todo[0].mask.frame) if todo else {},
    )


def joined(batches: Sequence[Batch]) -> Batch:
    """Return batches of one size that follow each other as one."""
    if len(batches) == 1:
        return batches[0]
    first = batches[0]
    arrays = {
        name: np.concatenate([batch.arrays[name] for batch in batches]) for name in first.arrays
    }
    pages = {name: [b.notes[name] for b in batches if name in b.notes] for name in SIDE_TABLES}
    return Batch(
        first.first,
        arrays,
        pa.concat_tables([batch.table for batch in batches]),
        {name: pa.concat_tables(tables) for name, tables in pages.items() if tables},
        next((batch.raw for batch in batches if batch.raw), {}),
    )


def alike(one: Batch, other: Batch) -> bool:
    """Whether two batches can be `joined`."""
    return (
        one.last == other.first
        and set(one.arrays) == set(other.arrays)
        and one.shape == other.shape
        and one.table.schema.equals(other.table.schema)
    )


def pieces(batch: Batch, most: int) -> Iterator[Batch]:
    """Yield a batch in parts whose arrays have so many bytes at most each, or one row."""
    height, width = batch.shape
    row_bytes = max(1, height * width * itemsize(tuple(batch.arrays)))
    size = max(1, most // row_bytes)
    rest = batch
    while rest.table.num_rows > size:
        yield rest.until(rest.first + size)
        rest = rest.since(rest.first + size)
    yield rest


def lost_batch(like: Batch, first: int, last: int, reason: str = NEVER_ANNOUNCED) -> Batch:
    """Return rows [first, last) that nobody has, of the arrays and size of another batch."""
    frame = frame_metadata(like.raw)
    time = like.table["time"][0].as_py() if like.table.num_rows else 0.0
    rows = [lost_row(frame, index, time, reason) for index in range(first, last)]
    return make_batch(first, rows, like.shape, tuple(like.arrays))


def resized(batch: Batch, shape: Shape) -> Batch:
    """Return the batch with arrays of `shape`: where they are not, nothing is known of its rows."""
    if batch.shape == shape:
        return batch
    rows = batch.table.num_rows
    reason = f"mask is {batch.shape}, those of this run are {shape}"
    told = {"source": "none", "status": "refused", "reason": reason}
    table = batch.table
    for name, value in told.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pa.array([value] * rows))
    return replace(
        batch,
        arrays={name: empty_block(name, rows, shape) for name in batch.arrays},
        table=table,
    )


def empty_block(name: str, rows: int, shape: Shape) -> Pixels:
    """Return rows of an array in which nothing is known."""
    kind = ARRAYS[name]
    return np.full((rows, *shape), kind.fill, kind.dtype)


def numbered(table: pa.Table, stored: int) -> pa.Table:
    """Return rows whose ``seq_num`` follows that of `stored` others."""
    numbers = pa.array(range(stored + 1, stored + table.num_rows + 1), pa.int64())
    place = table.schema.get_field_index("seq_num")
    return table.set_column(place, table.schema.field(place), numbers)


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table in the form of another schema: a run keeps that of the version it began with.

    Columns that the schema has not are left out; those that it alone has are null, or zero.
    """
    if table.schema.equals(schema, check_metadata=False):
        return table
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.array([_nothing(field.type)] * table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)


def _nothing(kind: Any) -> Any:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return ""
    return False if pa.types.is_boolean(kind) else 0
