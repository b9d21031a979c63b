"""The nine ways in which a file misleads a reader without a word; ours does not.

Each test shows first what the reader makes of a wrong file: where that changes, so must the page
how-to/feed-reconstruction-codes.
"""

import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
import pytest
from export_support import export_of, exported, stored_run, with_products
from numpy.typing import NDArray

from ptychoseg_stream.export.fields import CXI_BITS, cxi_mask
from ptychoseg_stream.science.frame import ClassCode, ValidBit
from ptychoseg_stream.sim import GoldBalls, Scan, simulate

DETECTOR = "entry_1/instrument_1/detector_1"
Reader: TypeAlias = Callable[[Path], Any]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, spoiled: Scan) -> Path:
    return exported(tmp_path_factory.mktemp("traps"), export_of(spoiled))


def spoil(file: Path, folder: Path, name: str, change: Callable[[Any], Any]) -> Path:
    """Copy a file with one dataset of the detector changed."""
    other = folder / "wrong.cxi"
    shutil.copy(file, other)
    with h5py.File(other, "a") as target:
        path = f"{DETECTOR}/{name}"
        held: Any = target[path]
        changed = change(held[()])
        del target[path]
        target[path] = changed
    return other


def read(file: Path, name: str) -> NDArray[Any]:
    with h5py.File(file) as source:
        held: Any = source[f"{DETECTOR}/{name}"]
        return np.asarray(held[()])


def fancy(cdtools: Any, dataset: Any) -> Any:
    """The model that cdtools' tutorials use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cdtools.models.FancyPtycho.from_dataset(dataset)


def one_epoch(cdtools: Any, dataset: Any) -> float:
    """The loss of an epoch of that model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(next(iter(fancy(cdtools, dataset).Adam_optimize(1, dataset))))


def test_1_a_mask_of_inverted_polarity_goes_unnoticed_and_ours_is_0_for_good(
    file: Path, tmp_path: Path, from_cxi: Reader, spoiled: Scan
) -> None:
    wrong = from_cxi(spoil(file, tmp_path, "mask", lambda mask: np.uint32(mask == 0)))
    assert float(wrong.mask.float().mean()) < 0.1  # it goes on with the bad pixels alone
    good = from_cxi(file).mask.numpy()
    assert good.mean() > 0.9
    broken = (spoiled.bits[0] & np.uint16(ValidBit.HOT | ValidBit.DEAD | ValidBit.STOP)) != 0
    assert broken.any()
    assert not good[broken].any()


def test_2_class_codes_in_the_mask_drop_the_ring_and_ours_has_none(
    file: Path, tmp_path: Path, from_cxi: Reader, spoiled: Scan
) -> None:
    ring = (spoiled.truth[0] == ClassCode.RING) & (export_of(spoiled).static == 0)
    wrong = from_cxi(spoil(file, tmp_path, "mask", lambda _: np.uint32(spoiled.truth[0])))
    assert not wrong.mask.numpy()[ring].any()
    assert from_cxi(file).mask.numpy()[ring].all()


def weights_of_ptypy(file: Path, key: str, *, invert: bool) -> NDArray[Any]:
    """Read weights as PtyPy 0.9 does.

    `Hdf5Loader.get_corrected_intensities` (ptypy/experiment/hdf5_loader.py) takes the stack as it
    is, or ``1 - mask``; what is above 0 counts (ptypy/core/data.py).
    """
    mask = read(file, key)
    if invert:
        mask = 1 - mask
    return mask > 0


@pytest.mark.parametrize("invert", [False, True])
def test_3_a_field_of_bits_masks_nothing_or_nearly_all_in_ptypy_and_valid_is_right(
    file: Path, spoiled: Scan, invert: bool
) -> None:
    bad = read(file, "pixel_mask") != 0
    assert bad.any()
    assert not np.array_equal(weights_of_ptypy(file, "pixel_mask", invert=invert), ~bad)
    wrong = weights_of_ptypy(file, "pixel_mask", invert=invert)
    several = read(file, "pixel_mask") > 1
    assert wrong[several].all()  # unsigned: 1 - 8 is four thousand millions
    assert read(file, "valid").shape == spoiled.frames.shape  # laid out like the data
    assert np.array_equal(weights_of_ptypy(file, "valid", invert=False), ~bad)


def test_4_a_mask_per_frame_stops_cdtools_and_ours_is_one_image(
    file: Path, tmp_path: Path, cdtools: Any, from_cxi: Reader
) -> None:
    stack = read(file, "pixel_mask")
    wrong = spoil(file, tmp_path, "mask", lambda _: stack)
    with pytest.raises(ValueError, match="broadcast"):
        fancy(cdtools, from_cxi(wrong))
    assert read(file, "mask").ndim == 2


def test_5_frames_of_uint16_stop_cdtools_and_ours_are_float32(
    file: Path, tmp_path: Path, cdtools: Any, from_cxi: Reader
) -> None:
    wrong = spoil(file, tmp_path, "data", lambda data: data.astype(np.uint16))
    with pytest.raises(NotImplementedError, match="masked_select"):
        one_epoch(cdtools, from_cxi(wrong))
    assert read(file, "data").dtype == np.float32
    assert np.isfinite(one_epoch(cdtools, from_cxi(file)))


def test_6_a_background_below_0_is_nan_to_cdtools_and_ours_is_above_whatever_is_stored(
    file: Path, tmp_path: Path, cdtools: Any, from_cxi: Reader, spoiled: Scan
) -> None:
    wrong = spoil(file, tmp_path, "data_dark", lambda dark: -1 - dark)
    assert fancy(cdtools, from_cxi(wrong)).background.isnan().all()
    run = stored_run(spoiled)
    assert run.products is not None
    unknown = run.products.of_frames.background.copy()
    unknown[:3] = np.array([[np.nan], [0], [-3]])
    odd = with_products(run, of_frames=replace(run.products.of_frames, background=unknown))
    dark = read(exported(tmp_path, export_of(spoiled, odd)), "data_dark")
    assert (dark > 0).all()
    assert fancy(cdtools, from_cxi(tmp_path / "run.cxi")).background.isfinite().all()


def test_7_nan_in_the_frames_makes_the_probe_of_cdtools_nan_and_ours_are_finite(
    tmp_path: Path, cdtools: Any, from_cxi: Reader
) -> None:
    scan = simulate(GoldBalls(grid=(2, 2), step=80e-9, gap_width=3, dtype="float32"))
    assert np.isnan(scan.frames).any()
    file = exported(tmp_path, export_of(scan))
    data = read(file, "data")
    assert np.isfinite(data).all()
    assert (data >= 0).all()
    assert np.isnan(read(file, "raw")).any()
    assert np.isfinite(one_epoch(cdtools, from_cxi(file)))
    wrong = spoil(file, tmp_path, "data", lambda _: scan.frames)
    assert fancy(cdtools, from_cxi(wrong)).probe.isnan().any()  # although they are masked


def test_8_a_wrong_sign_turns_the_object_by_180_degrees_and_no_loss_tells(
    file: Path, spoiled: Scan, from_cxi: Reader
) -> None:
    # That this sign is the right one, an object without symmetry tells: see test_cdtools.
    y, x = spoiled.positions.T
    assert np.allclose(read(file, "translation"), np.stack([x, y, 0 * x], axis=1))
    assert np.allclose(from_cxi(file).translations.numpy()[:, :2], -np.stack([x, y], axis=1))
    basis = read(file, "basis_vectors")
    assert basis.shape == (3, 2)
    assert basis[1, 0] < 0  # rows run along -y, columns along -x
    assert basis[0, 1] < 0
    assert np.count_nonzero(basis) == 2


def test_9_no_combination_of_reasons_gives_the_bit_that_means_good_to_some(
    file: Path, tmp_path: Path, from_cxi: Reader
) -> None:
    signal = spoil(file, tmp_path, "mask", lambda mask: np.full_like(mask, 0x1000))
    assert from_cxi(signal).mask.numpy().all()  # "has signal" to cdtools, failed to others
    choices = product(*((0, int(bit)) for bit in ValidBit))
    bits = np.array([sum(choice) for choice in choices], np.uint16)
    mask = cxi_mask(bits)
    assert not (mask & 0x1000).any()
    assert np.array_equal(mask == 0, bits == 0)
    assert set(CXI_BITS) == set(ValidBit)
    assert cxi_mask(np.array([1 << 15], np.uint16)).tolist() == [1]
