from dataclasses import replace

import numpy as np
import pytest

from ptychoseg_stream.errors import FrameError
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.frame import ValidBit
from ptychoseg_stream.science.validity import PixelHistory, ValidityOptions, inspect
from ptychoseg_stream.sim import GoldBalls, simulate
from ptychoseg_stream.sources.arrays.stack import open_stack

OPTIONS = PrepareOptions()
SPOILED = GoldBalls(
    n_frames=50, hot_pixels=20, dead_pixels=12, cosmics=2.0, arm_width=4.0, arm_angle=60.0
)


def walk(frames, history=None, user=None):
    history = history or PixelHistory(frames[0].shape)
    seen = []
    for frame in frames:
        seen.append(inspect(frame, OPTIONS, history, user))
        history.update(seen[-1])
    return np.stack([s.bits for s in seen]), history


def has(bits, bit):
    return (bits & np.uint16(bit)) != 0


@pytest.fixture(scope="module")
def spoiled():
    return simulate(replace(SPOILED, keep_signal=True))


@pytest.fixture(scope="module")
def walked(spoiled):
    return walk(spoiled.frames)


@pytest.mark.parametrize(
    ("bit", "precision", "recall"),
    [(ValidBit.HOT, 0.99, 0.99), (ValidBit.DEAD, 0.7, 0.2), (ValidBit.COSMIC, 0.95, 0.8)],
)
def test_defects_are_found_and_told_apart_after_forty_frames(
    spoiled, walked, bit, precision, recall
):
    found, true = has(walked[0][40:], bit), has(spoiled.bits[40:], bit)
    assert (found & true).sum() >= precision * found.sum()
    assert (found & true).sum() >= recall * true.sum()


def test_the_arm_of_a_stop_is_found_where_it_hides_light_and_nowhere_far_from_it(spoiled, walked):
    stop = has(spoiled.bits[0], ValidBit.STOP)
    unstopped = simulate(replace(SPOILED, arm_width=0.0, keep_signal=True))
    hides = stop & (unstopped.signal[:40].sum(axis=0) > 40)
    found = has(walked[0][-1], ValidBit.STOP)
    assert hides.sum() > 40
    assert (found & hides).sum() > 0.9 * hides.sum()
    assert (found & stop).sum() > 0.6 * found.sum()


@pytest.mark.parametrize(
    "options",
    [
        GoldBalls(n_frames=40),
        GoldBalls(n_frames=40, strong=True, drift=(8.0, -6.0)),
        GoldBalls(n_frames=40, dose=1e4, stray=0.02, drift=(3.0, 3.0)),
        GoldBalls(n_frames=40, change_at=20, dose_factor=0.1, ring_scale=1.2),
    ],
    ids=["still", "strong and drifting", "faint, stray light", "dose and ring change"],
)
def test_frames_without_defects_lose_next_to_nothing_however_the_beam_moves(options):
    bits, _ = walk(simulate(options).frames)
    assert (bits != 0).mean() < 2e-4


def test_a_spike_is_a_cosmic_ray_once_and_a_hot_pixel_when_it_persists(scan):
    frames = scan.frames[:16].astype(np.float32)
    frames[2, 20, 30] = 5000
    frames[4:14, 80, 70] = 5000
    bits, _ = walk(frames)
    assert has(bits[:, 20, 30], ValidBit.COSMIC).tolist() == [i == 2 for i in range(16)]
    assert bits[4, 80, 70] == ValidBit.COSMIC
    assert bits[13, 80, 70] == ValidBit.HOT
    once = [has(bits[:, 80, 70], bit) for bit in (ValidBit.COSMIC, ValidBit.HOT)]
    assert not (once[0] & once[1]).any()


def test_a_hot_pixel_that_heals_is_used_again(scan):
    frames = np.concatenate([scan.frames, scan.frames]).astype(np.float32)
    frames[:12, 80, 70] = 5000
    bits, _ = walk(frames, PixelHistory(scan.frames[0].shape, ValidityOptions(memory=16)))
    assert has(bits[11, 80, 70], ValidBit.HOT)
    assert bits[-1, 80, 70] == 0


def test_warm_pixels_are_found_in_the_mean(scan):
    frames = scan.frames.astype(np.float32)
    rng = np.random.default_rng(0)
    frames[:, 15, 15] += rng.poisson(6, len(frames))
    frames[:, 90, 40] += rng.poisson(6, len(frames))
    _, history = walk(frames)
    assert np.argwhere(has(history.bits, ValidBit.HOT)).tolist() == [[15, 15], [90, 40]]


def test_dead_pixels_are_found_wherever_forty_counts_are_missing():
    options = replace(SPOILED, n_frames=40, dead_pixels=60, stray=0.05, glow=1.0, arm_width=0.0)
    scan = simulate(options)
    bits, _ = walk(scan.frames)
    found, true = has(bits[-1], ValidBit.DEAD), has(scan.bits[-1], ValidBit.DEAD)
    lit = scan.background > 1
    assert (true & lit).sum() >= 5
    assert np.array_equal(found & lit, true & lit)
    assert not (found & ~true).any()


def test_a_bright_streak_that_stays_is_neither_hot_nor_a_cosmic_ray_for_long(scan):
    frames = scan.frames.astype(np.float32)
    blur = np.array([0.1, 0.8, 0.1])[:, None]
    fade = np.sin(np.linspace(0, np.pi, 30))[None]
    frames[:, 79:82, 50:80] += 60 * blur * fade
    bits, history = walk(frames)
    assert not history.bits.any()
    assert (bits[-5:] != 0).mean() < 2e-4


def test_repeating_one_frame_makes_no_pixel_dead_or_hot(scan):
    _, history = walk([scan.frames[0]] * 40)
    assert not history.bits.any()


def test_what_is_known_after_a_frame_depends_on_no_later_one(spoiled):
    whole, _ = walk(spoiled.frames)
    part, _ = walk(spoiled.frames[:23])
    assert part.tobytes() == whole[:23].tobytes()


def test_inspecting_changes_neither_history_nor_frame(spoiled):
    _, history = walk(spoiled.frames[:12])
    before, image = history.bits.tobytes(), spoiled.frames[12].copy()
    image.flags.writeable = False
    first, second = (inspect(image, OPTIONS, history) for _ in range(2))
    assert first.bits.tobytes() == second.bits.tobytes()
    assert history.bits.tobytes() == before
    assert history.frames == 12


def test_invalid_pixels_are_repaired_and_told_where_that_is_impossible(scan):
    image = scan.frames[0].astype(np.float32)
    image[10:30, 10:30] = np.nan
    image[70, 70] = np.nan
    seen = inspect(image, OPTIONS)
    assert np.isfinite(seen.counts).all()
    assert seen.unknown[13:27, 13:27].all()
    assert seen.unknown.sum() == 14 * 14
    assert not seen.counts[seen.unknown].any()
    assert (seen.bits != 0).sum() == 401


def test_the_users_mask_is_left_out_of_what_is_learned(spoiled):
    user = np.zeros(spoiled.frames[0].shape, bool)
    user[:, :30] = True
    bits, history = walk(spoiled.frames[:30], user=user)
    assert has(bits, ValidBit.USER)[:, user].all()
    assert not (history.bits[user] & np.uint16(ValidBit.HOT | ValidBit.DEAD)).any()
    assert has(history.bits, ValidBit.HOT)[:, 30:].any()


def test_units_that_are_no_photons_do_not_make_every_photon_a_cosmic_ray():
    rng = np.random.default_rng(0)
    photons = simulate(GoldBalls(n_frames=12, read_noise=0.0, dtype="float32")).frames
    units = 30 * photons + rng.normal(0, 4, photons.shape).astype(np.float32)
    bits, _ = walk(units)
    assert (bits != 0).mean() < 0.02  # 0.08 if a photon were taken for one unit


def test_the_dead_pixels_of_a_measured_detector_are_those_of_its_own_mask(shared_data):
    import h5py

    path = shared_data("petra_p25/PETRAIII_P25_Near_Field_Ptycho.cxi")
    with open_stack(str(path)) as stack:
        bits, history = walk(stack[:30])
    with h5py.File(path) as file:
        mask = file["entry_1/instrument_1/detector_1/mask"][()]
    assert np.array_equal(has(history.bits, ValidBit.DEAD), mask != 0)
    assert (bits != 0).mean() < 1e-3


@pytest.mark.parametrize(
    "name", ["siemens_star/siemens_star_first258.h5", "gold_balls/goldballs_resim_f000-040.cxi"]
)
def test_measured_frames_without_known_defects_lose_next_to_nothing(shared_data, name):
    with open_stack(str(shared_data(name))) as stack:
        bits, _ = walk(stack[:40])
    assert (bits != 0).mean() < 1e-3


def test_a_frame_of_another_size_is_refused(scan):
    history = PixelHistory((64, 64))
    with pytest.raises(FrameError, match=r"another size: the frame is \(104, 104\)"):
        history.update(inspect(scan.frames[0], OPTIONS))


@pytest.mark.parametrize("wrong", [{"memory": 3}, {"every": 0}, {"warm_up": 0}])
def test_options_that_cannot_work_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ValidityOptions(**wrong)
