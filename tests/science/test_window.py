import numpy as np
import pytest
from beams import annulus, radius
from scenes import drawn

from ptychoseg_stream.science.classes import class_map
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.frame import ClassCode
from ptychoseg_stream.science.geometry import Geometry, find_beam
from ptychoseg_stream.science.metrics import iou
from ptychoseg_stream.science.prepare import prepare
from ptychoseg_stream.science.window import Window

LARGE = (512, 512)
OPTIONS = PrepareOptions()
BINNED = Window((520, 530), 8, 12, 100, 120, 4)


def all_good(shape):
    return np.zeros(shape, bool)


def chosen(image):
    return Window.choose(image.astype(np.float32), all_good(image.shape), OPTIONS)


# --- choice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 64), (104, 104), (256, 200), (256, 256)])
def test_frame_of_up_to_256_pixels_is_its_own_window(shape):
    counts = drawn(annulus(shape, (30, 31), 8, 18)).astype(np.float32)
    window = Window.choose(counts, all_good(shape), OPTIONS)
    assert window.is_whole
    same, bad = window.take(counts, all_good(shape))
    assert same is counts
    assert not bad.any()
    classes = np.random.default_rng(0).integers(0, 6, shape).astype(np.uint8)
    assert window.put_classes(classes).tobytes() == classes.tobytes()
    assert window.put(counts).tobytes() == counts.tobytes()
    beam = Geometry(30.2, 31.4, 18)
    assert window.to_full(beam) == window.to_window(beam) == beam


@pytest.mark.parametrize(
    ("centre", "outer", "by"),
    [((256, 250), 26, 1), ((256, 250), 75, 1), ((256, 250), 100, 2), ((256, 250), 200, 2)],
)
def test_box_follows_the_beam_and_is_binned_no_more_than_needed(centre, outer, by):
    window = chosen(drawn(annulus(LARGE, centre, 0.5 * outer, outer)))
    assert window.bin == by
    assert max(window.rows, window.columns) <= 256
    beam = Geometry(*centre, outer)
    assert window.holds(window.to_window(beam))
    drifted = beam.moved((0.3 * outer, -0.3 * outer))
    assert window.holds(window.to_window(drifted))


def test_frame_of_four_megapixels_costs_no_more():
    ring = annulus((2070, 2167), (900, 1200), 300, 600)
    window = chosen(drawn(ring, 20))
    assert max(window.rows, window.columns) <= 256
    assert window.bin == 8


def test_frame_without_beam_is_taken_whole_and_binned():
    window = chosen(np.zeros((600, 512)))
    assert (window.bin, window.top, window.left) == (3, 0, 0)
    assert (window.rows, window.columns) == (200, 170)


def test_box_outside_the_frame_is_refused():
    with pytest.raises(ValueError, match=r"^top: rows 8-528"):
        Window((520, 530), 8, 12, 130, 120, 4)
    with pytest.raises(ValueError, match=r"^bin: 0"):
        Window((520, 530), 8, 12, 130, 120, 0)


# --- counts ---------------------------------------------------------------------------------------


def test_counts_of_a_bin_add_up():
    counts = np.random.default_rng(0).poisson(3, (520, 530)).astype(np.float32)
    small, bad = BINNED.take(counts, all_good(counts.shape))
    box = counts[8:408, 12:492].reshape(100, 4, 120, 4)
    assert np.array_equal(small, box.sum(axis=(1, 3)))
    assert small.dtype == np.float32
    assert not bad.any()
    # Still Poisson: the variance is the mean.
    assert small.var() == pytest.approx(small.mean(), rel=0.05)


def test_bad_pixels_are_left_out_of_their_bin_and_a_bin_of_them_is_bad():
    counts, bad = np.full((520, 530), 5, np.float32), all_good((520, 530))
    bad[8:12, 12:14] = True  # half of the first bin
    bad[12:16, 12:15] = True  # three quarters of the one below
    counts[bad] = 1e6
    small, wrong = BINNED.take(counts, bad)
    assert small[0, 0] == pytest.approx(80)
    assert wrong.sum() == 1
    assert wrong[1, 0]
    assert small[1, 0] == 0


def test_frame_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"^counts: a frame of \(512, 512\)"):
        BINNED.take(np.zeros(LARGE, np.float32), all_good(LARGE))


# --- way back -------------------------------------------------------------------------------------


def test_geometry_and_shift_go_to_the_frame_and_back():
    beam = Geometry(20.0, 30.5, 10)
    full = BINNED.to_full(beam)
    assert full == Geometry(8 + 80 + 1.5, 12 + 122 + 1.5, 40)
    assert BINNED.to_window(full) == beam
    assert BINNED.shift_to_full((0.5, -2)) == (2, -8)


def test_image_comes_back_at_its_place():
    y, x = np.indices((520, 530), dtype=np.float32)
    small, _ = BINNED.take(y + 2 * x, all_good((520, 530)))
    back = BINNED.put(small / 16, around=-1)
    inside = (slice(10, 406), slice(14, 490))  # but for half a bin at the edge
    assert back[inside] == pytest.approx((y + 2 * x)[inside], abs=1e-2)
    assert (back[:8] == -1).all()
    assert (back[:, 492:] == -1).all()


def test_classes_come_back_at_their_place_and_all_else_is_background():
    classes = np.full((100, 120), ClassCode.EMPTY, np.uint8)
    classes[20:40, 30:60] = ClassCode.RING
    classes[60:70, 30:60] = ClassCode.INVALID
    back = BINNED.put_classes(classes)
    assert back.shape == (520, 530)
    assert set(np.unique(back)) == {0, ClassCode.RING, ClassCode.EMPTY, ClassCode.INVALID}
    ring = np.zeros((520, 530), bool)
    ring[88:168, 132:252] = True
    assert iou(back == ClassCode.RING, ring) > 0.99
    assert (back[:8] == ClassCode.BACKGROUND).all()


def test_beam_that_leaves_the_window_is_noticed_and_one_that_the_frame_cuts_is_not():
    window = Window(LARGE, 0, 100, 200, 200)
    assert window.holds(Geometry(100, 100, 60))
    assert not window.holds(Geometry(100, 145, 60))
    assert not window.holds(Geometry(145, 100, 60))
    assert window.holds(Geometry(10, 100, 60))  # the frame ends there, too


# --- accuracy -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("centre", "inner", "outer", "plateau"),
    [
        ((200, 300), 12, 26, 50),
        ((256, 250), 40, 70, 50),
        ((256, 250), 60, 120, 3),
        ((256, 250), 100, 200, 50),
        ((100, 400), 50, 100, 50),
        ((0, 250), 60, 120, 50),
        ((256, 250), 180, 200, 50),
    ],
)
def test_ring_of_a_large_frame_through_the_window_is_that_of_the_beam(
    centre, inner, outer, plateau, centroids
):
    ring = annulus(LARGE, centre, inner, outer)
    image = drawn(ring, plateau)
    window = chosen(image)
    small, _ = window.take(image.astype(np.float32), all_good(LARGE))
    prepared = prepare(small)
    beam = find_beam(prepared.relative[0])
    classes = window.put_classes(class_map(centroids.ring(prepared, [beam])[0], beam))
    assert iou(classes == ClassCode.RING, ring) > 0.97
    assert iou(classes == ClassCode.CORE, radius(LARGE, centre) < inner) > 0.97
    found = window.to_full(beam)
    assert (found.y, found.x, found.radius) == pytest.approx((*centre, outer), abs=1)
