"""Frames with what is known about them, and what their masks are compared with."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError, FrameError
from ..node.options import NodeOptions
from ..science.experiment import Experiment, ExperimentOptions, experiment_of
from ..science.frame import ClassMap
from ..sim.gold_balls import GoldBalls, Scan, simulate
from ..sources.arrays.labels import read_labels
from ..sources.arrays.stack import open_hdf5, open_stack, split_target
from ..sources.recorded.scan_facts import read_facts
from .evaluate import reference_of

SIMULATIONS = {
    "sim": GoldBalls(),
    "sim:strong": GoldBalls(strong=True),
    "sim:drift": GoldBalls(strong=True, drift=(4.0, -3.0)),
}


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Frames in memory with what is known about them.

    Parameters
    ----------
    name : str
    frames : ndarray
        ``(n, h, w)`` detector units.
    truth : ndarray of uint8 or None
        ``(n, h, w)`` class codes, of simulated frames.
    positions : ndarray or None
        ``(n, 2)`` y and x [m].
    experiment : Experiment
        Energy and geometry, as far as they are known.
    """

    name: str
    frames: NDArray[Any]
    truth: ClassMap | None = None
    positions: NDArray[np.float64] | None = None
    experiment: Experiment = field(default_factory=Experiment)


def read_material(target: str, limit: int = 0) -> Material:
    """Simulate or read frames; the first `limit`, 0 for all.

    ``sim`` is the clean gold-ball scan, ``sim:strong`` one whose sample modulates the ring,
    ``sim:drift`` that with a beam that drifts by 5 px.

    Raises
    ------
    DatasetError
        As `open_stack`.
    """
    if target in SIMULATIONS:
        options = SIMULATIONS[target]
        scan: Scan = simulate(replace(options, n_frames=min(limit or 150, options.length)))
        return Material(target, scan.frames, scan.truth, scan.positions, scan.experiment)
    with open_stack(target) as stack:
        frames = stack[: limit or len(stack)]
        positions = None if stack.positions is None else stack.positions[: len(frames)]
        energy = Experiment(stack.energy or 0.0)
    path, _ = split_target(target)
    dataset = stack.name.removeprefix(str(path)).removeprefix(":")
    known = _experiment(path, dataset) if dataset else energy
    return Material(stack.name, frames, None, positions, known)


def _experiment(path: Path, dataset: str) -> Experiment:
    with open_hdf5(path) as file:
        return experiment_of(read_facts(file, dataset, 0).metadata, ExperimentOptions())


def references(material: Material, labels: str, options: NodeOptions) -> tuple[str, list[ClassMap]]:
    """Return what masks are compared with, and what to call it.

    Raises
    ------
    DatasetError
        If the labels do not fit the frames.
    """
    n, shape = len(material.frames), material.frames.shape[1:]
    if labels:
        maps = read_labels(labels)
        if maps.shape == shape:
            return f"labels of {labels}", [maps] * n
        if maps.shape[1:] == shape and len(maps) >= n:
            return f"labels of {labels}", list(maps[:n])
        raise DatasetError(
            f"{labels}: labels are {maps.shape}, the frames {material.frames.shape}; "
            "give one map for all frames or one for each"
        )
    if material.truth is not None:
        return "simulated truth", list(material.truth)
    try:
        return "half-maximum of the mean of all frames", [
            reference_of(material.frames, options)
        ] * n
    except FrameError as error:
        raise DatasetError(f"{material.name}: no reference from the mean: {error}") from error
