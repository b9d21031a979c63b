"""Columns of a table: their types, how they are read off a record, and their units."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import pyarrow as pa

RecordT = TypeVar("RecordT")
LARGEST = 2**63 - 1

# The names that event-model has for types, and what a SQL table stores.
ARROW: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "string": pa.string(),
}


@dataclass(frozen=True, slots=True)
class Column(Generic[RecordT]):
    """One column of a table: its JSON type, how to read it off a record, and its unit."""

    dtype: Literal["boolean", "integer", "number", "string"]
    value: Callable[[RecordT], bool | int | float | str]
    units: str = ""


@dataclass(frozen=True, slots=True)
class Stamps:
    """What every table of a stream has beside its columns, one value per row.

    Parameters
    ----------
    seq_nums : sequence of int
        Number of the row, from 1.
    times : sequence of float
        When the row was handed over [s since the epoch].
    taken : sequence of float
        When the frame was taken [s since the epoch]; the timestamp of every data key.
    """

    seq_nums: Sequence[int]
    times: Sequence[float]
    taken: Sequence[float]


def schema(columns: Mapping[str, Column[Any]], arrays: Sequence[str] = ()) -> pa.Schema:
    """Return the schema of the table of a stream that has `columns` and, beside it, `arrays`."""
    return pa.schema(
        [
            pa.field("seq_num", pa.int64()),
            pa.field("time", pa.float64()),
            *(pa.field(name, ARROW[column.dtype]) for name, column in columns.items()),
            # A Bluesky client looks for the timestamp of every data key, arrays included.
            *(pa.field(f"ts_{name}", pa.float64()) for name in (*columns, *arrays)),
        ]
    )


def tabulate(
    columns: Mapping[str, Column[RecordT]],
    records: Sequence[RecordT],
    stamps: Stamps,
    arrays: Sequence[str] = (),
) -> pa.Table:
    """Return the rows of `records` in the form of `schema`."""
    values: dict[str, Sequence[Any]] = {"seq_num": stamps.seq_nums, "time": stamps.times}
    for name, column in columns.items():
        values[name] = [_storable(column.value(record)) for record in records]
    for name in (*columns, *arrays):
        values[f"ts_{name}"] = stamps.taken
    return pa.table(values, schema=schema(columns, arrays))


def _storable(value: bool | int | float | str) -> bool | int | float | str:
    """Return a value that every store takes: whole text without NUL, integers of 64 bits."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode().replace("\0", "")
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-LARGEST - 1, min(value, LARGEST))
    return value
