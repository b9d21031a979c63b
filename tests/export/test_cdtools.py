"""What cdtools' own reader makes of an exported file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import torch
from export_support import export_of, exported, stored_run, with_products
from numpy.typing import NDArray
from scipy import ndimage

from ptychoseg_stream.export.probe import first_probe
from ptychoseg_stream.export.record import ExportRun
from ptychoseg_stream.science.experiment import Experiment
from ptychoseg_stream.sim import Scan


@pytest.fixture
def dataset(tmp_path: Path, spoiled: Scan, from_cxi: Callable[[Path], Any]) -> Any:
    return from_cxi(exported(tmp_path, export_of(spoiled)))


def test_cdtools_reads_frames_mask_and_geometry(dataset: Any, spoiled: Scan) -> None:
    run = export_of(spoiled)
    assert dataset.patterns.numpy().shape == spoiled.frames.shape
    assert dataset.patterns.numpy().dtype == np.float32
    assert np.array_equal(dataset.mask.numpy(), run.static == 0)
    assert float(dataset.wavelength) == pytest.approx(run.experiment.wavelength)
    assert float(dataset.detector_geometry["distance"]) == pytest.approx(run.experiment.distance)


def test_cdtools_starts_from_our_background(dataset: Any, spoiled: Scan) -> None:
    background = dataset.background.numpy()
    assert (background > 0).all()
    assert np.allclose(background, np.maximum(spoiled.background, 1e-6), rtol=1e-5)


def test_the_first_probe_is_made_by_the_transform_of_cdtools(spoiled: Scan, cdtools: Any) -> None:
    products = export_of(spoiled).products
    light = np.maximum(products.mean - products.background, 0) * products.pupil
    back = cdtools.tools.propagators.inverse_far_field
    expected = back(torch.as_tensor(np.sqrt(light), dtype=torch.complex64)).numpy()
    probe = first_probe(products)
    assert np.allclose(probe, expected, atol=1e-3)
    assert (np.abs(probe) ** 2).sum() == pytest.approx(light.sum(), rel=1e-4)


class Truth(NamedTuple):
    """A small experiment that cdtools' model describes exactly, with nothing symmetric in it."""

    probe: NDArray[np.complex128]
    object: NDArray[np.complex128]
    corners: NDArray[np.intp]
    frames: NDArray[np.float32]


SHAPE = (24, 20)
PIXELS = (60e-6, 45e-6)


@pytest.fixture(scope="module")
def truth() -> Truth:
    rng = np.random.default_rng(3)
    smooth = [ndimage.gaussian_filter(rng.standard_normal((48, 44)), 1.5) for _ in range(2)]
    sample = np.exp(smooth[0] + 2j * smooth[1])
    y, x = np.indices(SHAPE)
    probe = 30 * np.exp(-((y - 12) ** 2) / 20 - (x - 9) ** 2 / 9 + 0.05j * (x * y + y**2))
    corners = rng.integers((0, 0), (24, 24), (12, 2))
    corners[0], corners[1] = (0, 0), (23, 23)
    h, w = SHAPE
    waves = np.stack([probe * sample[r : r + h, c : c + w] for r, c in corners])
    spread = np.fft.fft2(np.fft.ifftshift(waves, axes=(1, 2)), norm="ortho")
    frames = np.abs(np.fft.fftshift(spread, axes=(1, 2))) ** 2
    return Truth(probe, sample, corners, frames.astype(np.float32))


def run_of(truth: Truth) -> ExportRun:
    """The experiment as a run: pixels of the object become metres."""
    n = len(truth.frames)
    experiment = Experiment(1000.0, 0.1, PIXELS)
    size = experiment.wavelength * experiment.distance / (np.array(PIXELS) * SHAPE)
    nothing = np.zeros(truth.frames.shape, np.uint16)
    scan = Scan(
        truth.frames,
        nothing.astype(np.uint8),
        truth.corners * size,
        1000.0,
        np.zeros(SHAPE, bool),
        np.zeros((n, 2)),
        nothing,
        np.ones(SHAPE),
    )
    return export_of(scan, with_products(stored_run(scan), experiment=experiment))


def disagreement(cdtools: Any, dataset: Any, truth: Truth) -> float:
    """How far cdtools' own model, with the true probe and object, is from the frames."""
    model = cdtools.models.SimplePtycho.from_dataset(dataset)
    model.probe.data = torch.as_tensor(truth.probe / model.probe_norm.numpy()).to(torch.complex64)
    height, width = model.obj.shape
    model.obj.data = torch.as_tensor(truth.object[:height, :width]).to(torch.complex64)
    (index, translations), frames = dataset[:]
    with torch.no_grad():
        simulated = model.forward(index, translations)
    return float(((simulated - frames) ** 2).sum() / (frames**2).sum())


def test_positions_have_the_sign_with_which_cdtools_simulates_the_frames_that_were_measured(
    tmp_path: Path, truth: Truth, cdtools: Any, from_cxi: Callable[[Path], Any]
) -> None:
    dataset = from_cxi(exported(tmp_path, run_of(truth)))
    assert disagreement(cdtools, dataset, truth) < 1e-6


@pytest.mark.parametrize("wrong", [(-1, -1, 1), (1, -1, 1), (-1, 1, 1)])
def test_with_any_other_sign_cdtools_simulates_other_frames(
    tmp_path: Path,
    truth: Truth,
    cdtools: Any,
    from_cxi: Callable[[Path], Any],
    wrong: tuple[int, int, int],
) -> None:
    path = exported(tmp_path, run_of(truth))
    with h5py.File(path, "a") as file:
        moved: Any = file["entry_1/sample_1/geometry_1/translation"]
        moved[:] = moved[:] * wrong
    assert disagreement(cdtools, from_cxi(path), truth) > 0.02
