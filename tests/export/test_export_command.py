"""The command, on a run that the node labelled and the HDF5 sink stored."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from export_support import experiment_of, products_of
from numpy.typing import NDArray
from stored_runs import Stored, save_frames, stored
from typer.testing import CliRunner, Result

from ptychoseg_stream.cli import app
from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.export.cxi import write_cxi
from ptychoseg_stream.export.gather import gather
from ptychoseg_stream.export.given import Given
from ptychoseg_stream.export.raw import frames_of_store, open_raw
from ptychoseg_stream.node.ports import Products
from ptychoseg_stream.profile import Profile
from ptychoseg_stream.sim import GoldBalls, Scan, simulate


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulate(GoldBalls(grid=(2, 4), hot_pixels=10, cosmics=2.0))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, scan: Scan) -> Stored:
    """A run of eight frames, of which the node lost one; the raw frames are in a file."""
    folder = tmp_path_factory.mktemp("labelled")
    origin = save_frames(folder / "raw.h5", scan.frames)
    run = stored(folder, list(scan.frames), lost=[3], origin=origin)
    _add_products(run.file, scan)
    return run


def _add_products(path: Path, scan: Scan) -> None:
    """Write what the run says as a whole as the sink does."""
    products, experiment = products_of(scan), experiment_of(scan)
    with h5py.File(path, "a") as file:
        if "products" in file:
            return
        group = file.create_group("products")
        for name in ("pixel_mask", "background", "background_variance", "background_samples"):
            group[name] = getattr(products, name)
        group["pupil"], group["mean"], group["sums"] = products.pupil, products.mean, products.sums
        group["positions"] = scan.positions
        group.attrs.update(
            frames=products.frames,
            used=products.used,
            final=True,
            centre_y=products.centre[0],
            centre_x=products.centre[1],
            radius_inner=products.inner,
            radius_outer=products.outer,
            energy_eV=experiment.energy,
            detector_distance_m=experiment.distance,
            pixel_size_y_m=experiment.pixel_size[0],
            pixel_size_x_m=experiment.pixel_size[1],
        )


def export(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_a_run_of_the_hdf5_sink_is_exported_with_its_own_masks_and_frames(
    tmp_path: Path, labelled: Stored, scan: Scan
) -> None:
    known = Products(products_of(scan), scan.positions, experiment_of(scan), True)
    with labelled.open() as run, open_raw(run, "", Profile()) as raw:
        gathered = gather(replace(run, products=known), raw, Given())
        write_cxi(gathered.run, tmp_path / "run.cxi")
        masks = [run.read("mask", row) for row in gathered.run.rows]
    assert gathered.run.rows.tolist() == [0, 1, 2, 4, 5, 6, 7]
    with h5py.File(tmp_path / "run.cxi") as file:
        raw_frames: Any = file["entry_1/instrument_1/detector_1/raw"]
        assert np.array_equal(raw_frames[:], scan.frames[gathered.run.rows])
        classes: Any = file["entry_1/process_1/class_map"]
        assert np.array_equal(classes[:], np.stack(masks))
        hashes = file["entry_1/process_1/provenance/data"].asstr()[()]
    assert labelled.column("student_hash")[7] in hashes


def test_the_command_writes_a_file_and_says_what_was_left_out(
    tmp_path: Path, labelled: Stored
) -> None:
    with labelled.open() as run:
        if run.products is None:
            pytest.skip("products of a file are not read in this version")
    result = export(labelled.file, "-o", tmp_path / "run.cxi", "--ptychodus", tmp_path / "p.npz")
    assert result.exit_code == 0, result.output
    assert "7 frames of 104x104 px" in result.output
    assert "1 of 8 frames left out: 1 without a mask" in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"run.cxi", "p.npz", "p_positions.csv"}


def test_a_run_of_an_earlier_version_ends_the_command_with_one_line(
    tmp_path: Path, labelled: Stored
) -> None:
    older = tmp_path / "older.h5"
    older.write_bytes(labelled.file.read_bytes())
    with h5py.File(older, "a") as file:
        del file["products"]
    result = export(older, "-o", tmp_path / "run.cxi")
    assert result.exit_code == 2
    assert "label it again with `ptychoseg replay`" in result.output
    assert len(result.output.splitlines()) == 1
    assert not (tmp_path / "run.cxi").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--positions", "none.h5:/p"], "no such file"),
        (["--pixel-size", "a"], "--pixel-size a"),
        (["--ptychodus", "p.zip"], "ends in .npz"),
        (["--frames", "none.h5:/data"], "no such file"),
    ],
)
def test_an_option_that_cannot_be_used_ends_the_command_with_one_line(
    tmp_path: Path, labelled: Stored, options: list[str], message: str
) -> None:
    result = export(labelled.file, "-o", tmp_path / "run.cxi", *options)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.splitlines()) == 1


def test_a_file_that_is_there_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "run.cxi").touch()
    result = export("no-such-run", "-o", tmp_path / "run.cxi")
    assert result.exit_code == 2
    assert "--force" in result.output


def test_a_run_whose_frames_came_in_events_says_how_to_name_them(
    tmp_path: Path, scan: Scan
) -> None:
    run = stored(tmp_path, list(scan.frames[:1]))
    result = export(run.file, "-o", tmp_path / "run.cxi", "--profile", "demo")
    assert result.exit_code == 2
    assert "--frames FILE:/dataset" in result.output
    assert "`raw.uri`" in result.output


class Kept:
    """A store of raw runs that has three frames of one key."""

    def __init__(self, scan: Scan) -> None:
        self.frames = scan.frames[:3]

    def start_of(self, uid: str) -> Mapping[str, Any] | None:
        return None

    def notes_of(self, run_uid: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return ()

    def stop_of(self, run_uid: str) -> Mapping[str, Any] | None:
        return None

    def read(
        self, run_uid: str, stream: str, data_key: str, first: int, last: int
    ) -> NDArray[Any] | None:
        known = (run_uid, stream, data_key) == ("raw", "primary", "image")
        frames = self.frames[first:last]
        return frames if known and len(frames) else None

    def count(self, run_uid: str, stream: str, data_key: str) -> int:
        return len(self.frames)


def test_raw_frames_are_had_from_a_store_of_raw_runs(labelled: Stored, scan: Scan) -> None:
    with labelled.open() as run:
        raw = frames_of_store(run, Kept(scan), "tiled://127.0.0.1:8000")
    assert raw.count == 3
    assert np.array_equal(raw.read(2), scan.frames[2])
    with pytest.raises(DatasetError, match="no frame 3; give the raw frames with --frames"):
        raw.read(3)
