import numpy as np
import pytest

from ptychoseg_stream.science.frame import ClassCode, ValidBit
from ptychoseg_stream.sim import GoldBalls, simulate
from ptychoseg_stream.sim.detection import cosmic_tracks


def has(bits, bit):
    return (bits & np.uint16(bit)) != 0


def test_a_clean_scan_has_no_invalid_pixels():
    scan = simulate(GoldBalls(n_frames=3))
    assert scan.bits.shape == scan.frames.shape
    assert scan.bits.dtype == np.uint16
    assert not scan.bits.any()
    assert scan.signal is None


def test_dead_and_hot_pixels_are_where_the_bits_say_and_never_both():
    options = {"n_frames": 3, "pedestal": 300.0, "gain": 5.0, "dtype": "float32"}
    scan = simulate(GoldBalls(**options, dead_pixels=40, hot_pixels=30))
    dead, hot = has(scan.bits, ValidBit.DEAD), has(scan.bits, ValidBit.HOT)
    assert hot[0].sum() == 30
    assert 35 <= dead[0].sum() <= 40
    assert (scan.frames[dead] == 300).all()
    assert (scan.frames[hot] == 60000).all()
    assert np.array_equal(hot[0], scan.bad_pixels)
    assert not (dead & hot).any()


def test_defects_change_no_other_pixel_and_not_the_sample():
    clean = simulate(GoldBalls(n_frames=3))
    spoiled = simulate(GoldBalls(n_frames=3, dead_pixels=30, cosmics=3.0, gap_width=4))
    changed = clean.frames != spoiled.frames
    assert changed.any()
    faint = clean.frames.astype(int) - spoiled.frames
    assert np.abs(faint[changed & (spoiled.bits == 0)]).max() < 12  # the ends of tracks
    assert np.array_equal(clean.truth, spoiled.truth)


def test_tracks_are_bright_new_in_each_frame_and_marked():
    scan = simulate(GoldBalls(n_frames=20, cosmics=2.0, cosmic_energy=100.0))
    clean = simulate(GoldBalls(n_frames=20))
    hit = has(scan.bits, ValidBit.COSMIC)
    per_frame = hit.sum(axis=(1, 2))
    assert 5 < per_frame.mean() < 80
    assert not (hit[0] & hit[1]).all()
    extra = scan.frames[hit].astype(float) - clean.frames[hit]
    assert np.median(extra) > 10


def test_a_track_leaves_the_energy_of_its_length():
    rng = np.random.default_rng(0)
    left = cosmic_tracks(400, (200, 200), 1.0, 8.0, 50.0, rng)
    assert left.dtype == np.float32
    expected = 8 * 50 * np.exp(0.6**2 / 2)  # mean of the log-normal
    assert left.sum() / 400 == pytest.approx(expected, rel=0.15)
    assert not cosmic_tracks(3, (20, 20), 0.0, 8.0, 50.0, rng).any()


@pytest.mark.parametrize(("dtype", "value"), [("uint16", 65535), ("float32", np.nan)])
def test_a_gap_holds_what_detectors_write_there(dtype, value):
    scan = simulate(GoldBalls(n_frames=2, gap_width=5, dtype=dtype))
    gap = has(scan.bits[0], ValidBit.GAP)
    assert gap.sum() == 5 * 104
    assert np.array_equal(scan.frames[0][gap], np.full(gap.sum(), value, dtype), equal_nan=True)


def test_what_reaches_the_saturation_level_reads_as_it_and_is_marked():
    free = simulate(GoldBalls(n_frames=4))
    scan = simulate(GoldBalls(n_frames=4, saturation=1200.0))
    saturated = has(scan.bits, ValidBit.SATURATED)
    assert np.array_equal(saturated, free.frames >= 1200)
    assert saturated.any()
    assert scan.frames.max() == 1200
    clipped = simulate(GoldBalls(n_frames=1, gain=100.0))
    assert np.array_equal(has(clipped.bits, ValidBit.SATURATED), clipped.frames == 65535)


def test_the_arm_of_the_stop_is_marked_in_every_frame():
    scan = simulate(GoldBalls(n_frames=3, arm_width=5.0, drift=(4.0, 0.0)))
    stop = has(scan.bits, ValidBit.STOP)
    assert np.array_equal(stop, scan.truth == ClassCode.BEAM_STOP)


def test_expected_signal_and_background_add_up_to_what_is_measured():
    options = {"n_frames": 40, "stray": 0.05, "glow": 4.0, "dtype": "float32"}
    scan = simulate(GoldBalls(**options, keep_signal=True))
    assert scan.signal is not None
    expected = scan.signal.mean(axis=0) + scan.background
    far = expected < 20
    away = (scan.frames.mean(axis=0) - expected)[far]
    assert abs(away.mean()) < 0.02
    assert scan.background[0, 0] > 3
    assert away.std() < 0.6


@pytest.mark.parametrize(
    "wrong",
    [{"dead_pixels": -1}, {"cosmics": -1.0}, {"cosmic_length": 0.0}, {"gap_width": -1}],
)
def test_defects_that_make_no_sense_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GoldBalls(**wrong)
