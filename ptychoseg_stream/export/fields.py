"""What a CXI file says beside its stacks of frames, and where.

Sources: CXI file format 1.6, NeXus definitions NXcxi_ptycho, NXdetector, NXdata; names and signs
are those that cdtools, PtyPy and ptychodus read.
"""

import json
from datetime import UTC, datetime
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..science.experiment import EV, Positions
from ..science.frame import BitMap, ValidBit, bit_legend, legend
from .probe import first_probe
from .record import ExportRun

ENTRY = "entry_1"
INSTRUMENT = f"{ENTRY}/instrument_1"
SOURCE = f"{INSTRUMENT}/source_1"
BEAM = f"{INSTRUMENT}/beam_1"
DETECTOR = f"{INSTRUMENT}/detector_1"
SAMPLE = f"{ENTRY}/sample_1"
GEOMETRY = f"{SAMPLE}/geometry_1"
PROCESS = f"{ENTRY}/process_1"
DATA = f"{ENTRY}/data_1"

CXI_VERSION = 160
CXI_BITS = {
    ValidBit.GAP: 0x200,  # missing
    ValidBit.DEAD: 0x8,
    ValidBit.HOT: 0x4,
    ValidBit.USER: 0x40,  # to be ignored
    ValidBit.STOP: 0x10,  # shadowed
    ValidBit.COSMIC: 0x80,  # bad
    ValidBit.SATURATED: 0x2,
}
"""Reasons as CXI names them. Never 0x1000, which says "has signal" to some readers and "not to be
used" to others."""
LEAST_DARK = np.float32(1e-6)
"""Counts that stand for no background: readers take the root of it."""

_CLASSES = {
    ENTRY: "NXentry",
    INSTRUMENT: "NXinstrument",
    SOURCE: "NXsource",
    BEAM: "NXbeam",
    DETECTOR: "NXdetector",
    SAMPLE: "NXsample",
    GEOMETRY: "NXcollection",
    DATA: "NXdata",
    PROCESS: "NXprocess",
    f"{PROCESS}/provenance": "NXnote",
}


def write_fields(file: h5py.File, run: ExportRun) -> None:
    """Write all that is not a stack of frames.

    Parameters
    ----------
    file : h5py.File
        Empty.
    run : ExportRun
    """
    file.attrs["NX_class"] = "NXroot"
    file.attrs["default"] = ENTRY
    file["cxi_version"] = CXI_VERSION
    file["number_of_entries"] = 1
    for path, kind in _CLASSES.items():
        file.create_group(path, track_order=True).attrs["NX_class"] = kind
    _write_entry(file, run)
    _write_source(file, run)
    _write_detector(file, run)
    _write_masks(file, run)
    _write_positions(file, run)
    _write_process(file, run)


def cxi_mask(bits: BitMap) -> NDArray[np.uint32]:
    """Return ``(H, W)`` of the reasons that CXI has, 0 for a good pixel."""
    mask = np.zeros(bits.shape, np.uint32)
    for ours, theirs in CXI_BITS.items():
        mask[(bits & np.uint16(ours)) != 0] |= np.uint32(theirs)
    mask[(bits != 0) & (mask == 0)] = 1  # a reason that CXI does not have: invalid
    return mask


def translations(positions: Positions) -> NDArray[np.float64]:
    """Return ``(n, 3)`` x, y, z of the sample [m] as CXI has it, from y, x of the probe.

    CXI's x and y are those of the basis vectors of the detector, against which its rows and columns
    run (row along -y, column along -x). There the probe is at (-x, -y), and the sample, which moves
    the other way, at (+x, +y): numbers as they are, in the order x, y.
    """
    return np.column_stack([positions[:, 1], positions[:, 0], np.zeros(len(positions))])


def put(file: h5py.File, path: str, value: Any, units: str = "", **attributes: Any) -> None:
    """Write one field with its attributes."""
    field = file.create_dataset(path, data=value)
    if units:
        field.attrs["units"] = units
    field.attrs.update(attributes)


def _write_entry(file: h5py.File, run: ExportRun) -> None:
    file[ENTRY].attrs["default"] = DATA.rpartition("/")[2]
    put(file, f"{ENTRY}/definition", "NXcxi_ptycho")
    # cdtools tries to read a title as a date: of a long number it would fail.
    number = run.scan_id if run.scan_id.isdecimal() and len(run.scan_id) < 10 else ""
    put(file, f"{ENTRY}/title", f"ptychography scan {number}".strip())
    put(file, f"{ENTRY}/program_name", "ptychoseg_stream")
    put(file, f"{ENTRY}/entry_identifier", run.raw_uid)
    for name, time in (("start_time", run.began), ("end_time", run.ended)):
        if time > 0:
            put(file, f"{ENTRY}/{name}", datetime.fromtimestamp(time, UTC).isoformat())
    put(file, f"{SAMPLE}/name", run.sample or "unknown")
    put(file, f"{INSTRUMENT}/name", "unknown")  # PyNX wants one


def _write_source(file: h5py.File, run: ExportRun) -> None:
    energy = run.experiment.energy * EV
    put(file, f"{SOURCE}/energy", energy, "J")
    put(file, f"{SOURCE}/wavelength", run.experiment.wavelength, "m")
    put(
        file,
        f"{SOURCE}/illumination",
        first_probe(run.products),
        meaning="first guess of the probe in the plane of the sample: root of the mean bright "
        "field inside the pupil, transformed back; defocus is not in it",
    )
    put(file, f"{BEAM}/energy", energy, "J")
    put(file, f"{BEAM}/incident_beam_energy", energy, "J")
    put(file, f"{BEAM}/incident_wavelength", run.experiment.wavelength, "m")


def _write_detector(file: h5py.File, run: ExportRun) -> None:
    y, x = run.experiment.pixel_size
    distance = run.experiment.distance
    put(file, f"{DETECTOR}/distance", distance, "m")
    put(file, f"{DETECTOR}/x_pixel_size", x, "m")
    put(file, f"{DETECTOR}/y_pixel_size", y, "m")
    # Columns: one step along rows, one along columns, as x, y, z.
    basis = np.array([[0.0, -x], [-y, 0.0], [0.0, 0.0]])
    put(file, f"{DETECTOR}/basis_vectors", basis, "m")
    centre_y, centre_x = _centre(run)
    corner = np.array([centre_x * x, centre_y * y, distance])
    put(file, f"{DETECTOR}/corner_position", corner, "m")
    put(file, f"{DETECTOR}/beam_center_x", centre_x * x, "m")
    put(file, f"{DETECTOR}/beam_center_y", centre_y * y, "m")


def _centre(run: ExportRun) -> tuple[float, float]:
    """Return y, x of the beam [px]; the middle where it is not known."""
    middle = [(size - 1) / 2 for size in run.shape]
    y, x = (
        float(told) if np.isfinite(told) else middle[axis]
        for axis, told in enumerate(run.products.centre)
    )
    return y, x


def _write_masks(file: h5py.File, run: ExportRun) -> None:
    products = run.products
    put(
        file,
        f"{DETECTOR}/mask",
        cxi_mask(run.static),
        meaning="0: good in every frame, else the reasons of CXI; pixels that are wrong in single "
        "frames are in pixel_mask and valid",
    )
    known = np.isfinite(products.background) & (products.background > LEAST_DARK)
    dark = np.where(known, products.background, LEAST_DARK).astype(np.float32)
    put(file, f"{DETECTOR}/data_dark", dark, "counts", meaning="background; not subtracted in data")
    variance = products.background_variance.astype(np.float32)
    put(file, f"{DETECTOR}/data_dark_variance", variance, "counts^2")
    put(file, f"{DETECTOR}/data_dark_samples", products.background_samples)
    pupil = products.pupil.astype(np.uint8)
    put(file, f"{DETECTOR}/probe_mask", pupil, meaning="1: inside the pupil (the ring)")


def _write_positions(file: h5py.File, run: ExportRun) -> None:
    moved = translations(run.positions)
    put(file, f"{GEOMETRY}/translation", moved, "m", meaning="of the sample, x, y, z of CXI")
    target = h5py.SoftLink(f"/{GEOMETRY}/translation")
    file[f"{DETECTOR}/translation"] = target
    file[f"{DATA}/translation"] = target
    put(file, f"{DATA}/frame_index", run.rows.astype(np.int64), meaning="row of the raw array")


def _write_process(file: h5py.File, run: ExportRun) -> None:
    told, products = run.provenance, run.products
    put(file, f"{PROCESS}/program", "ptychoseg_stream")
    put(file, f"{PROCESS}/version", str(told.get("version", "unknown")))
    put(file, f"{PROCESS}/date", datetime.now(UTC).isoformat(timespec="seconds"))
    note = f"{PROCESS}/provenance"
    put(file, f"{note}/type", "application/json")
    put(file, f"{note}/data", json.dumps(dict(told)))
    put(file, f"{PROCESS}/derived_run", run.uid)
    put(file, f"{PROCESS}/raw_run", run.raw_uid)
    put(file, f"{PROCESS}/class_legend", json.dumps(legend()))
    put(file, f"{PROCESS}/bit_legend", json.dumps(bit_legend()))
    put(file, f"{PROCESS}/pedestal", run.pedestal, meaning="data = (raw - pedestal) / gain")
    put(file, f"{PROCESS}/gain", run.gain, meaning="detector units per photon")
    put(file, f"{PROCESS}/beam_centre", np.array(products.centre), "px", meaning="y, x")
    put(file, f"{PROCESS}/ring_radii", np.array([products.inner, products.outer]), "px")
    file[f"{PROCESS}/frame_index"] = h5py.SoftLink(f"/{DATA}/frame_index")
