"""The settings of the node: when it learns, what it serves, and the options of its parts."""

from dataclasses import dataclass, field

from ..science.counts import PrepareOptions
from ..science.frame import Method
from ..science.learning import StudentOptions
from ..science.prototypes import TeacherOptions


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """How frames become masks.

    Parameters
    ----------
    stages : tuple of int
        Frame indices at which a stage is learned, on all frames staged so far. A frame that is
        refused hands its place to the next good one. Empty: the teacher serves alone.
    fit_on : int
        Index of the frame that the centroids are fitted on, when the cache has none.
    serve : {"fused", "student", "teacher"}
        Which mask is published once a student serves; before, it is the teacher's.
    also : tuple of {"teacher", "student", "fused"}
        Masks that are kept beside the served one.
    fusion_weight : float
        Weight of the newest frame in the fused mask.
    prepare : PrepareOptions
    teacher : TeacherOptions
    student : StudentOptions
    """

    stages: tuple[int, ...] = (0, 5, 10, 15, 20)
    fit_on: int = 0
    serve: Method = "fused"
    also: tuple[Method, ...] = ()
    fusion_weight: float = 0.2
    prepare: PrepareOptions = field(default_factory=PrepareOptions)
    teacher: TeacherOptions = field(default_factory=TeacherOptions)
    student: StudentOptions = field(default_factory=StudentOptions)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if list(self.stages) != sorted(set(self.stages)) or any(i < 0 for i in self.stages):
            raise ValueError(f"stages: {list(self.stages)} must be frame indices that rise from 0")
        if self.fit_on < 0 or not 0 < self.fusion_weight <= 1:
            raise ValueError("fit_on must be 0 or more, fusion_weight above 0 and up to 1")
