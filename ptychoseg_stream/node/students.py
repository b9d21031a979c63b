"""A student as a file: its weights, and all that is needed to make it again, bit for bit.

::

    student-<hash>.h5
        weights/<name>     state of the net
        attributes         kind, revision, hash, and the fields of `Provenance`; options as JSON
"""

import json
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import torch

from ..errors import CentroidsError
from ..science.counts import PrepareOptions
from ..science.learning import Student, StudentOptions
from ..science.records import StageRecord
from .files import check_kind, whole

STUDENT = "ptychoseg student"
PACKAGES = ("torch", "numpy")
"""What the last bits of the weights depend on, beside the kind of processor."""


def processor() -> str:
    """Kind of processor and the widest vector instructions that PyTorch uses, such as AVX2."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def versions_here() -> dict[str, str]:
    """Versions and processor that a student made here depends on."""
    return {name: version(name) for name in PACKAGES} | {"machine": processor()}


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a student was made of. The same again gives the same student.

    Parameters
    ----------
    run : str
        Uid of the raw run.
    frames : tuple of int
        Indices of the staged frames, in order.
    stage : int
        Counted over the run; it seeds the training, together with the seed of the options.
    centroids_hash : str
        Of the teacher that labelled the staged frames.
    parent_hash : str
        Of the student it began from; "" for none.
    student : StudentOptions
        With the seed.
    prepare : PrepareOptions
        How the frames were prepared.
    versions : dict of str to str
        Of `PACKAGES`, and the machine.
    """

    run: str
    frames: tuple[int, ...]
    stage: int
    centroids_hash: str
    parent_hash: str
    student: StudentOptions
    prepare: PrepareOptions
    versions: dict[str, str] = field(default_factory=versions_here)

    @classmethod
    def of(
        cls, record: StageRecord, run: str, student: StudentOptions, prepare: PrepareOptions
    ) -> "Provenance":
        """Make it of the record of a stage that was promoted, here and now."""
        parents = (record.centroids_hash, record.parent_hash)
        return cls(run, record.frames, record.stage, *parents, student, prepare)

    def differences(self) -> str:
        """Say which versions differ from those here: why a student may not come out the same."""
        here = versions_here()
        return ", ".join(
            f"{name} {was} (here {here.get(name, 'none')})"
            for name, was in sorted(self.versions.items())
            if here.get(name) != was
        )


@dataclass(frozen=True, slots=True, eq=False)
class StoredStudent:
    """A student with its provenance."""

    student: Student
    provenance: Provenance


def student_name(student_hash: str) -> str:
    """Return the file name of a student."""
    return f"student-{student_hash[:16]}.h5"


def save_student(stored: StoredStudent, path: Path) -> None:
    """Write a student to an HDF5 file, whole or not at all.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    student, made_of = stored.student, stored.provenance
    with whole(path) as part, h5py.File(part, "w") as file:
        for name, value in student.weights.items():
            file[f"weights/{name}"] = value
        file.attrs["kind"] = STUDENT
        file.attrs["revision"] = student.revision
        file.attrs["hash"] = student.hash
        file.attrs["run"] = made_of.run
        file.attrs["frames"] = np.array(made_of.frames, np.int64)
        file.attrs["stage"] = made_of.stage
        file.attrs["centroids_hash"] = made_of.centroids_hash
        file.attrs["parent_hash"] = made_of.parent_hash
        for name in ("student", "prepare", "versions"):
            file.attrs[name] = json.dumps(asdict(made_of)[name], sort_keys=True)


def load_student(path: Path) -> StoredStudent:
    """Read a student.

    Raises
    ------
    CentroidsError
        If the file is missing, damaged, or of a version with other options.
    """
    try:
        with h5py.File(path, "r") as file:
            check_kind(file, path, STUDENT)
            made_of = _provenance(file)
            group = file["weights"]
            weights = {name: np.asarray(group[name]) for name in group}
            student = Student.of(weights, int(file.attrs["revision"]), made_of.student)
            if student.hash != file.attrs["hash"]:
                raise CentroidsError(f"{path} is damaged: its content does not match its hash")
            return StoredStudent(student, made_of)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CentroidsError(f"{path} cannot be read as a student: {error}") from error


def _provenance(file: h5py.File) -> Provenance:
    attributes = file.attrs
    return Provenance(
        run=str(attributes["run"]),
        frames=tuple(int(i) for i in attributes["frames"]),
        stage=int(attributes["stage"]),
        centroids_hash=str(attributes["centroids_hash"]),
        parent_hash=str(attributes["parent_hash"]),
        student=StudentOptions(**json.loads(str(attributes["student"]))),
        prepare=PrepareOptions(**json.loads(str(attributes["prepare"]))),
        versions=dict(json.loads(str(attributes["versions"]))),
    )
