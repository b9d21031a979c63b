"""What the command reproduce does: one row of a stored run made again, and compared."""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from .assemble import single_threaded
from .errors import CentroidsError, DatasetError, ProfileError, StoreError
from .evaluation.reproduce import Comparison, Recipe, reproduce
from .node.options import NodeOptions
from .node.store import FolderStore, MemoryStore
from .profile import Profile, load_profile, profile_from
from .provenance import digest_of, environment
from .science.frame import BoolArray
from .science.learning import Student
from .sinks.stored import StoredRun, open_stored
from .sources.arrays.pixel_mask import read_pixel_mask
from .sources.arrays.stack import FrameStack, open_stack

console = Console(width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True, slots=True)
class ReproduceArguments:
    """As the options of `ptychoseg reproduce`."""

    run: str
    row: int = 0
    frames: str = ""
    cache: str = ""
    profile: str = "beamline"
    retrain: bool = False


def reproduce_row(arguments: ReproduceArguments) -> bool:
    """Make a row again, compare it, say what came out.

    Returns
    -------
    bool
        Whether all stored arrays of the row are the same, bit by bit.
    """
    single_threaded()
    profile = load_profile(arguments.profile)
    key = os.environ.get(profile.tiled.api_key_env, "")
    notes: list[str] = []
    with open_stored(arguments.run, profile.tiled, key) as run:
        processing: Mapping[str, Any] = run.start.get("processing", {})
        recipe = _recipe(run, processing, profile, arguments, notes)
        with _open_frames(run, arguments) as frames:
            _say(f"run {run.uid}, frames of {frames.name}")
            with console.status("labelling") as status:
                found = reproduce(
                    run,
                    arguments.row,
                    frames,
                    recipe,
                    lambda index: status.update(f"labelling frame {index} of {arguments.row}"),
                )
    _tell(found, [*notes, *found.notes], processing)
    return found.identical


def _recipe(
    run: StoredRun,
    processing: Mapping[str, Any],
    profile: Profile,
    arguments: ReproduceArguments,
    notes: list[str],
) -> Recipe:
    hashes = [str(h) for h in run.table["centroids_hash"] if h]
    if not hashes:
        raise StoreError(f"run {run.uid} has no frame with a mask: there is nothing to make again")
    kept = _Kept(arguments.cache or str(processing.get("cache", "")) or profile.cache, notes)
    return Recipe(
        _options(run, processing, notes),
        kept.store.centroids_of(hashes[0]) if isinstance(kept.store, FolderStore) else None,
        (lambda _: None) if arguments.retrain else kept.student,
        _user(processing, notes),
    )


class _Kept:
    """Students out of the store, and what is to be told about them."""

    def __init__(self, folder: str, notes: list[str]) -> None:
        self.store = FolderStore(Path(folder).expanduser()) if folder else MemoryStore()
        self._notes = notes
        self._told: set[str] = set()

    def student(self, student_hash: str) -> Student | None:
        """Return the student of this hash, None if it has to be learned again."""
        try:
            stored = self.store.find_student(student_hash)
        except CentroidsError as error:
            self._tell("missing", f"learned again, since {error}")
            return None
        if differences := stored.provenance.differences():
            note = f"student {student_hash[:16]} was learned with {differences}"
            self._tell(differences, note)
        return stored.student

    def _tell(self, kind: str, note: str) -> None:
        """Tell the first of a kind: what is true of one student is mostly true of all."""
        if kind not in self._told:
            self._told.add(kind)
            self._notes.append(note)


def _options(run: StoredRun, processing: Mapping[str, Any], notes: list[str]) -> NodeOptions:
    given = processing.get("options", {})
    version = processing.get("version", "unknown")
    try:
        options = profile_from({"node": given}, f"run {run.uid}").node
    except ProfileError as error:
        raise StoreError(
            f"{error}: the run was made by ptychoseg_stream {version}, whose options this version "
            "does not have; install that one to make it again"
        ) from error
    here = json.loads(json.dumps(asdict(options)))
    if missing := list(_missing(here, given)):
        notes.append(
            f"the run was made by ptychoseg_stream {version}, which had no option "
            f"{', '.join(missing)}: the default of this version is taken"
        )
    return options


def _missing(here: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the options that are not given, those without a value left out."""
    for name, value in here.items():
        if name not in given:
            if value is not None:
                yield f"{prefix}{name}"
        elif isinstance(value, dict):
            yield from _missing(value, given[name], f"{prefix}{name}.")


def _user(processing: Mapping[str, Any], notes: list[str]) -> BoolArray | None:
    target = str(processing.get("pixel_mask", ""))
    if not target:
        return None
    try:
        user = read_pixel_mask(target)
    except DatasetError as error:
        raise DatasetError(f"the pixel mask of the run is needed: {error}") from error
    if processing.get("pixel_mask_digest", "") not in ("", digest_of(user)):
        notes.append(f"the pixel mask {target} is not what it was")
    return user


def _open_frames(run: StoredRun, arguments: ReproduceArguments) -> FrameStack:
    if arguments.frames:
        return open_stack(arguments.frames)
    if not run.raw_source:
        raise DatasetError(
            f"run {run.uid} does not say where its raw frames are (they came in Events, or from "
            "more than one file); give them with --frames FILE:/dataset"
        )
    try:
        return open_stack(run.raw_source)
    except DatasetError as error:
        raise DatasetError(
            f"{error}; if the raw frames of the run were moved, say with --frames where they are"
        ) from error


def _tell(found: Comparison, notes: Sequence[str], processing: Mapping[str, Any]) -> None:
    by = "the teacher alone"
    if found.student_hash:
        how = "learned again" if found.learned_again else "from the store"
        by = f"student {found.student_hash[:16]}, {how}"
    what = "refused" if found.source == "none" else f"{found.source} mask, made by {by}"
    _say(f"row {found.row}: {what}")
    for name, pixels in found.differing.items():
        verdict = f"{pixels} of {found.pixels} pixels differ" if pixels else "identical"
        _say(f"    {name:<12}{verdict}")
    for note in notes:
        _say(f"note: {note}")
    if not found.identical:
        differences = ", ".join(_differences(processing)) or "none"
        _say(f"note: versions that differ: {differences}")


def _differences(processing: Mapping[str, Any]) -> Iterator[str]:
    then: Mapping[str, str] = processing.get("versions", {})
    for name, here in environment().items():
        if (was := then.get(name, "unknown")) != here:
            yield f"{name} {was} (here {here})"


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
