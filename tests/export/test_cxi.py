"""What is in an exported file: frames, masks, geometry, provenance, and how viewers find them."""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from export_support import SINGLE, export_of, exported
from numpy.typing import NDArray

from ptychoseg_stream.errors import DatasetError, StoreError
from ptychoseg_stream.export.cxi import write_cxi
from ptychoseg_stream.export.record import ExportRun
from ptychoseg_stream.science.experiment import EV
from ptychoseg_stream.science.frame import ValidBit, legend
from ptychoseg_stream.sim import GoldBalls, Scan, simulate

Fields = Callable[[str], Any]
DETECTOR = "instrument_1/detector_1"


@pytest.fixture
def fields(tmp_path: Path, spoiled: Scan) -> Fields:
    return fields_of(exported(tmp_path, export_of(spoiled)))


def fields_of(path: Path) -> Fields:
    """Reads a field below entry_1."""

    def read(name: str) -> Any:
        with h5py.File(path) as file:
            data: Any = file[f"entry_1/{name}"]
            return data.asstr()[()] if h5py.check_string_dtype(data.dtype) else data[()]

    return read


def median_around(image: NDArray[Any], good: NDArray[np.bool_], y: int, x: int) -> float:
    box = (slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2))
    return float(np.median(image[box][good[box]]))


def test_frames_are_photons_and_cosmic_rays_the_median_of_what_is_around(
    fields: Fields, spoiled: Scan
) -> None:
    data, static = fields(f"{DETECTOR}/data"), export_of(spoiled).static
    bits = spoiled.bits | static
    good = bits == 0
    assert np.array_equal(data[good], spoiled.frames[good])
    single = ((spoiled.bits & SINGLE) != 0) & (static == 0)
    assert single.sum() > 20
    assert not np.array_equal(data[single], spoiled.frames[single])
    alone = [p for p in np.argwhere(single) if good[p[0]][around(p[1], p[2])].sum() >= 3]
    for index, y, x in alone:
        expected = median_around(spoiled.frames[index], good[index], y, x)
        assert data[index, y, x] == expected


def around(y: int, x: int) -> tuple[slice, slice]:
    return slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)


def test_pixels_that_are_bad_in_every_frame_are_as_measured_and_gaps_are_0(
    fields: Fields, spoiled: Scan
) -> None:
    data, static = fields(f"{DETECTOR}/data"), export_of(spoiled).static
    gap = (static & np.uint16(ValidBit.GAP)) != 0
    hot = (static & np.uint16(ValidBit.HOT)) != 0
    assert (data[:, gap] == 0).all()
    assert (data[:, hot & ~gap] == spoiled.frames[:, hot & ~gap]).all()


def test_the_frames_as_they_came_are_beside_byte_by_byte(fields: Fields, spoiled: Scan) -> None:
    raw = fields(f"{DETECTOR}/raw")
    assert raw.dtype == spoiled.frames.dtype
    assert np.array_equal(raw, spoiled.frames)


def test_raw_frames_can_be_left_out(tmp_path: Path, spoiled: Scan) -> None:
    write_cxi(export_of(spoiled), tmp_path / "small.cxi", raw=False)
    with h5py.File(tmp_path / "small.cxi") as file:
        assert f"entry_1/{DETECTOR}/raw" not in file


def test_pedestal_and_gain_are_taken_off(tmp_path: Path) -> None:
    scan = simulate(GoldBalls(grid=(1, 2), gain=4.0, pedestal=100.0))
    run = replace(export_of(scan), gain=4.0, pedestal=100.0)
    fields = fields_of(exported(tmp_path, run))
    expected = np.maximum((scan.frames.astype(np.float32) - 100) / 4, 0)
    assert np.array_equal(fields(f"{DETECTOR}/data"), expected)
    assert (fields("process_1/pedestal"), fields("process_1/gain")) == (100.0, 4.0)


def test_each_mask_says_the_same_in_its_own_polarity(fields: Fields, spoiled: Scan) -> None:
    run = export_of(spoiled)
    reasons = fields(f"{DETECTOR}/pixel_mask")
    assert reasons.dtype == np.uint32
    assert np.array_equal(reasons, spoiled.bits | run.static)  # found late, bad before
    assert (reasons < 1 << 16).all()
    assert np.array_equal(fields(f"{DETECTOR}/valid"), reasons == 0)
    assert np.array_equal(fields(f"{DETECTOR}/mask") != 0, run.static != 0)
    assert np.array_equal(fields(f"{DETECTOR}/probe_mask"), run.products.pupil)


def test_no_class_makes_a_pixel_invalid(tmp_path: Path, spoiled: Scan) -> None:
    one, other = export_of(spoiled), export_of(spoiled)
    unlabelled = replace(other, classes=lambda row: np.full(other.shape, 255, np.uint8))
    files = [exported(tmp_path, run, f"{i}.cxi") for i, run in enumerate((one, unlabelled))]
    first, second = (fields_of(file)(f"{DETECTOR}/valid") for file in files)
    assert np.array_equal(first, second)
    assert first.any()


def test_class_maps_carry_their_legend_and_how_they_were_made(
    fields: Fields, spoiled: Scan
) -> None:
    assert np.array_equal(fields("process_1/class_map"), spoiled.truth)
    assert json.loads(fields("process_1/class_legend")) == legend()
    told = json.loads(fields("process_1/provenance/data"))
    assert told["derived_run"] == "derived"
    assert told["raw_run"] == "raw"
    assert told["profile"] == "test"
    assert told["student_hashes"] == ["5eed"]


def test_energies_are_in_joules_and_lengths_in_metres(fields: Fields, spoiled: Scan) -> None:
    experiment = export_of(spoiled).experiment
    for name in ("source_1/energy", "beam_1/energy"):
        assert fields(f"instrument_1/{name}") == pytest.approx(1000 * EV)
    assert fields(f"{DETECTOR}/distance") == experiment.distance
    assert fields(f"{DETECTOR}/x_pixel_size") == experiment.pixel_size[1]
    corner = fields(f"{DETECTOR}/corner_position")
    assert corner.tolist() == pytest.approx([49.20 * 50e-6, 51.46 * 50e-6, experiment.distance])


def test_a_viewer_is_led_from_the_root_to_the_frames(tmp_path: Path, spoiled: Scan) -> None:
    with h5py.File(exported(tmp_path, export_of(spoiled))) as file:
        group: Any = file
        while "default" in group.attrs:
            group = group[group.attrs["default"]]
        assert group.name == "/entry_1/data_1"
        assert group.attrs["NX_class"] == "NXdata"
        signal = group[group.attrs["signal"]]
        assert signal.shape == spoiled.frames.shape
        assert signal.attrs["interpretation"] == "image"
        axes = list(group.attrs["axes"])
        assert len(axes) == signal.ndim
        assert group[axes[0]].shape == (len(spoiled.frames),)


def test_every_group_has_a_class_of_nexus_and_every_length_a_unit(
    tmp_path: Path, spoiled: Scan
) -> None:
    with h5py.File(exported(tmp_path, export_of(spoiled))) as file:

        def check(name: str, node: Any) -> None:
            if isinstance(node, h5py.Group):
                assert str(node.attrs["NX_class"]).startswith("NX"), name
            if name.endswith(("distance", "pixel_size", "translation", "wavelength")):
                assert node.attrs["units"] == "m", name

        file.visititems(check)
        assert file["entry_1/definition"].asstr()[()] == "NXcxi_ptycho"
        assert file["cxi_version"][()] == 160


def test_silx_shows_the_frames_first(tmp_path: Path, spoiled: Scan) -> None:
    nxdata = pytest.importorskip("silx.io.nxdata")
    with h5py.File(exported(tmp_path, export_of(spoiled))) as file:
        shown = nxdata.get_default(file, validate=True)
        assert shown.is_valid, shown.issues
        assert shown.signal.shape == spoiled.frames.shape
        assert shown.interpretation == "image"


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path: Path, spoiled: Scan) -> None:
    run = export_of(spoiled)
    (tmp_path / "run.cxi").write_text("mine")
    with pytest.raises(DatasetError, match="--force"):
        write_cxi(run, tmp_path / "run.cxi")
    assert (tmp_path / "run.cxi").read_text() == "mine"
    write_cxi(run, tmp_path / "run.cxi", force=True)
    assert h5py.is_hdf5(tmp_path / "run.cxi")


def failing(run: ExportRun, error: Exception) -> ExportRun:
    def image(row: int) -> NDArray[Any]:
        raise error

    return replace(run, image=image)


@pytest.mark.parametrize(
    ("error", "becomes"),
    [(DatasetError("frame 3 is damaged"), DatasetError), (OSError("disk full"), StoreError)],
)
def test_nothing_is_left_of_a_file_that_failed(
    tmp_path: Path, spoiled: Scan, error: Exception, becomes: type[Exception]
) -> None:
    (tmp_path / "run.cxi").write_text("mine")
    with pytest.raises(becomes, match=str(error)):
        write_cxi(failing(export_of(spoiled), error), tmp_path / "run.cxi", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run.cxi"]
    assert (tmp_path / "run.cxi").read_text() == "mine"


def test_memory_does_not_grow_with_the_run(tmp_path: Path, spoiled: Scan) -> None:
    run = export_of(spoiled)
    rows = np.arange(150) % len(run)
    many = replace(run, rows=rows, positions=run.positions[rows])
    tracemalloc.start()
    try:
        write_cxi(many, tmp_path / "long.cxi")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    frame = spoiled.frames[0].size * 4
    assert peak < 30 * frame  # all of it would be more than 400
