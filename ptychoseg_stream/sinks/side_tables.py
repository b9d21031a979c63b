"""The tables beside the masks: alarms and stages of learning, each told once per run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pyarrow as pa

from ..science.records import Alarm, StageRecord
from .columns import Column, Stamps, tabulate
from .rows import Row

RecordT_co = TypeVar("RecordT_co", covariant=True)

ALARMS, STAGES = "alarms", "stages"


@dataclass(frozen=True, slots=True)
class Entry(Generic[RecordT_co]):
    """One row of a side table.

    Parameters
    ----------
    record : Alarm or StageRecord
        What it says.
    frame : int
        Index of the frame whose mask brought it.
    taken : float
        When that frame was taken [s since the epoch].
    time : float
        When its mask was handed over [s since the epoch].
    """

    record: RecordT_co
    frame: int
    taken: float
    time: float


ALARM_COLUMNS: dict[str, Column[Entry[Alarm]]] = {
    "raw_index": Column("integer", lambda entry: entry.record.index),
    "monitor": Column("string", lambda entry: entry.record.monitor),
    "value": Column("number", lambda entry: float(entry.record.value)),
    "expected": Column("number", lambda entry: float(entry.record.expected)),
    "score": Column("number", lambda entry: float(entry.record.score)),
    "action": Column("string", lambda entry: entry.record.action),
    "text": Column("string", lambda entry: entry.record.text),
}

STAGE_COLUMNS: dict[str, Column[Entry[StageRecord]]] = {
    "raw_index": Column("integer", lambda entry: entry.frame),
    "stage": Column("integer", lambda entry: entry.record.stage),
    "frames": Column("string", lambda entry: " ".join(map(str, entry.record.frames))),
    "rounds": Column("integer", lambda entry: entry.record.rounds),
    "delta": Column("number", lambda entry: float(entry.record.delta)),
    "converged": Column("boolean", lambda entry: bool(entry.record.converged)),
    "promoted": Column("boolean", lambda entry: bool(entry.record.promoted)),
    "reason": Column("string", lambda entry: entry.record.reason),
    "iou_to_anchor": Column("number", lambda entry: float(entry.record.iou_to_anchor)),
    "area_change": Column("number", lambda entry: float(entry.record.area_change)),
    "student_hash": Column("string", lambda entry: entry.record.student_hash),
    "parent_hash": Column("string", lambda entry: entry.record.parent_hash),
    "centroids_hash": Column("string", lambda entry: entry.record.centroids_hash),
}

SIDE_TABLES: dict[str, Mapping[str, Column[Any]]] = {
    ALARMS: ALARM_COLUMNS,
    STAGES: STAGE_COLUMNS,
}


IDENTITY = {ALARMS: ("raw_index", "monitor", "action"), STAGES: ("stage",)}
"""Columns that tell a row of a side table from all others of its run.

Not what was measured: a process that labels a frame again may round the last digit otherwise.
"""


def identity_columns(name: str) -> list[str]:
    """Return the columns by which a row of a side table is known again."""
    return list(IDENTITY[name])


def identities(name: str, columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return what tells each row of a side table from all others of its run.

    Parameters
    ----------
    name : str
        Name of the table.
    columns : mapping of str to sequence
        Its `identity_columns`, fresh or as a database gives them back.
    """
    return [repr(row) for row in zip(*(columns[key] for key in IDENTITY[name]), strict=True)]


class Notebook:
    """The alarms and stages of one run, each once, however often a mask brings it.

    Attributes
    ----------
    pages : dict
        List of new `Entry` by name of the table, in order of arrival.
    """

    def __init__(self) -> None:
        self.pages: dict[str, list[Entry[Any]]] = {name: [] for name in SIDE_TABLES}
        self._known: set[tuple[str, str]] = set()

    def take(self, rows: Iterable[Row]) -> None:
        """Enter what rows bring and is not there yet."""
        for row in rows:
            frame = row.mask.frame
            taken = frame.time or row.time
            for name, records in ((ALARMS, row.mask.alarms), (STAGES, row.mask.stages)):
                for record in records:
                    self._enter(name, Entry(record, frame.index, taken, row.time))

    def tear_off(self) -> dict[str, list[Entry[Any]]]:
        """Return the pages, and begin new ones; what is known stays known."""
        pages, self.pages = self.pages, {name: [] for name in SIDE_TABLES}
        return pages

    def _enter(self, name: str, entry: Entry[Any]) -> None:
        columns = {key: [SIDE_TABLES[name][key].value(entry)] for key in IDENTITY[name]}
        (mark,) = identities(name, columns)
        if (name, mark) not in self._known:
            self._known.add((name, mark))
            self.pages[name].append(entry)


def side_table(name: str, entries: Sequence[Entry[Any]]) -> pa.Table:
    """Return the rows of `entries` for the table `name`."""
    stamps = Stamps(
        seq_nums=range(1, len(entries) + 1),
        times=[entry.time for entry in entries],
        taken=[entry.taken for entry in entries],
    )
    return tabulate(SIDE_TABLES[name], entries, stamps)
