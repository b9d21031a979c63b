"""Raw frames of a derived run, wherever they are: a file that is given, that of the run, Tiled."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..assemble import build_raw
from ..errors import DatasetError
from ..node.ports import RawStore
from ..profile import Profile
from ..science.experiment import Experiment, Positions
from ..sinks.stored import StoredRun
from ..sources.arrays.stack import FrameStack, open_hdf5, open_stack, split_target
from ..sources.recorded.scan_facts import read_facts


@dataclass(frozen=True, slots=True, eq=False)
class RawFrames:
    """Frames of a raw run, and what their file says beside them.

    Parameters
    ----------
    name : str
        What messages call them.
    count : int
        Number of frames; -1 if nobody knows.
    read : callable
        Index -> ``(H, W)``; raises `DatasetError` if there is none.
    experiment : Experiment
        As the file of the frames says; 0 where it does not.
    positions : ndarray of float64 or None
        ``(count, 2)`` y and x [m], as the file of the frames says.
    """

    name: str
    count: int
    read: Callable[[int], NDArray[Any]]
    experiment: Experiment = field(default_factory=Experiment)
    positions: Positions | None = None


@contextmanager
def open_raw(run: StoredRun, frames: str, profile: Profile) -> Generator[RawFrames]:
    """Open the raw frames of a run.

    Parameters
    ----------
    run : StoredRun
    frames : str
        ``FILE:/dataset``; empty: where the run says, else the server of the profile's `raw.uri`.
    profile : Profile

    Raises
    ------
    DatasetError
        If they are not to be had; the text says which option names them.
    """
    if frames or run.raw_source:
        with _open_file(run, frames) as stack:
            yield _of_stack(stack, frames or run.raw_source)
        return
    store = build_raw(profile)
    if store is None:
        raise DatasetError(
            f"run {run.uid} does not say where its raw frames are (they came in Events, or from "
            "more than one file), and the profile names no server of raw runs (`raw.uri`); give "
            "the frames with --frames FILE:/dataset"
        )
    try:
        yield frames_of_store(run, store, profile.raw.uri)
    finally:
        store.close()


def _open_file(run: StoredRun, frames: str) -> FrameStack:
    if frames:
        return open_stack(frames)
    try:
        return open_stack(run.raw_source)
    except DatasetError as error:
        raise DatasetError(
            f"{error}; if the raw frames of the run were moved, say with --frames where they are"
        ) from error


def _of_stack(stack: FrameStack, target: str) -> RawFrames:
    path, inner = split_target(target)
    if path.suffix == ".npy":
        return RawFrames(stack.name, len(stack), stack.__getitem__)
    with open_hdf5(path) as file:
        facts = read_facts(file, inner or stack.name.rpartition(":")[2], len(stack))
    energy = float(facts.metadata.get("energy_eV") or 0.0)
    distance = float(facts.metadata.get("detector_distance_m") or 0.0)
    size: Any = facts.metadata.get("detector_pixel_size_m") or (0.0, 0.0)
    said = Experiment(energy, distance, (float(size[0]), float(size[1])))
    return RawFrames(stack.name, len(stack), stack.__getitem__, said, facts.positions)


def frames_of_store(run: StoredRun, store: RawStore, uri: str) -> RawFrames:
    """Return the frames that a store of raw runs has of a run; read one at a time."""
    uid = str(run.start.get("original_run_uid", ""))
    name = f"run {uid} of {uri}"

    def read(index: int) -> NDArray[Any]:
        images = store.read(uid, run.raw_stream, run.raw_data_key, index, index + 1)
        if images is None:
            raise DatasetError(
                f"{name} has no frame {index}; give the raw frames with --frames FILE:/dataset"
            )
        return np.asarray(images[0])

    return RawFrames(name, store.count(uid, run.raw_stream, run.raw_data_key), read)
