"""Centroids and students of a stored run, each for the frames that it served then."""

from collections.abc import Callable, Mapping
from typing import Any

from ..node.options import NodeOptions
from ..node.store import Known, MemoryStore
from ..node.trainer import InlineTrainer, Outcome, Stage
from ..node.vitals import Progress
from ..science.learning import Student
from ..science.records import NAN, StageRecord
from ..science.som import Centroids

Table = Mapping[str, list[Any]]


class RecordedCentroids(MemoryStore):
    """A store that has the centroids from the row on that names them first.

    Before it the run had none: it had to refuse frames that these centroids could label.

    Parameters
    ----------
    kept : Centroids or None
        None fits them anew.
    table : mapping of str to list
        Of the run; row i is frame i.

    Attributes
    ----------
    row : int
        The frame that is labelled next.
    note : str
        What to tell if those fitted anew are others; empty if they are the same.
    """

    def __init__(self, kept: Centroids | None, table: Table) -> None:
        super().__init__()
        self.row = 0
        self.note = ""
        self._kept = kept
        named = ((i, str(h)) for i, h in enumerate(table["centroids_hash"]) if h)
        self._first, self._hash = next(named, (0, ""))

    def known(self, options: NodeOptions) -> tuple[Known, ...] | None:
        """Return None: the run may have found them late."""
        return None

    def find_centroids(self, shape: tuple[int, int], options: NodeOptions) -> Centroids | None:
        """Return what the run had found by now."""
        if self._kept is not None:
            return self._kept if self.row >= self._first else None
        return super().find_centroids(shape, options)

    def keep_centroids(
        self, centroids: Centroids, shape: tuple[int, int], options: NodeOptions
    ) -> None:
        """Remember centroids that were fitted anew."""
        super().keep_centroids(centroids, shape, options)
        if centroids.hash != self._hash:
            self.note = (
                f"the centroids fitted on frame {self.row} are {centroids.hash[:16]}, the run had "
                f"{self._hash[:16] or 'none'}: these are other frames, or it took them from the "
                "cache of an earlier run; name that folder with --cache"
            )


class RecordedTrainer:
    """A trainer that has each frame served by the student that served it then.

    Parameters
    ----------
    options : NodeOptions
    students : callable
        Hash -> the student that was kept, or None: then all stages up to it are learned again.
    table : mapping of str to list
        Of the run; row i is frame i.

    Attributes
    ----------
    row : int
        The frame that is labelled next.
    learned : set of str
        Hashes of the students that were learned again.
    notes : list of str
        Students that did not come out the same.
    """

    def __init__(
        self, options: NodeOptions, students: Callable[[str], Student | None], table: Table
    ) -> None:
        self.row = 0
        self.learned: set[str] = set()
        self.notes: list[str] = []
        self._students = students
        self._table = table
        self._serving = ""
        self._stages: list[Stage] = []
        self._outcomes: list[Outcome] = []
        self._trainer = InlineTrainer(options.student, promotion=options.promotion)

    def submit(self, stage: Stage) -> None:
        """Keep the stage, in case that its student has to be learned again."""
        self._stages.append(stage)

    def collect(self) -> list[Outcome]:
        """Return the student that served from this frame on, if it is another one."""
        wanted = str(self._table["student_hash"][self.row])
        if not wanted or wanted == self._serving:
            return []
        self._serving = wanted
        kept = self._students(wanted)
        if kept is not None:
            return [Outcome(_record_of(kept), kept)]
        return self._learn(wanted, int(self._table["student_revision"][self.row]))

    def progress(self) -> Progress:
        """Nothing is told."""
        return Progress()

    def close(self) -> None:
        """Nothing runs."""

    def _learn(self, wanted: str, revision: int) -> list[Outcome]:
        """Learn the stages up to a student again: each begins from those before it."""
        while len(self._outcomes) <= revision and self._stages:
            self._trainer.submit(self._stages.pop(0))
            self._outcomes += self._trainer.collect()
        if len(self._outcomes) <= revision:
            self.notes.append(
                f"student {wanted[:16]} was not made again: these frames lead to "
                f"{len(self._outcomes)} stages up to row {self.row}, the run had {revision + 1}"
            )
            return []
        outcome = self._outcomes[revision]
        if outcome.student is None:
            self.notes.append(
                f"student {wanted[:16]} was not made again: what was learned in stage {revision} "
                f"is refused ({outcome.record.reason})"
            )
            return []
        self.learned.add(wanted)
        if outcome.student.hash != wanted:
            self.notes.append(
                f"student {wanted[:16]} came out as {outcome.student.hash[:16]}: learned from "
                "other frames, or with other versions or another kind of processor"
            )
        return [outcome]


def _record_of(student: Student) -> StageRecord:
    """Return the record of a student that was kept: it served."""
    return StageRecord(
        stage=student.revision,
        frames=(),
        rounds=0,
        delta=NAN,
        converged=False,
        promoted=True,
        reason="",
        iou_to_anchor=NAN,
        area_change=NAN,
        student_hash=student.hash,
        parent_hash="",
        centroids_hash="",
    )
