"""Makes one mask of a stored run again, from its raw frames, and compares it bit by bit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import CentroidsError, DatasetError
from ..node.node import Node
from ..node.options import NodeOptions
from ..node.store import MemoryStore
from ..node.trainer import InlineTrainer, Outcome, Stage
from ..node.vitals import Progress
from ..science.frame import BoolArray, Frame, Mask
from ..science.learning import Student
from ..science.records import StageRecord
from ..science.som import Centroids

NO_CENTROIDS = "no centroids yet"
"""How the reason begins of a frame that came before the centroids were fitted."""
OUTPUTS = ("mask", "teacher", "student", "fused", "valid_bits", "confidence")


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
        The user's pixel mask.
    """

    options: NodeOptions
    centroids: Centroids | None
    students: Callable[[str], Student | None]
    user: BoolArray | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a mask that was made again compares.

    Parameters
    ----------
    row : int
    pixels : int
        Per array.
    differing : dict of str to int
        Pixels that differ, by array.
    student_hash : str
        Of the student behind the row; empty if the teacher served alone.
    learned_again : bool
        Whether that student was learned again, rather than taken from the store.
    """

    row: int
    pixels: int
    differing: dict[str, int]
    student_hash: str
    learned_again: bool

    @property
    def identical(self) -> bool:
        """Whether all is the same, bit by bit."""
        return not any(self.differing.values())


def reproduce(
    recorded: Recorded,
    row: int,
    frames: Sequence[NDArray[Any]] | NDArray[Any],
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
        Raw frames of the run.
    recipe : Recipe
    on_frame : callable, optional
        Told the index of each frame done.

    Raises
    ------
    DatasetError
        If there is no such row, or not as many frames.
    CentroidsError
        If the centroids fitted anew are others than those of the run.
    """
    rows = len(recorded.table["raw_index"])
    if not 0 <= row < rows:
        raise DatasetError(f"there is no row {row}: the run has {rows}, counted from 0")
    if len(frames) <= row:
        raise DatasetError(
            f"row {row} needs the frames 0 to {row}, these are {len(frames)}; give the raw frames "
            "of the run with --frames FILE:/dataset"
        )
    wanted = [str(h) for h in recorded.table["student_hash"]]
    trainer = _Recorded(recipe, wanted)
    options = replace(
        recipe.options,
        also=tuple(m for m in ("teacher", "student", "fused") if m in recorded.arrays),
        confidence="confidence" in recorded.arrays,
    )
    node = Node(options, lambda: trainer, MemoryStore(recipe.centroids), recipe.user)
    node.open("again")
    mask: Mask | None = None
    for index in range(row + 1):
        trainer.row = index
        mask = node.process([_frame(recorded, index, frames)])[0]
        if on_frame:
            on_frame(index)
    node.close("again")
    if mask is None:
        raise DatasetError(f"row {row} was not labelled")
    _require_centroids(mask, str(recorded.table["centroids_hash"][row]))
    return _compare(recorded, row, mask, wanted[row], wanted[row] in trainer.learned)


def _frame(recorded: Recorded, index: int, frames: Sequence[NDArray[Any]] | NDArray[Any]) -> Frame:
    lost = recorded.table["status"][index] == "lost"
    # With the centroids at hand it would be labelled now.
    lost = lost or str(recorded.table["reason"][index]).startswith(NO_CENTROIDS)
    image = np.asarray(frames[index])
    return Frame("again", index, None if lost else image, image.shape, fault="it was lost")


def _require_centroids(mask: Mask, expected: str) -> None:
    if mask.centroids_hash != expected:
        raise CentroidsError(
            f"the centroids fitted on these frames are {mask.centroids_hash[:16]}, the run had "
            f"{expected[:16]}: they came from the cache of another run; name its folder (--cache)"
        )


def _compare(
    recorded: Recorded, row: int, mask: Mask, student_hash: str, learned: bool
) -> Comparison:
    made: dict[str, NDArray[Any] | None] = {
        "mask": mask.classes,
        "valid_bits": mask.valid_bits,
        "confidence": mask.confidence,
        **mask.alternatives,
    }
    differing: dict[str, int] = {}
    for name in OUTPUTS:
        again = made.get(name)
        if name in recorded.arrays and again is not None:
            stored = recorded.read(name, row)
            same = stored.shape == again.shape
            differing[name] = int(np.count_nonzero(stored != again)) if same else again.size
    return Comparison(row, mask.classes.size, differing, student_hash, learned)


class _Recorded:
    """A trainer that has each frame served by the student that served it then."""

    def __init__(self, recipe: Recipe, wanted: Sequence[str]) -> None:
        self.row = 0
        self.learned: dict[str, Student] = {}
        self._recipe = recipe
        self._wanted = wanted
        self._serving = ""
        self._stages: list[Stage] = []
        self._trainer = InlineTrainer(recipe.options.student, promotion=recipe.options.promotion)
        self._records: dict[str, Outcome] = {}

    def submit(self, stage: Stage) -> None:
        """Keep the stage, in case that its student has to be learned again."""
        self._stages.append(stage)

    def collect(self) -> list[Outcome]:
        """Return the student that served from this frame on, if it is another one."""
        wanted = self._wanted[self.row]
        if wanted == self._serving or not wanted:
            return []
        self._serving = wanted
        kept = self._recipe.students(wanted)
        if kept is None:
            return [self._learn(wanted)]
        return [Outcome(_record_of(kept), kept)]

    def progress(self) -> Progress:
        """Nothing is told."""
        return Progress()

    def close(self) -> None:
        """Nothing runs."""

    def _learn(self, wanted: str) -> Outcome:
        while self._stages and wanted not in self._records:
            self._trainer.submit(self._stages.pop(0))
            for outcome in self._trainer.collect():
                if outcome.student is not None:
                    self.learned[outcome.student.hash] = outcome.student
                    self._records[outcome.student.hash] = outcome
        if wanted not in self._records:
            raise CentroidsError(
                f"student {wanted[:16]} is not in the store, and learning the stages again made "
                f"{', '.join(h[:16] for h in self._records) or 'none'}: another processor or other "
                "versions, or other frames than those of the run"
            )
        return self._records[wanted]


def _record_of(student: Student) -> StageRecord:
    """Return the record of a student that was kept: it served."""
    return StageRecord(
        stage=student.revision,
        frames=(),
        rounds=0,
        delta=float("nan"),
        converged=False,
        promoted=True,
        reason="",
        iou_to_anchor=float("nan"),
        area_change=float("nan"),
        student_hash=student.hash,
        parent_hash="",
        centroids_hash="",
    )
