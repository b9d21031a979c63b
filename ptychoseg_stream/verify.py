"""What the command reproduce does: one row of a stored run made again, and compared."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from .assemble import PACKAGES, package_versions, single_threaded
from .errors import CentroidsError, DatasetError, StoreError
from .evaluation.material import read_material
from .evaluation.reproduce import Comparison, Recipe, reproduce
from .node.options import NodeOptions
from .node.store import FolderStore
from .profile import Profile, load_profile
from .science.learning import Student
from .sinks.stored import StoredRun, open_stored
from .sources.pixel_mask import read_pixel_mask

console = Console(width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True, slots=True)
class ReproduceArguments:
    """As the options of `ptychoseg reproduce`."""

    run: str
    row: int
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
    with open_stored(arguments.run, profile.tiled, key) as run:
        processing = run.start.get("processing", {})
        recipe = _recipe(run, processing, profile, arguments)
        source = arguments.frames or run.raw_source
        if not source:
            raise DatasetError(
                f"run {run.uid} does not say where its raw frames are (they came in Events); give "
                "them with --frames FILE:/dataset"
            )
        console.print(f"run {run.uid}, frames of {source}", highlight=False)
        with console.status("reading frames"):
            frames = read_material(source, arguments.row + 1).frames
        with console.status("labelling") as status:
            found = reproduce(
                run,
                arguments.row,
                frames,
                recipe,
                lambda index: status.update(f"labelling frame {index} of {arguments.row}"),
            )
    _tell(found, processing)
    return found.identical


def _recipe(
    run: StoredRun, processing: Mapping[str, Any], profile: Profile, arguments: ReproduceArguments
) -> Recipe:
    store = FolderStore(Path(arguments.cache or processing.get("cache") or profile.cache or "."))
    hashes = [str(h) for h in run.table["centroids_hash"] if h]
    if not hashes:
        raise StoreError(f"run {run.uid} has no frame with a mask: there is nothing to make again")
    try:
        options = TypeAdapter(NodeOptions).validate_python(processing["options"])
    except (KeyError, ValidationError) as error:
        raise StoreError(
            f"run {run.uid} was made by ptychoseg_stream {processing.get('version', '(unknown)')} "
            f"with options that this version does not have: {' '.join(str(error).split())}"
        ) from error

    def student(student_hash: str) -> Student | None:
        if arguments.retrain:
            return None
        try:
            return store.find_student(student_hash).student
        except CentroidsError:
            return None

    mask = str(processing.get("pixel_mask", ""))
    user = read_pixel_mask(mask) if mask else None
    return Recipe(options, store.centroids_of(hashes[0]), student, user)


def _tell(found: Comparison, processing: Mapping[str, Any]) -> None:
    by = "the teacher alone"
    if found.student_hash:
        how = "learned again" if found.learned_again else "from the store"
        by = f"student {found.student_hash[:16]}, {how}"
    for name, pixels in found.differing.items():
        verdict = f"{pixels} of {found.pixels} pixels differ" if pixels else "identical"
        console.print(f"row {found.row}, {name}: [bold]{verdict}[/]", highlight=False)
    console.print(f"made by {by}", highlight=False)
    if not found.identical:
        console.print(f"versions that differ: {_differences(processing) or 'none'}")


def _differences(processing: Mapping[str, Any]) -> str:
    then: Mapping[str, str] = processing.get("versions", {})
    now = package_versions()
    return ", ".join(
        f"{name} {then.get(name, 'unknown')} (here {now[name]})"
        for name in PACKAGES
        if then.get(name) != now[name]
    )
