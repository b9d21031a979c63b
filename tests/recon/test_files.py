"""Exported files, and others that cdtools reads."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from recon_support import EXPERIMENT, PIXEL, SIDE, Small
from test_engine import EPOCHS, OPTIONS, compare

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.recon.engine import Engine
from ptychoseg_stream.recon.files import read_cxi
from ptychoseg_stream.science.experiment import EV

DETECTOR = "entry_1/instrument_1/detector_1"


def write(path: Path, small: Small, *, exported: bool = True) -> Path:
    """Write a CXI file as an export does; or with frames, static mask and positions only."""
    pitch = EXPERIMENT.pixel_size[0]
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        file["entry_1/instrument_1/source_1/energy"] = EXPERIMENT.energy * EV
        file[f"{DETECTOR}/data"] = small.frames
        file[f"{DETECTOR}/distance"] = EXPERIMENT.distance
        file[f"{DETECTOR}/x_pixel_size"] = file[f"{DETECTOR}/y_pixel_size"] = pitch
        file[f"{DETECTOR}/basis_vectors"] = np.array([[0, -pitch], [-pitch, 0], [0, 0]])
        file[f"{DETECTOR}/mask"] = (small.bits.min(axis=0) > 0).astype(np.uint32) * 4
        y, x = small.positions.T
        moved = np.column_stack([x, y, np.zeros(len(x))])
        file["entry_1/sample_1/geometry_1/translation"] = moved
        file[f"{DETECTOR}/translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")
        file["entry_1/data_1/data"] = h5py.SoftLink(f"/{DETECTOR}/data")
        file["entry_1/data_1/translation"] = h5py.SoftLink(f"/{DETECTOR}/translation")
        if exported:
            products = small.products().of_frames
            file[f"{DETECTOR}/valid"] = (small.bits == 0).astype(np.uint8)
            file[f"{DETECTOR}/data_dark"] = products.background
            file[f"{DETECTOR}/probe_mask"] = products.pupil
            file["entry_1/process_1/class_map"] = small.classes
    return path


def test_an_exported_file_holds_what_the_run_did(small: Small, tmp_path: Path) -> None:
    scan, wanted = read_cxi(write(tmp_path / "run.cxi", small)), small.scan()
    index = wanted.ready
    assert (scan.ready == index).all()
    assert (scan.usable(index) == wanted.usable(index)).all()
    assert (scan.classes == small.classes).all()
    np.testing.assert_allclose(scan.positions, small.positions, rtol=1e-4)
    assert scan.experiment.wavelength == pytest.approx(EXPERIMENT.wavelength, rel=1e-5)
    assert scan.products is not None
    assert wanted.products is not None
    assert (scan.products.pupil == wanted.products.pupil).all()
    np.testing.assert_allclose(scan.products.background, wanted.products.background)


@pytest.mark.parametrize("exported", [True, False])
def test_a_file_is_reconstructed_the_right_way_round(
    small: Small, tmp_path: Path, exported: bool
) -> None:
    engine = Engine(read_cxi(write(tmp_path / "run.cxi", small, exported=exported)), OPTIONS)
    for _ in range(EPOCHS):
        engine.epoch()
    np.testing.assert_allclose(engine.pixel, PIXEL, rtol=1e-4)
    assert engine.probe.shape == (1, SIDE, SIDE)
    # Without the masks of the frames the cosmic rays count.
    assert compare(engine, small).nrmse < (0.3 if exported else 0.5)


def test_what_is_no_scan_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.cxi").write_text("no HDF5")
    with h5py.File(tmp_path / "empty.cxi", "w") as file:
        file["cxi_version"] = 160
    for name in ("text.cxi", "empty.cxi", "missing.cxi"):
        with pytest.raises(DatasetError, match=name):
            read_cxi(tmp_path / name)
