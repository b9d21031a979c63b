import numpy as np
import pytest

from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.node.trainer import InlineTrainer
from ptychoseg_stream.science.frame import ClassCode, Frame, ValidBit
from ptychoseg_stream.science.records import Quality
from ptychoseg_stream.science.totals import Totals
from ptychoseg_stream.sim import GoldBalls, simulate

SHAPE = (40, 48)
QUALITY = Quality(centre=(20.0, 24.0), inner=5.0, outer=9.0)
Y, X = np.indices(SHAPE)
RADIUS = np.hypot(Y - 20, X - 24)
RING = (RADIUS >= 5) & (RADIUS <= 9)
CLASSES = np.where(RING, ClassCode.RING, ClassCode.BACKGROUND).astype(np.uint8)
NONE = np.zeros(SHAPE, np.uint16)


def raw_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).poisson(3 + 200 * RING).astype(np.float32)


def add(totals: Totals, frames: int, bits=NONE, classes=CLASSES, start: int = 0) -> None:
    for i in range(start, start + frames):
        totals.add(i, raw_of(i), classes, bits, QUALITY)


def test_sums_are_those_of_class_and_validity_with_the_flanks_on_the_bright_side():
    totals = Totals(SHAPE)
    bits = NONE.copy()
    bits[3:6, 3:6] = ValidBit.HOT
    bits[20, 30] = ValidBit.COSMIC  # in the ring
    add(totals, 3, bits)
    sums = totals.products(None).sums
    bright = np.zeros(SHAPE, bool)
    for y, x in np.argwhere(RING):
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                if abs(dy) + abs(dx) < 4:  # a disc of 2 px
                    bright[y + dy, x + dx] = True
    for i in range(3):
        counts = np.where(bits == 0, raw_of(i), 0).astype(float)
        assert sums[i, 0] == counts[bright].sum()
        assert sums[i, 1] == counts[~bright].sum()
        assert sums[i, 2] == pytest.approx((counts * Y)[bright].sum() / sums[i, 0] - 20)
        assert sums[i, 3] == pytest.approx((counts * X)[bright].sum() / sums[i, 0] - 24)


def test_a_pixel_is_in_the_static_mask_if_many_frames_or_the_last_one_call_it_bad():
    totals = Totals(SHAPE)
    once, often, last = NONE.copy(), NONE.copy(), NONE.copy()
    once[0, 0] = ValidBit.HOT  # in one frame of thirty
    often[0, 1] = ValidBit.DEAD  # in ten
    last[0, 2] = ValidBit.STOP
    last[0, 3] = ValidBit.COSMIC | ValidBit.SATURATED
    add(totals, 1, once)
    add(totals, 10, often, start=1)
    add(totals, 18, NONE, start=11)
    add(totals, 1, last, start=29)
    found = totals.products(None).pixel_mask
    assert found[0, :4].tolist() == [0, ValidBit.DEAD, ValidBit.STOP, 0]
    assert np.count_nonzero(found) == 2


def test_the_last_frame_speaks_for_all_but_for_its_gaps():
    half, module = NONE.copy(), NONE.copy()
    half[:20] = ValidBit.GAP  # of a frame that was read by half
    half[30, 30] = ValidBit.DEAD
    module[22:24] = ValidBit.GAP  # between modules, in all frames
    totals = Totals(SHAPE)
    add(totals, 40, module)
    add(totals, 1, half | module, start=40)
    found = totals.products(None).pixel_mask
    assert not found[:20].any()
    assert (found[22:24] == ValidBit.GAP).all()
    assert found[30, 30] == ValidBit.DEAD


def test_frames_without_a_mask_have_no_sums_and_count_for_nothing_else():
    totals = Totals(SHAPE)
    add(totals, 2)
    totals.skip(2)
    add(totals, 100, start=3)  # more than there is room for at first
    products = totals.products(None)
    assert (products.frames, products.used) == (103, 102)
    assert np.isnan(products.sums[2]).all()
    assert np.isfinite(np.delete(products.sums, 2, axis=0)).all()


def test_products_stay_as_they_are_when_more_frames_come():
    totals = Totals(SHAPE)
    add(totals, 2)
    before = totals.products(None)
    mean, sums = before.mean.copy(), before.sums.copy()
    add(totals, 5, start=2)
    assert np.array_equal(before.mean, mean)
    assert np.array_equal(before.sums, sums)


def test_mean_and_pupil_leave_out_what_is_not_valid():
    totals = Totals(SHAPE)
    bits = NONE.copy()
    bits[0, 0] = ValidBit.GAP
    add(totals, 4, bits)
    other = np.where(RADIUS < 3, ClassCode.RING, CLASSES).astype(np.uint8)
    add(totals, 3, bits, other, start=4)
    products = totals.products(None)
    assert np.array_equal(products.pupil != 0, RING)
    expected = np.mean([raw_of(i) for i in range(7)], axis=0)
    expected[0, 0] = 0
    assert np.allclose(products.mean, expected, atol=1e-4)
    assert (products.centre, products.inner, products.outer) == ((20.0, 24.0), 5.0, 9.0)


def test_a_background_that_is_not_known_is_above_zero_and_has_no_variance():
    products = Totals(SHAPE).products(None)
    assert (products.background > 0).all()
    assert products.background.max() < 1e-3
    assert np.isnan(products.background_variance).all()
    assert np.isnan(products.centre).all()
    assert products.sums.shape == (0, 4)


@pytest.fixture(scope="module")
def spoiled():
    defects = {"hot_pixels": 25, "dead_pixels": 15, "cosmics": 1.5, "glow": 2.0, "stray": 0.005}
    options = GoldBalls(n_frames=80, strong=True, dose=1e6, keep_signal=True, **defects)
    scan, node_options = simulate(options), NodeOptions(stages=())
    node = Node(node_options, lambda: InlineTrainer(node_options.student), MemoryStore())
    node.open("run")
    node.process([Frame("run", i, f, f.shape) for i, f in enumerate(scan.frames)])
    return scan, node.products("run")


@pytest.mark.slow
def test_virtual_detectors_show_the_sample_and_not_the_defects(spoiled):
    scan, products = spoiled
    ring = scan.truth[0] == ClassCode.RING
    y, x = np.argwhere(ring).mean(0)
    near = np.hypot(*(np.indices(ring.shape) - np.array([y, x])[:, None, None]))
    bright = near < near[ring].max() + 2
    core = near < near[ring].min() - 2
    bright &= ~core
    signal = scan.signal.astype(float)
    truth = np.stack(
        [
            (signal * bright).sum((1, 2)),
            (signal * ~bright).sum((1, 2)),
            *((signal * bright * axis).sum((1, 2)) for axis in np.indices(ring.shape)),
        ]
    )
    truth[2:] /= truth[0]
    found = [np.corrcoef(one, two)[0, 1] for one, two in zip(products.sums.T, truth, strict=True)]
    assert min(found) > 0.97, found


@pytest.mark.slow
def test_the_static_mask_of_a_simulated_scan_has_its_hot_and_dead_pixels(spoiled):
    scan, products = spoiled
    static = np.bitwise_and.reduce(scan.bits, axis=0)
    assert np.array_equal(products.pixel_mask & ValidBit.HOT, static & ValidBit.HOT)
    dead, found = ((mask & ValidBit.DEAD) != 0 for mask in (static, products.pixel_mask))
    assert (found & dead).sum() >= 0.7 * dead.sum()  # those in the dark take longer
    assert (found & ~dead).sum() <= 3


@pytest.mark.slow
def test_the_background_of_a_simulated_scan_is_what_the_detector_counts_without_sample(spoiled):
    scan, products = spoiled
    known = products.background_samples >= 20
    assert known.mean() > 0.5
    # Counts below 0 are clipped by the detector: what it adds lies above what the light brings.
    assert np.corrcoef(products.background[known], scan.background[known])[0, 1] > 0.8
    assert (products.background > 0).all()
