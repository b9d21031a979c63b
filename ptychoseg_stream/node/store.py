"""Where centroids and students are kept: HDF5 files named by content hash, and an index.

::

    folder/centroids-<hash>.h5     scaler, PCA, prototypes, their names, options
    folder/student-<hash>.h5       weights of one student, and what it was made of
    folder/index/<key>.json        which centroids a frame size and options use
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from ..errors import CentroidsError, StoreError
from ..science.features import FEATURE_VERSION, FEATURES
from ..science.frame import legend
from ..science.prototypes import TeacherOptions
from ..science.som import Centroids, options_json
from .files import check_kind, whole
from .options import NodeOptions
from .students import StoredStudent, load_student, save_student, student_name

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


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Centroids that there were when a run began.

    Parameters
    ----------
    shape : tuple of int
        ``(H, W)`` of the frames they are for.
    centroids : Centroids
    """

    shape: tuple[int, int]
    centroids: Centroids


class Store(Protocol):
    """Keeps centroids across runs and restarts, and every student that served."""

    def known(self, options: NodeOptions) -> tuple[Known, ...] | None:
        """Return all centroids for these options; None: they are to be looked for frame by frame.

        A run takes none that were fitted after it began, not even by itself: so it comes out the
        same when it is labelled again.
        """
        ...

    def find_centroids(self, shape: tuple[int, int], options: NodeOptions) -> Centroids | None:
        """Return the centroids for frames of this size and these options, if there are any."""
        ...

    def keep_centroids(
        self, centroids: Centroids, shape: tuple[int, int], options: NodeOptions
    ) -> None:
        """Remember centroids for frames of this size and these options."""
        ...

    def keep_student(self, stored: StoredStudent) -> None:
        """Remember a student that serves; one that was refused is not kept."""
        ...

    def find_student(self, student_hash: str) -> StoredStudent:
        """Return the student of this hash.

        Raises
        ------
        CentroidsError
            If it was not kept, or its file is damaged.
        """
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
        self._centroids: dict[str, Known] = {}
        self.students: dict[str, StoredStudent] = {}

    def known(self, options: NodeOptions) -> tuple[Known, ...] | None:
        """Return what was fitted before; None if centroids were given."""
        if self._given is not None:
            return None
        entries = self._centroids.items()
        return tuple(e for key, e in entries if key == cache_key(e.shape, options))

    def find_centroids(self, shape: tuple[int, int], options: NodeOptions) -> Centroids | None:
        """Return the given centroids, else those fitted before."""
        found = self._centroids.get(cache_key(shape, options))
        return self._given or (found.centroids if found else None)

    def keep_centroids(
        self, centroids: Centroids, shape: tuple[int, int], options: NodeOptions
    ) -> None:
        """Remember centroids."""
        self._centroids[cache_key(shape, options)] = Known(shape, centroids)

    def keep_student(self, stored: StoredStudent) -> None:
        """Remember a student by its hash."""
        self.students[stored.student.hash] = stored

    def find_student(self, student_hash: str) -> StoredStudent:
        """Return a student that was kept before."""
        if student_hash not in self.students:
            raise CentroidsError(f"student {student_hash[:16]} was not kept in memory")
        return self.students[student_hash]


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

    def known(self, options: NodeOptions) -> tuple[Known, ...] | None:
        """Return what is cached for these options, for all sizes of frames."""
        shapes = sorted(filter(None, map(_shape_in, self._folder.glob("index/*.json"))))
        entries = ((each, self.find_centroids(each, options)) for each in shapes)
        return tuple(Known(shape, found) for shape, found in entries if found is not None)

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
            with whole(index) as part:
                part.write_text(json.dumps({"centroids": name, "shape": shape}))

    def centroids_of(self, centroids_hash: str) -> Centroids | None:
        """Return the centroids with this hash; None if they are not here."""
        path = self._folder / f"centroids-{centroids_hash[:16]}.h5"
        try:
            found = load_centroids(path) if path.exists() else None
        except CentroidsError as error:
            log.warning("kept centroids are not used and will be fitted anew: %s", error)
            return None
        return found if found is not None and found.hash == centroids_hash else None

    def keep_student(self, stored: StoredStudent) -> None:
        """Write a student, unless it is there."""
        path = self._folder / student_name(stored.student.hash)
        if not path.exists():
            with _reported("student"):
                save_student(stored, path)

    def find_student(self, student_hash: str) -> StoredStudent:
        """Read a student of this or an earlier process."""
        path = self._folder / student_name(student_hash)
        if not path.exists():
            raise CentroidsError(
                f"{path} is not there: student {student_hash[:16]} was made with another cache, "
                "or the file was removed; point `cache` of the profile at the right folder"
            )
        stored = load_student(path)
        if stored.student.hash != student_hash:
            raise CentroidsError(
                f"{path} holds student {stored.student.hash}, not {student_hash}; remove the file"
            )
        return stored

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
    with whole(path) as part, h5py.File(part, "w") as file:
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
            check_kind(file, path, CENTROIDS, "; make them with `ptychoseg fit`")
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


def _shape_in(index: Path) -> tuple[int, int] | None:
    """Return the size of frames that an entry of the index is for; None if it cannot be read."""
    try:
        height, width = json.loads(index.read_text())["shape"]
        return int(height), int(width)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("cached centroids are not used and will be fitted anew: %s: %s", index, error)
        return None


@contextlib.contextmanager
def _reported(what: str) -> Generator[None]:
    try:
        yield
    except (OSError, StoreError) as error:
        log.warning("the %s could not be cached, going on without: %s", what, error)
