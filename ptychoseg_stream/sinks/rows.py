"""One row per frame: the columns of the table beside the masks, and how rows fall in line."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from ..science.frame import ClassCode, Frame, Mask, ValidBit
from .columns import Column, Stamps, schema, tabulate

Shape: TypeAlias = tuple[int, int]

NEVER_ANNOUNCED = "frame was never announced"


class Row(NamedTuple):
    """A mask and when it was handed over [s since the epoch]."""

    mask: Mask
    time: float


def _invalid_pixels(mask: Mask) -> int:
    bits = mask.valid_bits  # without any, the array has a gap in every pixel
    return mask.classes.size if bits is None else int(np.count_nonzero(bits))


def _cosmic_pixels(mask: Mask) -> int:
    bits = mask.valid_bits
    return 0 if bits is None else int(np.count_nonzero(bits & np.uint16(ValidBit.COSMIC)))


COLUMNS: dict[str, Column[Mask]] = {
    "raw_index": Column("integer", lambda mask: mask.frame.index),
    "raw_seq_num": Column("integer", lambda mask: mask.frame.seq_num),
    "attempt": Column("integer", lambda mask: mask.frame.attempt),
    "refilled": Column("string", lambda mask: mask.frame.refilled),
    "teacher_only": Column("boolean", lambda mask: bool(mask.frame.teacher_only)),
    "source": Column("string", lambda mask: mask.source),
    "status": Column("string", lambda mask: mask.status),
    "reason": Column("string", lambda mask: mask.reason),
    "verdict": Column("string", lambda mask: mask.verdict),
    "alarm": Column("string", lambda mask: "; ".join(alarm.text for alarm in mask.alarms)),
    "student_revision": Column("integer", lambda mask: mask.student_revision),
    "student_hash": Column("string", lambda mask: mask.student_hash),
    "centroids_hash": Column("string", lambda mask: mask.centroids_hash),
    "iou_to_teacher": Column("number", lambda mask: float(mask.quality.iou_to_teacher)),
    "iou_to_student": Column("number", lambda mask: float(mask.quality.iou_to_student)),
    "entropy": Column("number", lambda mask: float(mask.quality.entropy), "bits"),
    "centre_y": Column("number", lambda mask: float(mask.quality.centre[0]), "px"),
    "centre_x": Column("number", lambda mask: float(mask.quality.centre[1]), "px"),
    "radius_inner": Column("number", lambda mask: float(mask.quality.inner), "px"),
    "radius_outer": Column("number", lambda mask: float(mask.quality.outer), "px"),
    "invalid_pixels": Column("integer", _invalid_pixels, "px"),
    "cosmic_pixels": Column("integer", _cosmic_pixels, "px"),
    "ring_area": Column("integer", lambda mask: int(mask.ring_area), "px"),
    "shift_y": Column("number", lambda mask: float(mask.shift[0]), "px"),
    "shift_x": Column("number", lambda mask: float(mask.shift[1]), "px"),
    "plateau": Column("number", lambda mask: float(mask.plateau), "counts/px"),
    "latency_ms": Column("number", lambda mask: 1e3 * float(mask.latency), "ms"),
}


def table_schema(arrays: Sequence[str]) -> pa.Schema:
    """Return the columns of the table of a run that publishes `arrays`."""
    return schema(COLUMNS, arrays)


def table(rows: Sequence[Row], arrays: Sequence[str]) -> pa.Table:
    """Return the table rows of `rows`; ``seq_num`` counts from 1, ``ts_*`` is the frame's time."""
    stamps = Stamps(
        seq_nums=[row.mask.frame.index + 1 for row in rows],
        times=[row.time for row in rows],
        taken=[row.mask.frame.time or row.time for row in rows],
    )
    return tabulate(COLUMNS, [row.mask for row in rows], stamps, arrays)


def run_shape(rows: Sequence[Row]) -> Shape | None:
    """Return ``(H, W)`` of the first mask (else of the first promised frame) that has an area."""
    shapes = [row.mask.classes.shape for row in rows] + [row.mask.frame.shape for row in rows]
    return next(((h, w) for h, w in shapes if h > 0 and w > 0), None)


def fitted(row: Row, shape: Shape) -> Row:
    """Return the row with arrays of `shape`; a mask of another size becomes class 255."""
    mask = row.mask
    if mask.valid_bits is not None and mask.valid_bits.shape != shape:
        mask = replace(mask, valid_bits=None)
    if mask.classes.shape == shape:
        return row if mask is row.mask else Row(mask, row.time)
    classes = np.full(shape, ClassCode.INVALID, np.uint8)
    if mask.status != "ok":
        return Row(replace(mask, classes=classes), row.time)
    reason = f"mask is {mask.classes.shape}, those of this run are {shape}"
    return Row(
        replace(mask, classes=classes, source="none", status="refused", reason=reason), row.time
    )


class Intake:
    """Puts the rows of one run in line, so that row i of what is stored is frame i.

    Parameters
    ----------
    stored : int
        Rows that are stored already.
    resumed : bool
        Whether an earlier process began the run. Its rows begin anywhere then, and those that are
        stored come again.

    Attributes
    ----------
    next : int
        Index that the next row should have.
    repeated : int
        Rows refused because theirs was taken.
    """

    def __init__(self, stored: int = 0, *, resumed: bool = False) -> None:
        self.next = stored
        self.repeated = 0
        self._again = stored  # rows below may come again, and nothing is said
        self._anywhere = resumed

    def take(self, row: Row) -> Iterator[Row]:
        """Yield `row`, after a "lost" row for each frame that was skipped; nothing for a repeat."""
        index = row.mask.frame.index
        if self._anywhere:
            self._anywhere = False
            self.next = self._again = max(self.next, index)
        if index < self.next:
            self.repeated += index >= self._again
            return
        for missing in range(self.next, index):
            self.next += 1
            yield lost_row(row.mask.frame, missing, row.time)
        self.next += 1
        yield row


def lost_row(like: Frame, index: int, time: float, reason: str = NEVER_ANNOUNCED) -> Row:
    """Return the row of a frame that nobody has seen; its class map takes no memory yet."""
    frame = replace(like, index=index, image=None, shape=(0, 0), seq_num=0, time=time, fault=reason)
    empty = np.empty((0, 0), np.uint8)
    return Row(Mask(frame=frame, classes=empty, source="none", status="lost", reason=reason), time)
