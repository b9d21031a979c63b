"""Whole runs of frames of all sizes, and of all that a frame may show."""

from dataclasses import replace

import numpy as np
import pytest
from beams import annulus, frames_of, radius, ring_iou
from node_support import OPTIONS, labelled, node_of
from scenes import drawn, peaks

from ptychoseg_stream.science.frame import ClassCode, Frame
from ptychoseg_stream.science.metrics import iou
from ptychoseg_stream.sim import GoldBalls, simulate

pytestmark = pytest.mark.slow

SERVED = replace(OPTIONS, also=(), confidence=True)
SMALL = (104, 104)


def run_of(regions, options=SERVED, plateau=100.0):
    """Label Poisson frames of drawn regions, each with its own noise."""
    return labelled(frames_of(drawn(r, plateau, seed=i) for i, r in enumerate(regions)), options)


def painted(mask, code=ClassCode.RING):
    return mask.classes == code


# --- sizes and places -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "centre", "inner", "outer"),
    [
        ((64, 64), (31, 33), 6, 13),
        ((104, 104), (-4, 50), 10, 24),
        ((130, 90), (70.3, 41.2), 12, 26),
        ((300, 280), (140.3, 139.2), 20, 45),  # cut out
        ((512, 512), (250, 260), 60, 110),  # cut out and binned
        ((512, 512), (20, 300), 50, 100),  # cut by the border
        ((512, 300), (-10, 150), 40, 90),  # its centre outside
    ],
)
def test_ring_of_any_size_and_place_is_labelled_in_pixels_of_the_frame(shape, centre, inner, outer):
    ring, core = annulus(shape, centre, inner, outer), radius(shape, centre) < inner
    masks = run_of([ring] * 8)
    assert [m.status for m in masks] == ["ok"] * 8
    assert masks[-1].student_revision == 2
    for mask in masks:
        assert mask.verdict == "annulus"
        assert mask.classes.shape == mask.valid_bits.shape == mask.confidence.shape == shape
        assert iou(painted(mask), ring) > 0.97
        assert iou(painted(mask, ClassCode.CORE), core) > 0.95
        assert mask.ring_area == painted(mask).sum()
        assert mask.quality.centre == pytest.approx(centre, abs=0.8)
        assert mask.quality.inner == pytest.approx(inner, abs=1.1)
        assert mask.quality.outer == pytest.approx(outer, abs=1.1)
        assert mask.shift == pytest.approx((0, 0), abs=0.3)
        assert mask.plateau == pytest.approx(100, rel=0.1)


def test_shift_of_a_large_frame_is_in_its_own_pixels():
    path = [(0, 0)] * 4 + [(10, -6)] * 4
    rings = [annulus((512, 512), (250 + y, 260 + x), 60, 110) for y, x in path]
    masks = run_of(rings)
    assert masks[-1].shift == pytest.approx((10, -6), abs=0.5)
    assert masks[-1].quality.centre == pytest.approx((260, 254), abs=0.5)
    assert min(iou(painted(m), ring) for m, ring in zip(masks, rings, strict=True)) > 0.97


def test_bad_pixels_outside_the_window_have_their_bits_and_classes():
    ring = annulus((512, 512), (150, 160), 20, 40)
    images = [drawn(ring, seed=i).astype(np.float32) for i in range(4)]
    for image in images:
        image[400:440, 400:440] = np.nan
        image[150, 130] = np.nan  # on the ring
    mask = labelled(frames_of(images), SERVED)[-1]
    gap = (mask.valid_bits & 1) != 0
    assert gap[400:440, 400:440].all()
    assert gap[150, 130]
    assert gap.sum() == 1601
    assert painted(mask)[150, 130]
    assert painted(mask, ClassCode.INVALID)[405:435, 405:435].all()
    known = ~painted(mask, ClassCode.INVALID)
    assert (mask.confidence[400:][known[400:]] == 255).all()
    assert not mask.confidence[~known].any()


def test_beam_that_leaves_its_window_gets_another_and_learning_begins_anew():
    path = [(150, 150)] * 8 + [(150 + 4 * i, 150) for i in range(1, 22)]
    rings = [annulus((512, 512), at, 20, 40) for at in path]
    masks = run_of(rings)
    assert [m.status for m in masks] == ["ok"] * len(path)
    assert min(iou(painted(m), ring) for m, ring in zip(masks, rings, strict=True)) > 0.95
    told = [a for m in masks for a in m.alarms if a.monitor == "window"]
    assert [a.action for a in told] == ["restart"]
    assert "out of the part of the frame that is looked at" in told[0].text
    assert (told[0].value, told[0].expected) == pytest.approx(path[told[0].index], abs=1.0)
    records = [s for m in masks for s in m.stages]
    assert [s.stage for s in records] == list(range(len(records)))
    assert len(records) > 3
    assert all(i > told[0].index for s in records[3:] for i in s.frames)
    assert masks[-1].quality.centre == pytest.approx(path[-1], abs=0.5)


def test_beam_that_jumps_out_of_its_window_is_found_again_after_one_frame():
    path = [(150, 150)] * 8 + [(350, 340)] * 5
    rings = [annulus((512, 512), at, 20, 40) for at in path]
    masks = run_of(rings)
    assert [m.status for m in masks] == ["ok"] * 8 + ["refused"] + ["ok"] * 4
    found = [iou(painted(m), r) for m, r in zip(masks, rings, strict=True) if m.status == "ok"]
    assert min(found) > 0.97
    told = [(a.monitor, a.action) for m in masks for a in m.alarms]
    assert told == [("beam", "no beam"), ("window", "restart")]
    assert masks[8].alarms[1].value == pytest.approx(350, abs=2)
    assert [s.frames for m in masks for s in m.stages][3:] == [(9,), (9, 12)]


def test_dark_and_littered_frames_do_not_make_a_run_leave_its_window():
    """Without its beam, a large frame is searched: what is found must look like one."""
    ring = annulus((512, 512), (150, 150), 20, 40)
    images = [drawn(ring, seed=i) for i in range(10)]
    litter = peaks(6, seed=3, shape=(512, 512))
    litter[60:240, 60:240] = 0
    images[5:8] = np.zeros_like(litter), drawn(0 * ring, seed=6), litter
    masks = labelled(frames_of(images), replace(SERVED, stages=(0, 3)))
    assert [m.status for m in masks] == ["ok"] * 5 + ["refused"] * 3 + ["ok"] * 2
    assert [a.monitor for m in masks for a in m.alarms] == ["beam", "beam"]
    assert min(iou(painted(m), ring) for m in masks[8:]) > 0.97
    assert masks[8].student_hash == masks[4].student_hash


# --- other shapes ---------------------------------------------------------------------------------


def test_two_rings_are_ring_and_the_inner_one_has_the_core():
    inner, outer = annulus(SMALL, (52, 50), 6, 11), annulus(SMALL, (52, 50), 20, 28)
    for mask in run_of([inner | outer] * 8):
        assert mask.verdict == "annulus"
        assert iou(painted(mask), inner | outer) > 0.97
        assert iou(painted(mask, ClassCode.CORE), radius(SMALL, (52, 50)) < 6) > 0.95
    assert mask.student_revision == 2


def test_disc_is_called_one_and_has_no_core():
    disc = annulus(SMALL, (51.3, 49.2), 0, 14)
    for mask in run_of([disc] * 8):
        assert mask.verdict == "disc"
        assert "no core" in mask.reason
        assert iou(painted(mask), disc) > 0.97
        assert not painted(mask, ClassCode.CORE).any()
        assert mask.quality.inner == 0
    assert mask.student_revision == 2  # it is learned all the same


# --- no ring --------------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [True, False], ids=["the same", "others in each frame"])
def test_run_of_bragg_peaks_learns_nothing_and_has_no_ring(same):
    masks = labelled(frames_of(peaks(9, seed=0 if same else i) for i in range(24)), SERVED)
    for mask in masks:
        assert (mask.status, mask.source, mask.verdict) == ("ok", "teacher", "none")
        assert "separate bright spots" in mask.reason
        assert mask.ring_area == 0
        assert not np.isin(mask.classes, (ClassCode.RING, ClassCode.CORE)).any()
        assert np.isnan([mask.quality.inner, mask.quality.outer]).all()
        assert mask.student_revision == -1
        assert mask.stages == ()
        assert mask.alarms == ()


def test_run_of_flat_frames_learns_nothing_and_says_why():
    rng = np.random.default_rng(0)
    masks = labelled(frames_of(rng.poisson(50, (6, *SMALL)).astype(np.uint16)), SERVED)
    for mask in masks:
        assert (mask.status, mask.source, mask.verdict) == ("refused", "none", "none")
        assert "60% of the frame lies above half of the plateau" in mask.reason
        assert (mask.classes == ClassCode.INVALID).all()
        assert mask.alarms == mask.stages == ()


def test_run_that_begins_with_bragg_peaks_learns_from_the_first_ring_on(scan):
    images = [peaks(9, seed=i) for i in range(4)] + list(scan.frames[4:16])
    masks = labelled(frames_of(images), SERVED)
    assert [m.verdict for m in masks] == ["none"] * 4 + ["annulus"] * 12
    assert {m.status for m in masks} == {"ok"}
    assert [s.frames for m in masks for s in m.stages] == [(4,), (4, 5), (4, 5, 7)]
    found = [ring_iou(m.classes, scan.truth[m.frame.index]) for m in masks[4:]]
    assert min(found) > 0.9
    assert np.mean(found) > 0.94
    assert [a for m in masks for a in m.alarms] == []


def test_large_frames_without_a_ring_do_not_fix_the_window():
    junk = [peaks(5, seed=i, width=5.0, shape=(400, 400)) for i in range(2)]
    ring = annulus((400, 400), (290, 300), 25, 50)
    masks = labelled(frames_of([*junk, *(drawn(ring, seed=i) for i in range(4))]), SERVED)
    assert {m.verdict for m in masks[:2]} <= {"none", "no beam"}
    assert [m.verdict for m in masks[2:]] == ["annulus"] * 4
    assert min(iou(painted(m), ring) for m in masks[2:]) > 0.97


# --- without learning -----------------------------------------------------------------------------


def test_without_stages_the_teacher_serves_whatever_comes():
    scan = simulate(GoldBalls(n_frames=60, change_at=30, ring_scale=1.1))
    masks = labelled(frames_of(scan.frames), replace(SERVED, stages=()))
    assert {m.source for m in masks} == {"teacher"}
    assert {m.student_revision for m in masks} == {-1}
    assert [s for m in masks for s in m.stages] == []
    assert [a.action for m in masks for a in m.alarms] == ["restart"]
    found = [ring_iou(m.classes, t) for m, t in zip(masks, scan.truth, strict=True)]
    assert np.mean(found) > 0.92


# --- what is no frame -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 104)), np.zeros((104, 104), complex), np.zeros((104, 104), "U1")],
    ids=["too small", "complex", "text"],
)
def test_what_is_no_image_is_refused_and_says_what_one_is(image):
    node = node_of(SERVED)
    node.open("run")
    (mask,) = node.process([Frame("run", 0, image, image.shape)])
    assert mask.status == "refused"
    assert "a real 2-D image of at least 16x16 pixels" in mask.reason
    node.close("run")
