"""From what is stored of a run, its raw frames and what was given: a run with nothing missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError, StoreError
from ..node.ports import Products
from ..science.experiment import Experiment, Positions
from ..sinks.arrays import MASK, VALID_BITS
from ..sinks.stored import StoredRun
from .given import POSITIONS, Given
from .raw import RawFrames
from .record import ExportRun

_TAKEN = f"ts_{MASK}"  # column: when the frame was taken
_TOLD = ("software", "version", "profile", "trainer", "options_digest", "versions")


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """A run that can be exported, and what its user should know.

    Parameters
    ----------
    run : ExportRun
    notes : tuple of str
        What was left out, and what looks odd, a sentence each.
    """

    run: ExportRun
    notes: tuple[str, ...]


def gather(run: StoredRun, raw: RawFrames, given: Given) -> Gathered:
    """Put a run together.

    What is given counts first, then what the run says, then what the file of the raw frames says.
    Left out are frames without a mask, points that were taken again later (the last attempt
    counts) and frames without a position.

    Raises
    ------
    StoreError
        If the run has no products, no `valid_bits`, or no frame that can be exported.
    DatasetError
        If metadata are missing, or do not fit the run; the text names what supplies them.
    """
    products = _products(run)
    frames = len(run.table["raw_index"])
    experiment = _experiment(products.experiment, raw.experiment, given.experiment)
    positions = _positions(run, products.positions, raw, given, frames)
    _require(run, experiment, positions)
    rows, notes = _chosen(run, positions)
    first = _first_image(run, raw, int(rows[0]), frames)
    notes += _odd(positions[rows], experiment, first.shape)
    if not run.stop:
        notes.append("the run is not over, or its node died: what is stored so far is exported")
    prepare = _processing(run).get("options", {}).get("prepare", {})
    taken = [float(run.table[_TAKEN][row]) for row in rows] if _TAKEN in run.table else [0.0]
    exported = ExportRun(
        uid=run.uid,
        raw_uid=str(run.start.get("original_run_uid", "")),
        rows=rows,
        shape=(first.shape[0], first.shape[1]),
        dtype=first.dtype,
        image=raw.read,
        classes=lambda row: np.asarray(run.read(MASK, row), np.uint8),
        bits=lambda row: np.asarray(run.read(VALID_BITS, row), np.uint16),
        products=products.of_frames,
        positions=positions[rows],
        experiment=experiment,
        pedestal=float(prepare.get("pedestal", 0.0)),
        gain=float(prepare.get("gain", 1.0)),
        began=min(taken),
        ended=max(taken),
        sample=_text(run.start.get("sample", "")),
        scan_id=_text(run.start.get("raw_scan_id", "")),
        provenance=_provenance(run, raw, given, rows),
    )
    return Gathered(exported, tuple(notes))


def _products(run: StoredRun) -> Products:
    if run.products is None:
        raise StoreError(
            f"run {run.uid} holds no products (background, pupil, static mask): it was labelled by "
            "an earlier version, or has no frame with a mask; label it again with `ptychoseg "
            "replay`"
        )
    if VALID_BITS not in run.arrays:
        raise StoreError(
            f"run {run.uid} does not say which pixels are valid: label it again with `ptychoseg "
            f"replay` and `{VALID_BITS}` in `tiled.arrays` of the profile"
        )
    return run.products


def _experiment(*sources: Experiment) -> Experiment:
    """Return what the sources say; the last one that knows counts, but a file only fills gaps."""
    told, file, given = sources
    order = (given, told, file)

    def first(values: Sequence[float]) -> float:
        return next((value for value in values if np.isfinite(value) and value > 0), 0.0)

    return Experiment(
        energy=first([each.energy for each in order]),
        distance=first([each.distance for each in order]),
        pixel_size=(
            first([each.pixel_size[0] for each in order]),
            first([each.pixel_size[1] for each in order]),
        ),
    )


def _positions(
    run: StoredRun, known: Positions, raw: RawFrames, given: Given, frames: int
) -> Positions:
    """Return ``(frames, 2)``; NaN where nobody knows."""
    if given.positions is not None:
        if len(given.positions) != frames:
            raise DatasetError(
                f"{given.source}: {len(given.positions)} positions, run {run.uid} has {frames} "
                "frames; give one of each frame of the raw run"
            )
        return given.positions
    told = np.full((frames, 2), np.nan)
    known = known[:frames]
    told[: len(known)] = known
    if not np.isfinite(told).all(axis=1).any() and raw.positions is not None:
        told[:] = raw.positions if len(raw.positions) == frames else np.nan
    return told


def _require(run: StoredRun, experiment: Experiment, positions: Positions) -> None:
    missing = {
        "energy_eV (give --energy EV)": experiment.energy > 0,
        "detector_distance_m (give --distance METRES)": experiment.distance > 0,
        "detector_pixel_size_m (give --pixel-size METRES, or y,x)": min(experiment.pixel_size) > 0,
        f"positions of the probe (give {POSITIONS})": bool(
            np.isfinite(positions).all(axis=1).any()
        ),
    }
    names = [name for name, there in missing.items() if not there]
    if names:
        raise DatasetError(
            f"run {run.uid} cannot be exported: its raw run does not say {', '.join(names)}; a "
            "start document with these keys makes the options unnecessary"
        )


def _chosen(run: StoredRun, positions: Positions) -> tuple[NDArray[np.intp], list[str]]:
    """Return the rows that are exported, and what is to be told of the others."""
    ok = np.array([status == "ok" for status in run.table["status"]], bool)
    last = ~_superseded(run.table)
    placed = np.isfinite(positions).all(axis=1)
    rows = np.flatnonzero(ok & last & placed)
    left_out = {
        "without a mask (refused or lost)": ~ok,
        "taken again later": ok & ~last,
        "without a position": ok & last & ~placed,
    }
    parts = [f"{int(which.sum())} {why}" for why, which in left_out.items() if which.any()]
    if not len(rows):
        raise StoreError(
            f"run {run.uid} has no frame to export: of {len(ok)} frames, {', '.join(parts) or 0}"
        )
    notes = [f"{len(ok) - len(rows)} of {len(ok)} frames left out: {', '.join(parts)}"]
    return rows, notes if parts else []


def _superseded(table: Mapping[str, Sequence[Any]]) -> NDArray[np.bool_]:
    """Return ``(N,)``: a later attempt took the same point again."""
    events = np.asarray(table["raw_seq_num"], np.int64)
    attempts = np.asarray(table.get("attempt", [0] * len(events)), np.int64)
    _, which = np.unique(events, return_inverse=True)
    last = np.zeros(int(which.max(initial=-1)) + 1, np.int64)
    np.maximum.at(last, which, attempts)
    return (attempts < last[which]) & (events > 0)


def _first_image(run: StoredRun, raw: RawFrames, row: int, frames: int) -> NDArray[Any]:
    """Read a raw frame, and refuse frames that are not those of the run."""
    if 0 <= raw.count < frames:
        raise DatasetError(
            f"{raw.name} has {raw.count} frames, run {run.uid} has {frames}; give those of the run "
            "with --frames FILE:/dataset"
        )
    image, mask = raw.read(row), run.read(MASK, row)
    if image.shape != mask.shape:
        raise DatasetError(
            f"{raw.name} has frames of {image.shape}, the masks of run {run.uid} are {mask.shape}; "
            "give those of the run with --frames FILE:/dataset"
        )
    return image


def _odd(positions: Positions, experiment: Experiment, shape: tuple[int, ...]) -> list[str]:
    """Say when positions cannot be in metres: nothing would overlap, or nothing would move."""
    if len(positions) < 2:
        return []
    size = experiment.wavelength * experiment.distance / np.array(experiment.pixel_size)  # (2,) m
    steps = np.abs(np.diff(positions, axis=0)).max(axis=1)
    span = np.ptp(positions, axis=0).max()
    if float(np.median(steps)) > float(size.max()) or span < float((size / shape).min()):
        return [
            f"the probe moves by {np.median(steps):.3g} m from frame to frame, {span:.3g} m in "
            f"all, and a frame sees {size.max():.3g} m of the sample: are positions, energy, "
            "distance and pixel size in m and eV (--positions-unit)?"
        ]
    return []


def _processing(run: StoredRun) -> Mapping[str, Any]:
    return run.start.get("processing", {})


def _text(value: Any) -> str:
    name = value.get("name", "") if isinstance(value, Mapping) else value
    return str(name)


def _provenance(
    run: StoredRun, raw: RawFrames, given: Given, rows: NDArray[np.intp]
) -> dict[str, Any]:
    processing, table = _processing(run), run.table
    return {
        "derived_run": run.uid,
        "raw_run": str(run.start.get("original_run_uid", "")),
        "raw_frames": raw.name,
        "positions": given.source or "as the raw run says",
        **{key: processing[key] for key in _TOLD if key in processing},
        "exported_with": version("ptychoseg-stream"),
        "student_hashes": sorted({str(table["student_hash"][row]) for row in rows} - {""}),
        "centroids_hashes": sorted({str(table["centroids_hash"][row]) for row in rows} - {""}),
    }
