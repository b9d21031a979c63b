"""Frames, masks and positions out of a CXI file: an exported one, or any that cdtools reads."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError
from ..science.experiment import HC, Experiment
from ..science.frame import BoolArray, ClassCode, FloatArray
from ..science.products import RunProducts
from .growing import GrowingScan
from .model import CDTOOLS
from .summary import FAINT, mean_and_variance, radii_of

DETECTOR = "entry_1/instrument_1/detector_1"
CLASSES = "entry_1/process_1/class_map"


def read_cxi(path: Path) -> GrowingScan:
    """Read a scan. Positions become those that cdtools makes of the file, whatever its axes.

    Parameters
    ----------
    path : Path
        With frames, positions, wavelength and geometry as CXI has them. Where the file holds
        ``valid`` (1: use, per frame), ``data_dark``, ``probe_mask`` and a class map, as an exported
        run does, they are used; else the static ``mask`` (0: good).

    Raises
    ------
    DatasetError
        If it is no such file; the text says what is missing.
    """
    try:
        dataset = CDTOOLS.datasets.Ptycho2DDataset.from_cxi(str(path), cut_zeros=False)
        with h5py.File(path) as file:
            return _scan_of(dataset, file)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise DatasetError(f"{path}: no ptychography scan in CXI can be read: {error}") from error


def _scan_of(dataset: Any, file: h5py.File) -> GrowingScan:
    frames = np.asarray(dataset.patterns.numpy(), np.float32)
    n, *shape = frames.shape
    interactions = CDTOOLS.tools.interactions
    geometry = dataset.detector_geometry
    basis = CDTOOLS.tools.initializers.exit_wave_geometry(
        geometry["basis"], shape, dataset.wavelength, geometry["distance"]
    )
    pixels = interactions.translations_to_pixel(basis, dataset.translations).numpy()
    side = np.linalg.norm(np.asarray(geometry["basis"], float), axis=0)  # of rows, columns [m]
    known = Experiment(
        HC / float(dataset.wavelength),
        float(geometry["distance"]),
        (float(side[0]), float(side[1])),
    )
    scan = GrowingScan((shape[0], shape[1]), n, known)
    pixel = known.wavelength * known.distance / (np.array(shape) * side)
    scan.place(0, pixels.astype(np.float64) * pixel)
    static = np.ones(shape, bool) if dataset.mask is None else dataset.mask.numpy()
    valid, classes = _stack(file, f"{DETECTOR}/valid", n), _stack(file, CLASSES, n)
    use = np.broadcast_to(static, frames.shape) if valid is None else valid == 1
    if classes is None:
        classes = np.full(frames.shape, ClassCode.INVALID, np.uint8)
    scan.fill(frames, use, classes)
    scan.learn(_products(scan, dataset, file))
    return scan


def _products(scan: GrowingScan, dataset: Any, file: h5py.File) -> RunProducts:
    frames, use = scan.frames, scan.valid
    nothing = np.zeros(use.shape, bool)
    mean, _ = mean_and_variance(frames, use)
    dark: FloatArray = np.full(scan.shape, FAINT, np.float32)
    if dataset.background is not None:
        dark = np.maximum(np.nan_to_num(dataset.background.numpy()), FAINT)
    variance = _image(file, f"{DETECTOR}/data_dark_variance")
    pupil = _image(file, f"{DETECTOR}/probe_mask")
    lit: BoolArray = pupil > 0 if pupil is not None else half_maximum(np.nan_to_num(mean))
    return RunProducts(
        frames=len(frames),
        used=len(frames),
        pixel_mask=np.zeros(scan.shape, np.uint16),
        background=dark,
        background_variance=np.full(scan.shape, np.nan, np.float32)
        if variance is None
        else variance.astype(np.float32),
        background_samples=nothing.sum(axis=0).astype(np.int32),
        pupil=lit.astype(np.uint8),
        mean=np.nan_to_num(mean),
        **radii_of(lit),
        sums=np.full((len(frames), 4), np.nan),
    )


def half_maximum(mean: FloatArray) -> BoolArray:
    """Return ``(H, W)`` where the mean frame reaches half of its plateau."""
    bright = mean[mean > 0.3 * np.quantile(mean, 0.999)]
    plateau = np.median(bright) if bright.size else np.float32(np.inf)
    return np.asarray(mean > 0.5 * plateau, bool)


def _stack(file: h5py.File, name: str, n: int) -> NDArray[Any] | None:
    values = _image(file, name)
    return values if values is not None and len(values) == n else None


def _image(file: h5py.File, name: str) -> NDArray[Any] | None:
    return np.asarray(file[name]) if name in file else None
