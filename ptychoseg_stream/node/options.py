"""The settings of the node: when it learns, what it serves, and the options of its parts."""

from dataclasses import dataclass, field

from ..science.background import BackgroundOptions
from ..science.counts import PrepareOptions
from ..science.drift import DriftOptions
from ..science.frame import Method
from ..science.fusion import FusionOptions
from ..science.learning import StudentOptions
from ..science.promotion import PromotionOptions
from ..science.prototypes import TeacherOptions
from ..science.validity import ValidityOptions


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
    confidence : bool
        Whether the confidence of every pixel is worked out.
    prepare : PrepareOptions
    validity : ValidityOptions
    teacher : TeacherOptions
    student : StudentOptions
    promotion : PromotionOptions
    fusion : FusionOptions
    drift : DriftOptions
    background : BackgroundOptions
    """

    stages: tuple[int, ...] = (0, 5, 10, 15, 20)
    fit_on: int = 0
    serve: Method = "fused"
    also: tuple[Method, ...] = ()
    confidence: bool = False
    prepare: PrepareOptions = field(default_factory=PrepareOptions)
    validity: ValidityOptions = field(default_factory=ValidityOptions)
    teacher: TeacherOptions = field(default_factory=TeacherOptions)
    student: StudentOptions = field(default_factory=StudentOptions)
    promotion: PromotionOptions = field(default_factory=PromotionOptions)
    fusion: FusionOptions = field(default_factory=FusionOptions)
    drift: DriftOptions = field(default_factory=DriftOptions)
    background: BackgroundOptions = field(default_factory=BackgroundOptions)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if list(self.stages) != sorted(set(self.stages)) or any(i < 0 for i in self.stages):
            raise ValueError(f"stages: {list(self.stages)} must be frame indices that rise from 0")
        if self.fit_on < 0:
            raise ValueError("fit_on must be 0 or more")
