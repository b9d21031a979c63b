import numpy as np
import pytest
from beams import annulus

from ptychoseg_stream.errors import FrameError
from ptychoseg_stream.science.counts import PrepareOptions, to_counts
from ptychoseg_stream.science.frame import ValidBit

RING = annulus((64, 64), (31.5, 31.5), 6, 14)
COUNTS = np.random.default_rng(0).poisson(np.where(RING, 800.0, 0.3)).astype(np.uint16)
OPTIONS = PrepareOptions()


def where(bits, bit):
    return (bits & np.uint16(bit)) != 0


def test_a_good_frame_has_no_bits():
    counts, bits = to_counts(COUNTS, OPTIONS)
    assert bits.dtype == np.uint16
    assert not bits.any()
    assert np.array_equal(counts, COUNTS)


def test_nan_infinity_and_negative_integers_are_gaps():
    values = COUNTS.astype(np.float32)
    values[[3, 4, 5], [7, 8, 9]] = np.nan, np.inf, -np.inf
    _, bits = to_counts(values, OPTIONS)
    assert np.argwhere(bits).tolist() == [[3, 7], [4, 8], [5, 9]]
    assert set(bits[bits > 0]) == {ValidBit.GAP}
    signed = COUNTS.astype(np.int32)
    signed[40] = -2
    assert np.array_equal(where(to_counts(signed, OPTIONS)[1], ValidBit.GAP), signed < 0)


@pytest.mark.parametrize("saturation", [None, 5000.0])
def test_rows_of_the_largest_number_are_a_gap_even_beside_a_saturation_level(saturation):
    values = COUNTS.copy()
    values[33:36] = 65535
    _, bits = to_counts(values, PrepareOptions(saturation=saturation))
    assert (bits[33:36] == ValidBit.GAP).all()
    assert not bits[:33].any()


def test_a_beam_that_reaches_the_largest_number_is_saturated_not_a_gap():
    values = COUNTS.copy()
    values[20:23, 28:32] = 65535
    values[19:24, 27:33] = np.maximum(values[19:24, 27:33], 20000)
    _, bits = to_counts(values, OPTIONS)
    assert where(bits, ValidBit.SATURATED).sum() == 12
    assert not where(bits, ValidBit.GAP).any()


def test_a_few_stuck_pixels_are_saturated_not_a_gap():
    values = COUNTS.copy()
    values[5, 5:8] = 65535
    assert np.array_equal(where(to_counts(values, OPTIONS)[1], ValidBit.SATURATED), values == 65535)


def test_the_users_mask_is_merged_and_other_reasons_stay():
    values = COUNTS.astype(np.float32)
    values[10, 10] = np.nan
    user = np.zeros(values.shape, bool)
    user[10, 9:12] = True
    counts, bits = to_counts(values, OPTIONS, user)
    assert bits[10, 9:12].tolist() == [256, 257, 256]
    assert not counts[user].any()
    assert np.count_nonzero(bits) == 3


def test_a_users_mask_of_another_size_is_refused():
    with pytest.raises(FrameError, match=r"user's mask is \(8, 8\), the frame \(64, 64\)"):
        to_counts(COUNTS, OPTIONS, np.zeros((8, 8), bool))


@pytest.mark.parametrize(
    ("image", "verdict"),
    [
        (np.zeros((64, 64), np.uint16), "no beam"),
        (np.full((64, 64), -3.5), "no beam"),
        (np.full((64, 64), np.nan), "none"),
        (np.full((64, 64), 65535, np.uint16), "none"),
    ],
)
def test_a_refusal_says_whether_there_is_no_beam(image, verdict):
    with pytest.raises(FrameError) as error:
        to_counts(image, OPTIONS)
    assert error.value.verdict == verdict


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"gain": 0.0}, "gain: 0.0"),
        ({"min_plateau": 0.0}, "min_plateau: 0.0"),
        ({"max_bad_fraction": 1.0}, "max_bad_fraction: 1.0"),
        ({"max_sigma": -1.0}, "max_sigma: -1.0"),
        ({"counts_without_smoothing": 0.0}, "counts_without_smoothing: 0.0"),
    ],
)
def test_options_that_cannot_work_are_refused_by_name(wrong, text):
    with pytest.raises(ValueError, match=text):
        PrepareOptions(**wrong)
