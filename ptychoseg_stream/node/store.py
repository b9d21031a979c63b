"""Where centroids and students are kept: HDF5 files named by content hash, and an index.

::

    folder/centroids-<hash>.h5     scaler, PCA, prototypes, their names, options
    folder/student-<hash>.h5       weights of one student
    folder/index/<key>.json        which centroids a frame size and options use
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from ..errors import CentroidsError, StoreError
from ..science.features import FEATURE_VERSION, FEATURES
from ..science.frame import legend
from ..science.learning import Student
from ..science.prototypes import TeacherOptions
from ..science.som import Centroids, options_json
from .options import NodeOptions

log = logging.getLogger(__name__)

CENTROIDS = "ptychoseg centroids"
ARRAYS = (
    "offset",
    "scale",
    "components",
    "prototypes",
    "is_ring",
    "hits",
    "explained_variance",
)


class Store(Protocol):
    """Keeps centroids across runs and restarts, and every student that served."""

    def find_centroids(self, shape: tuple[int, int], options: NodeOptions) -> Centroids | None:
        """Return the centroids for frames of this size and these options, if there are any."""
        ...

    def keep_centroids(
        self, centroids: Centroids, shape: tuple[int, int], options: NodeOptions
    ) -> None:
        """Remember centroids for frames of this size and these options."""
        ...

    def keep_student(self, student: Student, options: NodeOptions) -> None:
        """Remember a student that serves."""
        ...


class MemoryStore:
    """A store that is forgotten with the process: for evaluation and tests.

    Parameters
    ----------
    centroids : Centroids, optional
        Used for every frame size instead of fitting.
    """

    def __init__(self, centroids: Centroids | None = None) -> None:
        self._given = centroids
        self._centroids: dict[str, Centroids] = {}
        self.students: dict[str, Student] = {}

    def find_centroids(self, shape: tuple[int, int], options: NodeOptions) -> Centroids | None:
        """Return the given centroids, else those fitted before."""
        return self._given or self._centroids.get(cache_key(shape, options))

    def keep_centroids(
        self, centroids: Centroids, shape: tuple[int, int], options: NodeOptions
    ) -> None:
        """Remember centroids."""
        self._centroids[cache_key(shape, options)] = centroids

    def keep_student(self, student: Student, options: NodeOptions) -> None:
        """Remember a student by its hash."""
        self.students[student.hash] = student


class FolderStore:
    """A store in a folder; files are written whole or not at all.

    A cached file that cannot be used is reported and fitted anew; a disk that refuses is reported
    and does without the cache: neither may cost a frame its mask.

    Parameters
    ----------
    folder : Path
        Made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_centroids(self, shape: tuple[int, int], options: NodeOptions) -> Centroids | None:
        """Return the cached centroids, if there are any and they fit."""
        try:
            entry = json.loads(self._index(shape, options).read_text())
            return load_centroids(self._folder / entry["centroids"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, CentroidsError) as error:
            log.warning("cached centroids are not used and will be fitted anew: %s", error)
            return None

    def keep_centroids(
        self, centroids: Centroids, shape: tuple[int, int], options: NodeOptions
    ) -> None:
        """Write centroids and point the index at them."""
        name = f"centroids-{centroids.hash[:16]}.h5"
        with _reported("centroids"):
            save_centroids(centroids, self._folder / name)
            index = self._index(shape, options)
            with _whole(index) as part:
                part.write_text(json.dumps({"centroids": name, "shape": shape}))

    def keep_student(self, student: Student, options: NodeOptions) -> None:
        """Write a student, unless it is there."""
        path = self._folder / f"student-{student.hash[:16]}.h5"
        if not path.exists():
            with _reported("student"):
                save_student(student, path, options)

    def _index(self, shape: tuple[int, int], options: NodeOptions) -> Path:
        return self._folder / "index" / f"{cache_key(shape, options)}.json"


def cache_key(shape: tuple[int, int], options: NodeOptions) -> str:
    """Digest of all that cached centroids must match: frame size, options, feature version."""
    what = {
        "shape": list(shape),
        "fit_on": options.fit_on,
        "teacher": asdict(options.teacher),
        "prepare": asdict(options.prepare),
        "feature_version": FEATURE_VERSION,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


def save_centroids(centroids: Centroids, path: Path) -> None:
    """Write centroids to an HDF5 file, whole or not at all.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    with _whole(path) as part, h5py.File(part, "w") as file:
        for name in ARRAYS:
            file[name] = getattr(centroids, name)
        file.attrs["kind"] = CENTROIDS
        file.attrs["feature_version"] = centroids.feature_version
        file.attrs["features"] = list(FEATURES)
        file.attrs["options"] = options_json(centroids.options)
        file.attrs["k_elbow"] = centroids.k_elbow
        file.attrs["hash"] = centroids.hash
        file.attrs["class_codes"] = json.dumps(legend())


def load_centroids(path: Path) -> Centroids:
    """Read centroids.

    Raises
    ------
    CentroidsError
        If the file is missing, damaged, or of another feature version.
    """
    try:
        with h5py.File(path, "r") as file:
            version = int(file.attrs.get("feature_version", -1))
            _check_kind(file, path, CENTROIDS)
            if version != FEATURE_VERSION:
                raise CentroidsError(
                    f"{path} was made with feature version {version}, this is version "
                    f"{FEATURE_VERSION}; fit it again with `ptychoseg fit`"
                )
            arrays: dict[str, Any] = {name: np.asarray(file[name]) for name in ARRAYS}
            centroids = Centroids(
                **arrays,
                k_elbow=int(file.attrs["k_elbow"]),
                options=TeacherOptions(**json.loads(str(file.attrs["options"]))),
                feature_version=version,
            )
            if centroids.hash != file.attrs["hash"]:
                raise CentroidsError(f"{path} is damaged: its content does not match its hash")
            return centroids
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise CentroidsError(f"{path} cannot be read as centroids: {error}") from error


def save_student(student: Student, path: Path, options: NodeOptions) -> None:
    """Write the weights of a student to an HDF5 file, whole or not at all.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    with _whole(path) as part, h5py.File(part, "w") as file:
        for name, value in student.weights.items():
            file[f"weights/{name}"] = value
        file.attrs["kind"] = "ptychoseg student"
        file.attrs["revision"] = student.revision
        file.attrs["hash"] = student.hash
        file.attrs["options"] = json.dumps(asdict(options.student), sort_keys=True)


def load_student(path: Path, options: NodeOptions) -> Student:
    """Read a student.

    Raises
    ------
    CentroidsError
        If the file is missing, damaged, or of a net of another size.
    """
    try:
        with h5py.File(path, "r") as file:
            _check_kind(file, path, "ptychoseg student")
            group = file["weights"]
            weights = {name: np.asarray(group[name]) for name in group}
            student = Student.of(weights, int(file.attrs["revision"]), options.student)
            if student.hash != file.attrs["hash"]:
                raise CentroidsError(f"{path} is damaged: its content does not match its hash")
            return student
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise CentroidsError(f"{path} cannot be read as a student: {error}") from error


def _check_kind(file: h5py.File, path: Path, kind: str) -> None:
    if file.attrs.get("kind") != kind:
        advice = "; make them with `ptychoseg fit`" if kind == CENTROIDS else ""
        raise CentroidsError(f"{path} does not hold {kind}{advice}")


@contextlib.contextmanager
def _whole(path: Path) -> Generator[Path]:
    """Write beside `path`, then rename: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _reported(what: str) -> Generator[None]:
    try:
        yield
    except (OSError, StoreError) as error:
        log.warning("the %s could not be cached, going on without: %s", what, error)
