"""Runs to export, made of the simulated scan: what a node stores is taken from the truth."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychoseg_stream.export.cxi import write_cxi
from ptychoseg_stream.export.gather import gather
from ptychoseg_stream.export.given import Given
from ptychoseg_stream.export.raw import RawFrames
from ptychoseg_stream.export.record import ExportRun
from ptychoseg_stream.node.ports import Products
from ptychoseg_stream.science.experiment import HC, Experiment
from ptychoseg_stream.science.frame import ClassCode, ValidBit
from ptychoseg_stream.science.products import RunProducts
from ptychoseg_stream.sim import Scan
from ptychoseg_stream.sim.gold_balls import OBJECT_PIXEL
from ptychoseg_stream.sinks.rows import COLUMNS
from ptychoseg_stream.sinks.stored import StoredRun

PIXEL = 50e-6
SINGLE = np.uint16(ValidBit.COSMIC | ValidBit.SATURATED)
"""Bits that hold for one frame."""


def experiment_of(scan: Scan) -> Experiment:
    """A detector of which one pixel spans what the simulation says."""
    side = scan.frames.shape[1]
    distance = OBJECT_PIXEL * side * PIXEL * scan.energy_eV / HC
    return Experiment(scan.energy_eV, distance, (PIXEL, PIXEL))


def products_of(scan: Scan, gain: float = 1.0, pedestal: float = 0.0) -> RunProducts:
    """What the truth of a scan says as a whole."""
    static = np.bitwise_or.reduce(scan.bits & ~SINGLE, axis=0)
    counts = (scan.frames.astype(np.float64) - pedestal) / gain
    good = scan.bits == 0
    mean = np.where(good, counts, 0).sum(0) / np.maximum(good.sum(0), 1)
    background = np.maximum(scan.background, 1e-6)
    return RunProducts(
        frames=len(scan.frames),
        used=len(scan.frames),
        pixel_mask=static,
        background=background.astype(np.float32),
        background_variance=background.astype(np.float32),
        background_samples=np.full(static.shape, len(scan.frames), np.int32),
        pupil=((scan.truth == ClassCode.RING).mean(0) > 0.5).astype(np.uint8),
        mean=mean.astype(np.float32),
        centre=(51.46, 49.20),
        inner=4.6,
        outer=9.6,
        sums=np.zeros((len(scan.frames), 4)),
    )


def table_of(length: int, **columns: Sequence[Any]) -> dict[str, list[Any]]:
    """The columns of a run of frames that are all good, but for what is given."""
    usual: dict[str, Any] = {"integer": 0, "number": 0.0, "string": "", "boolean": False}
    table = {name: [usual[column.dtype]] * length for name, column in COLUMNS.items()}
    table["raw_index"] = list(range(length))
    table["raw_seq_num"] = list(range(1, length + 1))
    table["status"] = ["ok"] * length
    table["student_hash"] = ["5eed"] * length
    table["ts_mask"] = [1.7e9 + index for index in range(length)]
    return {**table, **{name: list(values) for name, values in columns.items()}}


def stored_run(scan: Scan, **columns: Sequence[Any]) -> StoredRun:
    """A scan as a labelled run in the store; columns of its table may be given."""
    arrays = {"mask": scan.truth, "valid_bits": scan.bits}
    processing = {
        "software": "ptychoseg_stream",
        "version": "0.0",
        "profile": "test",
        "options": {"prepare": {"pedestal": 0.0, "gain": 1.0}},
    }
    return StoredRun(
        uid="derived",
        start={"uid": "derived", "original_run_uid": "raw", "processing": processing},
        table=table_of(len(scan.frames), **columns),
        arrays=tuple(arrays),
        read=lambda name, row: arrays[name][row],
        raw_source="",
        stop={"exit_status": "success"},
        products=Products(products_of(scan), scan.positions, experiment_of(scan), True),
    )


def with_products(run: StoredRun, **parts: Any) -> StoredRun:
    """A run whose products differ in some parts."""
    assert run.products is not None
    return replace(run, products=replace(run.products, **parts))


def raw_of(frames: NDArray[Any]) -> RawFrames:
    return RawFrames("frames.h5:/data", len(frames), lambda index: frames[index])


def export_of(scan: Scan, run: StoredRun | None = None) -> ExportRun:
    return gather(run or stored_run(scan), raw_of(scan.frames), Given()).run


def exported(folder: Path, run: ExportRun, name: str = "run.cxi") -> Path:
    """Write a run and return the file."""
    path = folder / name
    write_cxi(run, path)
    return path
