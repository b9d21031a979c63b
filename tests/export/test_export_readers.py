"""What PtyPy, ptychodus and PyNX make of the files, each read as its own source reads.

Their readers are written again here: PtyPy's licence and ptychodus' size forbid to depend on them.
"""

import csv
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from export_support import export_of, exported
from numpy.typing import NDArray

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.export.ptychodus import write_ptychodus
from ptychoseg_stream.export.record import ExportRun
from ptychoseg_stream.science.experiment import EV
from ptychoseg_stream.sim import Scan

DETECTOR = "entry_1/instrument_1/detector_1"


@pytest.fixture
def run(spoiled: Scan) -> ExportRun:
    return export_of(spoiled)


def test_ptypys_hdf5_loader_finds_a_position_and_weights_for_each_frame(
    tmp_path: Path, run: ExportRun
) -> None:
    # ptypy 0.9, ptypy/experiment/hdf5_loader.py: _prepare_intensity_and_positions, _prepare_mask,
    # _prepare_darkfield, _prepare_meta_info, get_corrected_intensities.
    with h5py.File(exported(tmp_path, run)) as file:
        data: Any = file[f"{DETECTOR}/data"]
        moved: Any = file["entry_1/sample_1/geometry_1/translation"]
        slow, fast = moved[:, 1], moved[:, 0]  # positions.slow_index 1, fast_index 0
        assert data.shape[:-2] == slow.shape == fast.shape  # "each point has a co-ordinate"
        assert np.array_equal(np.stack([slow, fast], axis=1), run.positions)
        mask: Any = file[f"{DETECTOR}/valid"]
        assert mask.shape == data.shape  # else it would be taken for one of all frames
        dark: Any = file[f"{DETECTOR}/data_dark"]
        assert dark.shape == data.shape[-2:]
        energy: Any = file["entry_1/instrument_1/source_1/energy"]
        kev = float(energy[()].item()) / EV / 1e3  # recorded_energy.multiplier 6.241509e15
        assert kev == pytest.approx(run.experiment.energy / 1e3)
        for name in ("distance", "x_pixel_size"):
            field: Any = file[f"{DETECTOR}/{name}"]
            assert field[()].item() > 0


def test_pynx_takes_what_is_not_0_for_bad_and_needs_positions_the_other_way_round(
    tmp_path: Path, run: ExportRun
) -> None:
    # pynx 2022.1, pynx/ptycho/runner/cxi.py: load_scan, load_data.
    with h5py.File(exported(tmp_path, run)) as file:
        mask: Any = file[f"{DETECTOR}/mask"]
        assert np.array_equal((mask[()] != 0).astype(np.int8), run.static != 0)
        assert file["entry_1/instrument_1/name"].asstr()[()]
        assert "dark" not in file[DETECTOR]  # it would take that off; ours is data_dark
        moved: Any = file["entry_1/sample_1/geometry_1/translation"]
        x, _ = moved[0:2]
        assert len(x) == 3  # "less than 4 scan positions": an error, so no silent trap
        assert len(moved[()].T[0:2][0]) == len(run)  # as the page says, in a copy


def test_ptychodus_finds_its_paths_in_the_cxi_file(tmp_path: Path, run: ExportRun) -> None:
    # ptychodus 1.7, ptychodus/plugins/cxi_file.py.
    with h5py.File(exported(tmp_path, run)) as file:
        data: Any = file["entry_1/data_1/data"]
        assert data.ndim == 3
        energy: Any = file["entry_1/instrument_1/source_1/energy"]
        assert float(energy[()]) / EV == pytest.approx(run.experiment.energy)
        mask: Any = file[f"{DETECTOR}/mask"]
        assert np.array_equal(mask[()] != 0, run.static != 0)  # 1 = bad
        moved: Any = file["entry_1/sample_1/geometry_1/translation"]
        assert np.array_equal(moved[:, :2], run.positions[:, ::-1])  # x_m, y_m
        probe: Any = file["entry_1/instrument_1/source_1/illumination"]
        assert probe[()].dtype.kind == "c"


def read_as_ptychodus(path: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Read patterns, indexes and bad pixels as its plug-in "NPZ" does (npz_diffraction_file.py)."""
    contents = np.load(path)
    return contents["patterns"], contents["indexes"], contents["bad_pixels"]


def positions_as_ptychodus(path: Path) -> dict[int, tuple[float, float]]:
    """Read y and x by index as its plug-in "CSV" does (delimited_position_file.py)."""
    with path.open(newline="") as file:
        lines = enumerate(csv.reader(file, delimiter=","))
        return {index: (float(row[0]), float(row[1])) for index, row in lines}


def test_ptychodus_reads_patterns_and_finds_the_position_of_each(
    tmp_path: Path, run: ExportRun
) -> None:
    beside = write_ptychodus(run, tmp_path / "run.npz")
    patterns, indexes, bad = read_as_ptychodus(tmp_path / "run.npz")
    assert patterns.dtype == np.float32
    for pattern, frame in zip(patterns, run.frames(), strict=True):
        assert np.array_equal(pattern, frame.counts)
    assert bad.dtype == bool
    assert np.array_equal(bad, run.static != 0)  # 1 is bad
    places = positions_as_ptychodus(beside)
    assert [places[index] for index in indexes] == [tuple(p) for p in run.positions.tolist()]


def test_files_of_ptychodus_that_are_there_are_kept_unless_forced(
    tmp_path: Path, run: ExportRun
) -> None:
    beside = write_ptychodus(run, tmp_path / "run.npz")
    before = beside.read_text()
    (tmp_path / "run.npz").unlink()
    with pytest.raises(DatasetError, match="--force"):
        write_ptychodus(run, tmp_path / "run.npz")
    assert not (tmp_path / "run.npz").exists()
    write_ptychodus(run, tmp_path / "run.npz", force=True)
    assert beside.read_text() == before
