"""What a CXI or NeXus file says about the scan, beside its frames."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..arrays.discovery import NUMERIC_KINDS, find_energy, find_positions, get_own_dataset, lookup

# Below the entry that holds the frames: places of CXI first, then of NeXus.
_SAMPLE = ("sample_1/name", "sample/name")
_TITLE = ("title",)
_BEGAN = ("start_time",)
_SCAN_ID = ("entry_identifier",)
_DISTANCE = (
    "instrument_1/detector_1/distance",
    "instrument/detector/distance",
    "instrument/detector/detector_distance",
)
_PIXEL_SIZES = (
    ("instrument_1/detector_1/y_pixel_size", "instrument/detector/y_pixel_size"),
    ("instrument_1/detector_1/x_pixel_size", "instrument/detector/x_pixel_size"),
)
_PERIOD = (
    "instrument/detector/frame_time",
    "instrument/detector/count_time",
    "instrument_1/detector_1/count_time",
)
_ENERGY = ("instrument/beam/incident_energy", "instrument/source/energy")
_WAVELENGTH = ("instrument/beam/incident_wavelength",)
_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "m": 1.0, "mm": 1e-3, "um": 1e-6, "ev": 1.0, "kev": 1e3}
_LENGTHS = {"": 1e-10, "angstrom": 1e-10, "a": 1e-10, "nm": 1e-9, "m": 1.0}
_EV_M = 1.23984198e-6  # photon energy times wavelength
_LONGEST = 200  # characters of a text


@dataclass(frozen=True, slots=True, eq=False)
class ScanFacts:
    """What is known of a scan.

    Parameters
    ----------
    began : float
        When it began, else when the file was written [s since the epoch].
    period : float
        From one frame to the next [s]; 0 if unknown.
    metadata : dict
        For the start document: sample, title, scan_id, energy_eV, detector_distance_m,
        detector_pixel_size_m (y and x).
    positions : ndarray or None
        ``(N, 2)`` y and x of each frame [m].
    """

    began: float
    period: float
    metadata: dict[str, Any]
    positions: NDArray[np.float64] | None


def read_facts(file: h5py.File, dataset: str, n_frames: int) -> ScanFacts:
    """Read what a file says; what it does not say, or says in another file, is left out.

    Parameters
    ----------
    file : h5py.File
        Open for reading.
    dataset : str
        Path of the frames; what is said in the same entry counts.
    n_frames : int
        Number of frames.
    """
    entry = dataset.strip("/").split("/")[0]
    root = f"{entry}/" if isinstance(lookup(file, entry), h5py.Group) else ""
    found: dict[str, Any] = {
        "sample": _text(file, root, _SAMPLE),
        "title": _text(file, root, _TITLE),
        "scan_id": _scan_id(_text(file, root, _SCAN_ID)) or scan_id_of(Path(file.filename)),
        "energy_eV": find_energy(file) or _energy(file, root),
        "detector_distance_m": _number(file, root, _DISTANCE),
    }
    sizes = [_number(file, root, paths) for paths in _PIXEL_SIZES]
    if all(sizes):
        found["detector_pixel_size_m"] = sizes
    return ScanFacts(
        began=_began(_text(file, root, _BEGAN)) or modified(Path(file.filename)),
        period=_number(file, root, _PERIOD) or 0.0,
        metadata={key: value for key, value in found.items() if value},
        positions=find_positions(file, n_frames),
    )


def scan_id_of(path: Path) -> int:
    """Return the number in the name of a file, ``scan_0042.h5``; 0 unless there is just one."""
    numbers = re.findall(r"\d+", path.stem)
    return _scan_id(numbers[0]) if len(numbers) == 1 else 0


def modified(path: Path) -> float:
    """Return when a file was written last [s since the epoch]."""
    return path.stat().st_mtime


def _scan_id(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _energy(file: h5py.File, root: str) -> float | None:
    if energy := _number(file, root, _ENERGY):
        return energy
    length = _number(file, root, _WAVELENGTH, _LENGTHS)
    return _EV_M / length if length else None


def _began(text: str) -> float:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _held(file: h5py.File, root: str, paths: tuple[str, ...]) -> h5py.Dataset | None:
    """Return the first of the datasets that is there, and in this file itself."""
    for path in paths:
        dataset = get_own_dataset(file, root + path)
        if dataset is not None and dataset.file.filename == file.filename and dataset.size:
            return dataset
    return None


def _text(file: h5py.File, root: str, paths: tuple[str, ...]) -> str:
    dataset = _held(file, root, paths)
    if dataset is None or dataset.size != 1 or dataset.dtype.kind not in "SO":
        return ""
    try:
        value = np.asarray(dataset[()]).reshape(-1)[0]
    except (OSError, RuntimeError, ValueError):  # damaged, or no text after all
        return ""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.strip()[:_LONGEST]


def _number(
    file: h5py.File, root: str, paths: tuple[str, ...], units: dict[str, float] = _UNITS
) -> float | None:
    """Return a positive number (the first of several) in m, s or eV; None for other units."""
    dataset = _held(file, root, paths)
    if dataset is None or dataset.dtype.kind not in NUMERIC_KINDS:
        return None
    unit: Any = dataset.attrs.get("units", "")
    unit = unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)
    try:
        value = float(dataset[(0,) * dataset.ndim]) * units[unit.strip().lower()]
    except (KeyError, OSError, RuntimeError, ValueError):
        return None
    return value if np.isfinite(value) and value > 0 else None
