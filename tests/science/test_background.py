import numpy as np
import pytest
from beams import annulus

from ptychoseg_stream.science.background import Background, BackgroundOptions
from ptychoseg_stream.science.frame import ClassCode, ValidBit
from ptychoseg_stream.sim import GoldBalls, simulate

SHAPE = (80, 80)
RING = annulus(SHAPE, (39.5, 39.5), 6, 12)
CLASSES = np.where(RING, ClassCode.RING, ClassCode.BACKGROUND).astype(np.uint8)
NONE = np.zeros(SHAPE, np.uint16)
DARK = (2.0 + np.linspace(0, 1, 80)[:, None] * np.ones(80)).astype(np.float32)
PATCH = np.s_[60:75, 5:20]


def frames_of(n, seed=0, blinking=True):
    """Detector background, a ring, and scatter in a patch of every third frame."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        expected = DARK + 500 * RING
        if blinking and i % 3 == 0:
            expected[PATCH] += 5
        yield (rng.poisson(expected) + rng.normal(0, 0.5, SHAPE)).astype(np.float32)


def split(frames, options=None, bits=NONE):
    background = Background(SHAPE, options)
    return np.stack([background.split(f, CLASSES, bits) for f in frames]), background


def test_a_patch_that_scatters_now_and_then_is_told_from_an_empty_detector():
    answers, _ = split(frames_of(60))
    late = answers[40:]
    inside = late[(np.arange(40, 60) % 3 == 0)][:, 62:73, 7:18]
    outside = late[(np.arange(40, 60) % 3 != 0)][:, 62:73, 7:18]
    assert (inside == ClassCode.SCATTER).mean() > 0.95
    assert (outside == ClassCode.SCATTER).mean() < 0.01
    assert (outside == ClassCode.EMPTY).mean() > 0.5


def test_empty_frames_have_hardly_any_scatter():
    answers, _ = split(frames_of(60, blinking=False))
    assert (answers == ClassCode.SCATTER).mean() < 1e-3


def test_the_background_is_the_mean_of_empty_samples_and_not_biased_by_choosing_them():
    _, background = split(frames_of(120))
    known = background.samples >= 20
    assert known.mean() > 0.6
    error = (background.mean - DARK)[known]
    assert abs(error.mean()) < 0.03
    assert error.std() < 0.35  # 60 samples of variance 3
    assert background.variance[known].mean() == pytest.approx(DARK[known].mean() + 0.25, rel=0.1)


def test_the_flanks_of_the_ring_are_never_called_empty():
    answers, background = split(frames_of(40))
    near = annulus(SHAPE, (39.5, 39.5), 12, 15)
    assert (answers[:, near & ~RING] == ClassCode.BACKGROUND).all()
    assert not background.samples[near].any()


def test_ring_and_core_stay_what_they_are_and_nothing_is_told_at_first():
    answers, _ = split(frames_of(20))
    assert (answers[:, RING] == ClassCode.RING).all()
    assert np.array_equal(answers[10], CLASSES)


def test_where_the_sample_always_scatters_nothing_is_called_empty():
    rng = np.random.default_rng(0)
    background = Background(SHAPE)
    for _ in range(60):
        level = DARK + 500 * RING
        level[PATCH] += 20 * rng.exponential()
        counts = rng.poisson(level).astype(np.float32)
        answer = background.split(counts, CLASSES, NONE)
    assert not (answer[62:73, 7:18] == ClassCode.EMPTY).any()
    assert not background.samples[62:73, 7:18].any()


def test_invalid_pixels_do_not_count():
    bits = NONE.copy()
    bits[30, 70] = ValidBit.HOT
    spoiled = [np.where(bits > 0, np.float32(1e5), f) for f in frames_of(40)]
    answers, background = split(spoiled, bits=bits)
    clean, _ = split(frames_of(40), bits=bits)
    assert np.array_equal(answers, clean)
    assert background.samples[30, 70] == 0
    assert np.isnan(background.mean[30, 70])


def test_the_answer_to_a_frame_depends_on_no_later_one():
    whole, part = split(frames_of(50))[0], split(frames_of(30))[0]
    assert whole[:30].tobytes() == part.tobytes()


def test_memory_is_bounded():
    _, background = split(frames_of(150))
    assert len(background._kept) <= 33


def test_the_split_of_a_simulated_scan_agrees_with_the_expected_signal():
    scan = simulate(GoldBalls(n_frames=60, dtype="float32", stray=0.01, glow=1.0, keep_signal=True))
    background = Background(scan.frames.shape[1:])
    none = np.zeros(scan.frames.shape[1:], np.uint16)
    pairs = zip(scan.frames, scan.truth, strict=True)
    answers = np.stack([background.split(f, t, none) for f, t in pairs])[30:]
    signal = scan.signal[30:]
    assert np.quantile(signal[answers == ClassCode.EMPTY], 0.95) < 0.5
    assert np.quantile(signal[answers == ClassCode.SCATTER], 0.05) > 0.5
    known = background.samples >= 8
    ours = (background.mean - scan.background)[known].mean()
    plain = (scan.frames.mean(axis=0) - scan.background)[known].mean()
    assert abs(ours) < 0.5 * plain


@pytest.mark.parametrize("wrong", [{"signal": 0.0}, {"margin": -1.0}, {"warm_up": 3}])
def test_options_that_cannot_work_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BackgroundOptions(**wrong)
