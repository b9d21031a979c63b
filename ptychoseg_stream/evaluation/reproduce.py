"""Makes one row of a stored run again, from the raw frames, and compares it bit by bit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError
from ..node.node import Node
from ..node.options import NodeOptions
from ..science.frame import METHODS, BoolArray, Frame, Mask
from ..science.learning import Student
from ..science.som import Centroids
from ..sinks.arrays import ARRAYS, stack
from ..sinks.rows import COLUMNS, Row, fitted
from .replay import RecordedCentroids, RecordedTrainer

RUN = "again"
UNSEEN = ("another size", "cannot label frames")
"""How the reason begins of a frame that was refused for something that is not in its pixels."""
TELLING = ("status", "source", "verdict", "ring_area", "plateau", "shift_y", "shift_x")
"""Columns that show from which row on a run was another one."""

Images = Sequence[NDArray[Any]] | NDArray[Any]


class Recorded(Protocol):
    """What is known of a stored run; `ptychoseg_stream.sinks.stored.StoredRun` is one."""

    @property
    def table(self) -> Mapping[str, list[Any]]:
        """Columns; row i is frame i."""
        ...

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the stored arrays."""
        ...

    @property
    def read(self) -> Callable[[str, int], NDArray[Any]]:
        """(array name, row) -> ``(H, W)``."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """What a run was made with.

    Parameters
    ----------
    options : NodeOptions
    centroids : Centroids or None
        Kept from the run; None fits them anew, on the frame that they were fitted on.
    students : callable
        Hash -> the student that was kept, or None: then it is learned again.
    user : ndarray of bool or None
        ``(h, w)`` the user's pixel mask.
    """

    options: NodeOptions
    centroids: Centroids | None
    students: Callable[[str], Student | None]
    user: BoolArray | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a row that was made again compares.

    Parameters
    ----------
    row : int
    pixels : int
        Per array.
    differing : dict of str to int
        Pixels that differ, by name of each stored array.
    source : str
        Which mask is served: teacher, student, fused, none (a frame that was refused).
    student_hash : str
        Of the student behind the row; empty if the teacher served alone.
    learned_again : bool
        Whether that student was learned again, rather than taken from a store.
    notes : tuple of str
        What was not as it was then.
    """

    row: int
    pixels: int
    differing: dict[str, int]
    source: str
    student_hash: str
    learned_again: bool
    notes: tuple[str, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether all arrays are the same, bit by bit."""
        return not any(self.differing.values())


def reproduce(
    recorded: Recorded,
    row: int,
    frames: Images,
    recipe: Recipe,
    on_frame: Callable[[int], None] | None = None,
) -> Comparison:
    """Label the frames up to `row` as they were labelled, and compare that row.

    A frame's mask depends on those before it: their mean, the shift of the beam, what was learned
    of pixels. Which student served which frame is taken from the table, so a run whose student
    learned beside the stream comes out the same too.

    Parameters
    ----------
    recorded : Recorded
    row : int
    frames : sequence of ndarray
        Raw frames of the run, ``(h, w)`` each; read one after the other.
    recipe : Recipe
    on_frame : callable, optional
        Told the index of each frame before it is labelled.

    Raises
    ------
    DatasetError
        If there is no such row, it was lost, or there are too few frames.
    """
    table = recorded.table
    _require(table, row, frames)
    shape = recorded.read("mask", row).shape
    _require_size(np.asarray(frames[row]).shape, shape)
    centroids = RecordedCentroids(recipe.centroids, table)
    trainer = RecordedTrainer(recipe.options, recipe.students, table)
    options = _publishing(recipe.options, recorded.arrays)
    node = Node(options, lambda: trainer, centroids, recipe.user)
    node.open(RUN)
    mask, departure = None, ""
    for index in range(row + 1):
        if on_frame:
            on_frame(index)
        centroids.row = trainer.row = index
        (mask,) = node.process([_frame(table, index, frames, shape)])
        departure = departure or _departure(table, mask)
    node.close(RUN)
    if mask is None:
        raise DatasetError(f"there is no row {row}; rows are counted from 0")
    notes = (centroids.note, *trainer.notes, departure, *_unknown(recorded.arrays))
    student = str(table["student_hash"][row])
    return Comparison(
        row,
        mask.classes.size,
        _compare(recorded, row, mask),
        mask.source,
        student,
        student in trainer.learned,
        tuple(filter(None, notes)),
    )


def _publishing(options: NodeOptions, arrays: Sequence[str]) -> NodeOptions:
    """Return options that make all the arrays that were stored."""
    also = tuple(m for m in METHODS if m in arrays)
    return replace(options, also=also, confidence="confidence" in arrays)


def _require(table: Mapping[str, list[Any]], row: int, frames: Images) -> None:
    rows = len(table["status"])
    if not 0 <= row < rows:
        raise DatasetError(f"there is no row {row}: the run has {rows}, counted from 0")
    if table["status"][row] == "lost":
        raise DatasetError(
            f"row {row} is of a frame that was lost ({table['reason'][row]}): there is no mask to "
            "make again"
        )
    if len(frames) <= row:
        raise DatasetError(
            f"row {row} needs the frames 0 to {row}, these are {len(frames)}; give the raw frames "
            "of the run with --frames FILE:/dataset"
        )


def _require_size(shape: tuple[int, ...], stored: tuple[int, ...]) -> None:
    if shape != stored:
        raise DatasetError(
            f"the frames are {shape}, the masks {stored}: these are not the frames of the run; "
            "give them with --frames FILE:/dataset"
        )


def _frame(
    table: Mapping[str, list[Any]], index: int, frames: Images, shape: tuple[int, ...]
) -> Frame:
    """Return a frame as the node saw it then, without image where it saw none."""
    reason = str(table["reason"][index])
    if table["status"][index] == "lost" or reason.startswith(UNSEEN):
        h, w = shape
        return Frame(RUN, index, None, (h, w), fault=reason)
    image = np.asarray(frames[index])
    hurried = bool(table["teacher_only"][index]) if "teacher_only" in table else False
    return Frame(RUN, index, image, (image.shape[0], image.shape[1]), teacher_only=hurried)


def _departure(table: Mapping[str, list[Any]], mask: Mask) -> str:
    """Say what is not as it was in the row of a frame that was seen; empty if all is."""
    index = mask.frame.index
    if mask.frame.fault:
        return ""
    for name in filter(table.__contains__, TELLING):
        was, is_now = table[name][index], COLUMNS[name].value(mask)
        if was != is_now:
            why = f" ({mask.reason or table['reason'][index]})" if name == "status" else ""
            both = f"{name} {_short(is_now)}, it was {_short(was)}"
            return f"row {index} is the first that differs: {both}{why}"
    return ""


def _short(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _unknown(arrays: Sequence[str]) -> list[str]:
    return [
        f"array {name} is of another version and was not compared"
        for name in arrays
        if name not in ARRAYS
    ]


def _compare(recorded: Recorded, row: int, mask: Mask) -> dict[str, int]:
    differing: dict[str, int] = {}
    for name in filter(ARRAYS.__contains__, recorded.arrays):
        stored = recorded.read(name, row)
        h, w = stored.shape
        again = stack([fitted(Row(mask, 0.0), (h, w))], name, (h, w))[0]
        differing[name] = int(np.count_nonzero(stored != again))
    return differing
