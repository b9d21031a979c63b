import re
from dataclasses import fields

import numpy as np
import pytest
from beams import annulus
from scipy.ndimage import binary_dilation, gaussian_filter

from ptychoseg_stream.errors import FrameError
from ptychoseg_stream.profile import profile_from
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.prepare import Prepared, join, prepare, prepare_counts
from ptychoseg_stream.science.validity import inspect

WIDE = annulus((104, 104), (51.5, 49.2), 12, 26)
NARROW = annulus((104, 104), (51.5, 49.2), 4.6, 9.6)


def poisson(beam, dose, seed=0, background=0.0):
    rng = np.random.default_rng(seed)
    return rng.poisson(np.where(beam, dose, background)).astype(np.uint16)


def same(a: Prepared, b: Prepared) -> bool:
    return all(getattr(a, f.name).tobytes() == getattr(b, f.name).tobytes() for f in fields(a))


def refusal(image, options=None):
    with pytest.raises(FrameError) as error:
        prepare(image, options)
    return str(error.value)


# --- plateau and smoothing ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dose", "tolerance"),
    [
        (0.8, 0.16),
        (1.5, 0.11),
        (4, 0.08),
        (10, 0.05),
        (30, 0.02),
        (1e2, 0.02),
        (1e3, 0.01),
        (1e4, 0.01),
    ],
)
def test_plateau_of_a_wide_annulus_is_its_dose(dose, tolerance):
    found = [prepare(poisson(WIDE, dose, seed)).plateau[0] for seed in range(5)]
    assert found == pytest.approx(np.full(5, dose), rel=tolerance)


@pytest.mark.parametrize(
    ("dose", "tolerance"), [(4, 0.2), (10, 0.1), (30, 0.05), (1e2, 0.03), (1e4, 0.01)]
)
def test_plateau_of_a_ring_five_pixels_wide_is_its_dose(dose, tolerance):
    # Smoothing fills the hole of so narrow a ring and lowers it, the more the fainter it is.
    found = [prepare(poisson(NARROW, dose, seed)).plateau[0] for seed in range(5)]
    assert found == pytest.approx(np.full(5, dose), rel=tolerance)


def test_hot_pixels_do_not_move_the_plateau():
    image = poisson(NARROW, 200.0)
    hot = image.copy()
    at = np.random.default_rng(1).permutation(image.size)[:60]
    hot.flat[at] = 60000
    assert prepare(hot).plateau[0] == pytest.approx(prepare(image).plateau[0], rel=0.02)
    assert 50 <= prepare(hot).spikes[0] <= 60  # two that touch may pass for an edge


def test_read_noise_around_zero_biases_neither_a_faint_plateau_nor_the_background():
    rng = np.random.default_rng(0)
    image = poisson(WIDE, 1.5).astype(np.float32)
    noisy = image + rng.normal(0, 0.7, image.shape).astype(np.float32)
    prepared = prepare(noisy)
    assert prepared.plateau[0] == pytest.approx(prepare(image).plateau[0], rel=0.08)
    far = ~binary_dilation(WIDE, iterations=8)
    assert abs(prepared.smooth[0][far].mean()) < 0.03  # clipped counts would leave 0.28


def test_bright_frames_are_not_smoothed_and_faint_ones_are():
    bright, faint = prepare(poisson(WIDE, 40.0)), prepare(poisson(WIDE, 10.0))
    assert np.array_equal(bright.smooth, bright.counts)
    assert faint.smooth.std() < faint.counts.std()
    assert faint.smooth.sum() == pytest.approx(faint.counts.sum(), rel=0.01)


def test_plateau_is_one_in_the_relative_image():
    prepared = prepare(poisson(WIDE, 300.0))
    assert np.median(prepared.relative[0][WIDE]) == pytest.approx(1, abs=0.01)
    assert abs(np.median(prepared.relative[0][~WIDE])) < 0.01


def test_gain_and_pedestal_turn_detector_units_into_counts():
    counts = poisson(WIDE, 50.0)
    units = (30 * counts + 300).astype(np.uint16)
    prepared = prepare(units, PrepareOptions(pedestal=300, gain=30))
    assert np.allclose(prepared.counts, prepare(counts).counts, atol=1e-4)


# --- batches --------------------------------------------------------------------------------------


def test_batch_of_n_is_n_batches_of_one_bit_for_bit(strong):
    frames = [*strong.frames[:3], poisson(WIDE, 2.0), poisson(NARROW, 12.0)]
    frames[1] = frames[1].copy()
    frames[1][[3, 40], [7, 60]] = 65535
    options = PrepareOptions()
    seen = [inspect(f, options) for f in frames]
    counts, bits, unknown = (
        np.stack([getattr(s, name) for s in seen]) for name in ("counts", "bits", "unknown")
    )
    spikes = np.array([s.spikes for s in seen])
    together = prepare_counts(counts, bits, spikes, options, unknown)
    one_by_one = [prepare(f) for f in frames]
    assert same(together, join(one_by_one))
    assert all(same(together[i : i + 1], p) for i, p in enumerate(one_by_one))
    assert len(together) == 5


def test_same_frame_gives_the_same_bytes(scan):
    assert same(prepare(scan.frames[0]), prepare(scan.frames[0]))


# --- what kinds of array --------------------------------------------------------------------------

COUNTS = poisson(WIDE, 60.0, background=0.2)


@pytest.mark.parametrize(
    "dtype", ["u1", "<u2", ">u2", "<u4", ">i4", "i2", "i8", "u8", "<f4", ">f4", "f8", ">f8", "f2"]
)
def test_number_type_and_byte_order_do_not_matter(dtype):
    assert same(prepare(COUNTS.astype(dtype)), prepare(COUNTS))


def test_memory_order_does_not_matter():
    padded = np.zeros((208, 312), np.uint16)
    padded[::2, ::3] = COUNTS
    for image in (padded[::2, ::3], np.asfortranarray(COUNTS), COUNTS[::-1, ::-1][::-1, ::-1]):
        assert same(prepare(image), prepare(COUNTS))


@pytest.mark.parametrize("dtype", ["u2", "i4", "f4", "f8", ">u2"])
def test_input_is_never_modified(dtype):
    image = COUNTS.astype(dtype)
    image[5, 5] = 60000  # a spike, and an unusable pixel besides
    if dtype[-2] == "f":
        image[6, 6] = np.nan
    elif dtype == "i4":
        image[6, 6] = -1
    else:
        image[6, 6] = 65535
    before = image.tobytes()
    image.flags.writeable = False
    prepare(image)
    assert image.tobytes() == before


def test_gaps_marked_minus_one_are_unusable_and_do_no_harm():
    image = COUNTS.astype(np.int32)
    image[50:53] = -1
    prepared = prepare(image)
    assert prepared.bad[0].sum() == 3 * 104
    assert prepared.bad[0, 50:53].all()
    assert prepared.plateau[0] == pytest.approx(prepare(COUNTS).plateau[0], rel=0.02)


def test_negative_floats_are_read_noise_and_are_used():
    image = COUNTS.astype(np.float32)
    image[0, :50] = -1.5
    assert not prepare(image).bad.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e35, -1e35, 1e300])
def test_values_that_are_no_counts_are_unusable_pixels(value):
    image = COUNTS.astype(np.float64)
    image[[3, 50, 51], [7, 60, 60]] = value
    prepared = prepare(image)
    assert np.argwhere(prepared.bad[0]).tolist() == [[3, 7], [50, 60], [51, 60]]
    assert np.isfinite(prepared.counts).all()
    assert np.isfinite(prepared.smooth).all()


def test_few_unusable_pixels_get_the_class_of_those_around_them(centroids):
    image = COUNTS.astype(np.float32)
    clean = centroids.label(image)
    image[[3, 51, 90], [7, 70, 90]] = np.nan
    classes = centroids.label(image)
    assert (classes != clean).sum() < 12


def test_single_saturated_pixels_are_unusable_not_a_reason_to_refuse():
    image = COUNTS.copy()
    image[[5, 60], [5, 60]] = 65535
    assert np.argwhere(prepare(image).bad[0]).tolist() == [[5, 5], [60, 60]]
    assert prepare(COUNTS, PrepareOptions(saturation=90)).bad.sum() == (COUNTS >= 90).sum()


# --- refusals -------------------------------------------------------------------------------------

RNG = np.random.default_rng(7)
SATURATED = np.minimum(gaussian_filter(WIDE * 2e5, 1.5), 65535).astype(np.uint16)


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (np.full((64, 64), np.nan, np.float32), "NaN"),
        (np.full((64, 64), np.inf), "infinite"),
        (np.where(RNG.random((64, 64)) < 0.6, np.nan, 5.0), "60% NaN"),
        (np.zeros((64, 64), np.uint16), "empty frame"),
        (np.zeros((64, 64)), "empty frame"),
        (np.full((64, 64), -1, np.int32), "negative"),
        (np.full((64, 64), -3.5), "no pixel has counts above zero"),
        (np.full((64, 64), 65535, np.uint16), "100% saturated"),
        (SATURATED, "saturated: "),
        (np.full((64, 64), 300, np.uint16), "pedestal"),
        (RNG.poisson(100, (64, 64)).astype(np.uint16), "pedestal"),
        (RNG.normal(0, 1, (104, 104)), "no beam"),
        (RNG.poisson(0.05, (104, 104)).astype(np.uint16), "no beam"),
        (np.ones(256), "2-D image"),
        (np.ones((3, 64, 64)), "2-D image"),
        (np.ones((64, 64), complex), "complex128"),
        (np.full((20, 20), "a"), "real 2-D image"),
        (np.full((20, 20), None), "object"),
        (np.ones((15, 64)), "(15, 64)"),
        (np.ones((0, 0)), "(0, 0)"),
    ],
)
def test_frame_that_cannot_be_labelled_is_refused_with_the_reason(image, word):
    assert word in refusal(image)


def test_frame_without_beam_is_refused_whatever_its_noise():
    for seed in range(24):
        rng = np.random.default_rng(seed)
        sigma, dose = [0.5, 1, 3, 10][seed % 4], [0.02, 0.1, 0.3, 1, 5][seed % 5]
        assert "no beam" in refusal(rng.normal(0, sigma, (104, 104)).astype(np.float32))
        assert "no beam" in refusal(rng.poisson(dose, (104, 104)).astype(np.uint16))


def test_one_hot_pixel_is_no_beam():
    image = np.zeros((64, 64), np.uint16)
    image[20, 30] = 50000
    assert "no beam" in refusal(image)


def test_saturation_level_is_an_option():
    image = poisson(WIDE, 5000.0)
    assert "saturated" in refusal(image, PrepareOptions(saturation=4500))
    assert prepare(image).plateau[0] == pytest.approx(5000, rel=0.01)


def test_keys_that_refusals_name_are_keys_of_a_profile():
    faint = PrepareOptions(min_plateau=100)
    texts = [
        refusal(np.full((64, 64), -3.5)),
        refusal(np.full((64, 64), 300, np.uint16)),
        refusal(COUNTS, faint),
        refusal(SATURATED),
    ]
    named = {key for text in texts for key in re.findall(r"`([a-z_.]+)`", text)}
    assert {key.rpartition(".")[2] for key in named} == {"pedestal", "min_plateau", "saturation"}
    for key in named:
        value: object = 1.0
        for part in reversed(key.split(".")):
            value = {part: value}
        profile_from(value, "test")


def test_detector_gaps_that_hold_the_largest_number_are_unusable_not_saturation():
    image = poisson(WIDE, 500.0).astype(np.uint32)
    image[60:66] = np.iinfo(np.uint32).max  # a gap across the ring
    prepared = prepare(image)
    assert prepared.bad[0, 60:66].all()
    assert prepared.bad.sum() == 6 * image.shape[1]
    assert prepared.plateau[0] == pytest.approx(500, rel=0.02)
