"""One row per frame: the columns of the table beside the masks, and how rows fall in line."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from ..science.frame import ClassCode, ClassMap, Frame, Mask

Shape: TypeAlias = tuple[int, int]

MASK = "mask"  # name of the array that every run has; other arrays are named like their source
NEVER_ANNOUNCED = "frame was never announced"


class Row(NamedTuple):
    """A mask and when it was handed over [s since the epoch]."""

    mask: Mask
    time: float


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table: its JSON type, how to read it off a mask, and its unit."""

    dtype: Literal["integer", "number", "string"]
    value: Callable[[Mask], int | float | str]
    units: str = ""

    @property
    def arrow(self) -> pa.DataType:
        """Return the type that a SQL table stores."""
        return {"integer": pa.int64(), "number": pa.float64(), "string": pa.string()}[self.dtype]


COLUMNS: dict[str, Column] = {
    "raw_index": Column("integer", lambda mask: mask.frame.index),
    "raw_seq_num": Column("integer", lambda mask: mask.frame.seq_num),
    "source": Column("string", lambda mask: mask.source),
    "status": Column("string", lambda mask: mask.status),
    "reason": Column("string", lambda mask: mask.reason),
    "student_revision": Column("integer", lambda mask: mask.student_revision),
    "student_hash": Column("string", lambda mask: mask.student_hash),
    "centroids_hash": Column("string", lambda mask: mask.centroids_hash),
    "iou_to_teacher": Column("number", lambda mask: float(mask.quality.iou_to_teacher)),
    "ring_area": Column("integer", lambda mask: int(mask.ring_area), "px"),
    "shift_y": Column("number", lambda mask: float(mask.shift[0]), "px"),
    "shift_x": Column("number", lambda mask: float(mask.shift[1]), "px"),
    "plateau": Column("number", lambda mask: float(mask.plateau), "counts/px"),
    "latency_ms": Column("number", lambda mask: 1e3 * float(mask.latency), "ms"),
}


def table_schema(arrays: Sequence[str]) -> pa.Schema:
    """Return the columns of the table of a run that publishes `arrays`."""
    stamped = (*COLUMNS, *arrays)
    return pa.schema(
        [
            pa.field("seq_num", pa.int64()),
            pa.field("time", pa.float64()),
            *(pa.field(name, column.arrow) for name, column in COLUMNS.items()),
            # A Bluesky client looks for the timestamp of every data key, arrays included.
            *(pa.field(f"ts_{name}", pa.float64()) for name in stamped),
        ]
    )


def table(rows: Sequence[Row], arrays: Sequence[str]) -> pa.Table:
    """Return the table rows of `rows`; ``seq_num`` counts from 1, ``ts_*`` is the frame's time."""
    stamps = [row.mask.frame.time or row.time for row in rows]
    columns: dict[str, list[Any]] = {
        "seq_num": [row.mask.frame.index + 1 for row in rows],
        "time": [row.time for row in rows],
    }
    for name, column in COLUMNS.items():
        columns[name] = [column.value(row.mask) for row in rows]
    for name in (*COLUMNS, *arrays):
        columns[f"ts_{name}"] = stamps
    return pa.table(columns, schema=table_schema(arrays))


def run_shape(rows: Sequence[Row]) -> Shape | None:
    """Return ``(H, W)`` of the first mask (else of the first promised frame) that has an area."""
    shapes = [row.mask.classes.shape for row in rows] + [row.mask.frame.shape for row in rows]
    return next(((h, w) for h, w in shapes if h > 0 and w > 0), None)


def fitted(row: Row, shape: Shape) -> Row:
    """Return the row with a class map of `shape`; a mask of another size becomes class 255."""
    mask = row.mask
    if mask.classes.shape == shape:
        return row
    classes = np.full(shape, ClassCode.INVALID, np.uint8)
    if mask.status != "ok":
        return Row(replace(mask, classes=classes), row.time)
    reason = f"mask is {mask.classes.shape}, those of this run are {shape}"
    return Row(
        replace(mask, classes=classes, source="none", status="refused", reason=reason), row.time
    )


def stack(rows: Sequence[Row], name: str, shape: Shape) -> ClassMap:
    """Return the class maps that array `name` gets, ``(n, H, W)`` uint8; 255 where there is none.

    Parameters
    ----------
    rows : sequence of Row
        Rows as `fitted` returns them.
    name : str
        "mask" for the served masks, else the source ("teacher", "student", "fused") wanted.
    shape : tuple of int
        ``(H, W)``.
    """
    block = np.full((len(rows), *shape), ClassCode.INVALID, np.uint8)
    for target, row in zip(block, rows, strict=True):
        mask = row.mask
        found = mask.classes if name in (MASK, mask.source) else mask.alternatives.get(name)
        if found is not None and found.shape == shape:
            target[:] = found
    return block


def nbytes(mask: Mask) -> int:
    """Return the memory that the class maps of a mask take [bytes]."""
    return mask.classes.nbytes + sum(other.nbytes for other in mask.alternatives.values())


class Intake:
    """Puts the rows of one run in line, so that row i of what is stored is frame i.

    Attributes
    ----------
    next : int
        Index that the next row should have.
    filled, repeated : int
        Rows put in for frames that were never announced; rows refused because theirs was taken.
    """

    def __init__(self) -> None:
        self.next = 0
        self.filled = 0
        self.repeated = 0

    def take(self, row: Row) -> Iterator[Row]:
        """Yield `row`, after a "lost" row for each frame that was skipped; nothing for a repeat."""
        index = row.mask.frame.index
        if index < self.next:
            self.repeated += 1
            return
        for missing in range(self.next, index):
            self.next += 1
            self.filled += 1
            yield lost_row(row.mask.frame, missing, row.time)
        self.next += 1
        yield row


def lost_row(like: Frame, index: int, time: float, reason: str = NEVER_ANNOUNCED) -> Row:
    """Return the row of a frame that nobody has seen; its class map takes no memory yet."""
    frame = replace(like, index=index, image=None, shape=(0, 0), seq_num=0, time=time, fault=reason)
    empty = np.empty((0, 0), np.uint8)
    return Row(Mask(frame=frame, classes=empty, source="none", status="lost", reason=reason), time)
