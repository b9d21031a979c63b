"""What a mask says beside its classes: validity, confidence, quality, stages."""

from dataclasses import replace

import numpy as np
import pytest
from beams import QUICK, annulus, frames_of, ring_iou
from node_support import ALL, OPTIONS, labelled
from scenes import counts_of, drawn
from scipy import ndimage

from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.node.trainer import InlineTrainer
from ptychoseg_stream.science.frame import ClassCode, ValidBit
from ptychoseg_stream.science.metrics import iou
from ptychoseg_stream.science.prototypes import TeacherOptions
from ptychoseg_stream.sim import GoldBalls, simulate

pytestmark = pytest.mark.slow

SERVED = replace(OPTIONS, also=())
USER = np.uint16(ValidBit.USER)


def labelled_with(images, user, options=SERVED):
    node = Node(options, lambda: InlineTrainer(QUICK), MemoryStore(), user)
    node.open("run")
    masks = node.process(frames_of(images))
    node.close("run")
    return masks


def has(mask, bit):
    return (mask.valid_bits & np.uint16(bit)) != 0


def ring_of(mask):
    return mask.classes == ClassCode.RING


# --- a user's mask --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def masked(scan):
    """Two pieces of the ring and a corner of the frame are masked, and full of rubbish."""
    user = np.zeros((104, 104), bool)
    user[50:53, 41:44] = user[44, 52] = user[:10, :10] = True
    images = scan.frames[:12].copy()
    images[:, user] = 30000
    return user, labelled_with(images, user), labelled_with(scan.frames[:12], None)


def test_users_pixels_carry_their_bit_and_no_other_pixel_does(masked):
    user, masks, clean = masked
    for mask in masks:
        assert np.array_equal(has(mask, ValidBit.USER), user)
    assert not any(has(mask, ValidBit.USER).any() for mask in clean)


def test_what_the_user_masks_has_no_part_in_the_masks_and_gets_the_class_around_it(masked):
    user, masks, clean = masked
    for mask, expected in zip(masks, clean, strict=True):
        assert mask.status == "ok"
        assert iou(ring_of(mask), ring_of(expected)) > 0.95
        assert ring_of(mask)[51, 42]
        assert mask.plateau == pytest.approx(expected.plateau, rel=0.1)
        inside = user & (mask.classes != ClassCode.INVALID)
        assert inside[50:53, 41:44].all()
        assert mask.classes[2, 2] == ClassCode.INVALID  # nothing measured is near


def test_pixels_are_refused_service_but_not_the_frames_that_hold_many(scan):
    user = np.zeros((104, 104), bool)
    user[:, :30] = True
    assert [m.status for m in labelled_with(scan.frames[:3], user)] == ["ok"] * 3
    user[:, :60] = True
    for mask in labelled_with(scan.frames[:3], user):
        assert mask.status == "refused"
        assert "58% of the pixels are unusable" in mask.reason


def test_mask_of_another_shape_is_refused_in_clear_words(scan):
    for mask in labelled_with(scan.frames[:2], np.zeros((64, 104), bool)):
        assert mask.status == "refused"
        assert "the user's mask is (64, 104), the frame (104, 104)" in mask.reason
        assert "give a mask of this size" in mask.reason
        assert (mask.classes == ClassCode.INVALID).all()


def test_users_mask_holds_in_large_frames_at_full_size():
    ring = annulus((512, 512), (250, 260), 60, 110)
    user = np.zeros((512, 512), bool)
    user[240:262, 330:341] = user[500:, :20] = True
    images = [np.where(user, 9000, drawn(ring, seed=i)).astype(np.uint16) for i in range(4)]
    for mask in labelled_with(images, user):
        assert np.array_equal(has(mask, ValidBit.USER), user)
        assert iou(ring_of(mask), ring) > 0.97


# --- defects --------------------------------------------------------------------------------------

DEFECTS = {
    "hot pixels": {"hot_pixels": 40},
    "dead pixels": {"dead_pixels": 60},
    "cosmic rays": {"cosmics": 4.0},
    "all of them": {"hot_pixels": 30, "dead_pixels": 40, "cosmics": 3.0, "gap_width": 4},
}


@pytest.mark.parametrize("kind", DEFECTS)
def test_frames_with_defects_have_the_rings_of_the_clean_ones(kind):
    clean = simulate(GoldBalls(n_frames=30))
    scan = simulate(GoldBalls(n_frames=30, **DEFECTS[kind]))
    masks = labelled(frames_of(scan.frames), SERVED)
    expected = labelled(frames_of(clean.frames), SERVED)
    assert {m.status for m in masks} == {"ok"}
    found = [iou(ring_of(a), ring_of(b)) for a, b in zip(masks, expected, strict=True)]
    assert np.mean(found) > 0.95
    assert np.mean([ring_iou(m.classes, t) for m, t in zip(masks, scan.truth, strict=True)]) > 0.94


def test_defects_that_persist_are_told_by_their_bits():
    scan = simulate(GoldBalls(n_frames=40, hot_pixels=30, gap_width=4))
    last = labelled(frames_of(scan.frames), SERVED)[-1]
    for bit in (ValidBit.HOT, ValidBit.GAP):
        true = (scan.bits[-1] & np.uint16(bit)) != 0
        assert iou(has(last, bit), true) > 0.95


def test_validity_and_class_are_never_merged():
    """A dead pixel in the ring is ring: the beam is there. No memory of its zeros is kept."""
    scan = simulate(GoldBalls(n_frames=40, dead_pixels=400))
    masks = labelled(frames_of(scan.frames), replace(SERVED, also=ALL))
    last = masks[-1]
    dead = has(last, ValidBit.DEAD) & (scan.truth[-1] == ClassCode.RING)
    assert dead.sum() >= 5
    for classes in last.alternatives.values():
        assert (classes[dead] == ClassCode.RING).mean() > 0.85
    assert ring_iou(last.classes, scan.truth[-1]) > 0.95


# --- beam-stop ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped():
    # A lost quarter would show; an arm of five pixels hides a tenth of the ring.
    scan = simulate(GoldBalls(n_frames=40, arm_width=5.0, arm_angle=90.0))
    return scan, labelled(frames_of(scan.frames), SERVED)


def test_arm_across_the_ring_is_beam_stop_and_not_valid(stopped):
    scan, masks = stopped
    shadow = (scan.truth[-1] == ClassCode.BEAM_STOP) & (simulate_ring() > 0)
    assert shadow.sum() > 15
    for mask in masks[10:]:
        stop = mask.classes == ClassCode.BEAM_STOP
        assert stop.sum() > 10
        assert has(mask, ValidBit.STOP)[stop].all()
        assert (stop & shadow).sum() > 0.5 * shadow.sum()
        assert ring_iou(mask.classes, scan.truth[mask.frame.index]) > 0.85


def test_without_an_arm_nothing_is_beam_stop(scan):
    for mask in labelled(frames_of(scan.frames), SERVED):
        assert not (mask.classes == ClassCode.BEAM_STOP).any()
        assert not has(mask, ValidBit.STOP).any()


def simulate_ring():
    """Ring of the scan without an arm, ``(h, w)``."""
    return (simulate(GoldBalls(n_frames=1)).truth[0] == ClassCode.RING).astype(int)


# --- confidence -----------------------------------------------------------------------------------


def test_confidence_is_there_on_request_only(scan):
    frames = frames_of(scan.frames[:5])
    assert {m.confidence is None for m in labelled(frames, SERVED)} == {True}
    with_it = labelled(frames, replace(SERVED, confidence=True))
    plain = labelled(frames, SERVED)
    for mask, other in zip(with_it, plain, strict=True):
        assert mask.confidence.shape == mask.classes.shape
        assert mask.confidence.dtype == np.uint8
        assert 128 <= mask.confidence.min() < 200
        assert mask.confidence.max() == 255
        assert np.array_equal(mask.classes, other.classes)  # it changes nothing else


def test_pixels_are_uncertain_at_the_edges_of_the_ring_and_certain_elsewhere(scan):
    masks = labelled(frames_of(scan.frames[:12]), replace(SERVED, confidence=True))
    for mask in masks:
        wrong = ring_of(mask) != (scan.truth[mask.frame.index] == ClassCode.RING)
        r = np.hypot(*(np.indices((104, 104)) - np.array([51.46, 49.2])[:, None, None]))
        edge = (np.abs(r - 4.62) < 1) | (np.abs(r - 9.63) < 1)
        assert mask.confidence[edge].mean() < mask.confidence[~edge].mean() - 20
        assert mask.confidence[r > 20].min() > 240
        if wrong.any():
            assert mask.confidence[wrong].mean() < mask.confidence[ring_of(mask) & ~wrong].mean()


@pytest.mark.parametrize("level", [0.3, 0.5, 0.7])
def test_teacher_is_uncertain_where_its_own_edge_level_lies(level):
    ring = annulus((104, 104), (52, 50), 12, 26)
    teacher = TeacherOptions(edge_level=level)
    options = replace(SERVED, stages=(), confidence=True, teacher=teacher)
    images = [counts_of(0.1 + 300.0 * ring, seed, blur=2.0) for seed in range(3)]
    for mask in labelled(frames_of(images), options):
        coins = mask.confidence == 128  # what is said is not what is likely
        assert coins[ring_of(mask)].mean() < 0.02
        border = ndimage.binary_dilation(ring_of(mask)) & ~ring_of(mask)
        assert coins[border].mean() < 0.2
        assert mask.confidence[border].mean() < 185


def test_refused_frames_have_no_confidence(scan):
    dark = np.zeros((104, 104), np.uint16)
    options = replace(SERVED, confidence=True)
    assert labelled(frames_of([scan.frames[0], dark]), options)[1].confidence is None


# --- quality --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("centre", "inner", "outer"), [((52.3, 49.7), 12, 26), ((40.0, 61.5), 6, 14)]
)
def test_centre_and_radii_are_those_of_the_beam(centre, inner, outer):
    ring = annulus((104, 104), centre, inner, outer)
    for mask in labelled(frames_of(drawn(ring, seed=i) for i in range(8)), SERVED):
        assert mask.quality.centre == pytest.approx(centre, abs=0.2)
        assert mask.quality.inner == pytest.approx(inner, abs=0.6)
        assert mask.quality.outer == pytest.approx(outer, abs=0.6)


def test_centre_follows_the_beam():
    path = tuple((0.1 * i, -0.15 * i) for i in range(30))
    scan = simulate(GoldBalls(n_frames=30, drift_path=path))
    masks = labelled(frames_of(scan.frames), SERVED)
    for mask, (dy, dx) in zip(masks[8:], path[8:], strict=True):
        assert mask.quality.centre == pytest.approx((51.46 + dy, 49.2 + dx), abs=0.6)


def test_agreement_is_that_of_the_published_rings(scan):
    masks = labelled(frames_of(scan.frames[:10]), replace(OPTIONS, also=ALL))
    for mask in masks:
        rings = {name: a == ClassCode.RING for name, a in mask.alternatives.items()}
        served = ring_of(mask)
        assert mask.quality.iou_to_teacher == pytest.approx(iou(served, rings["teacher"]))
        if mask.student_revision >= 0:
            assert mask.quality.iou_to_student == pytest.approx(iou(served, rings["student"]))
        else:
            assert np.isnan(mask.quality.iou_to_student)


def test_entropy_is_low_where_the_ring_is_sharp_and_high_where_it_is_faint():
    sharp = annulus((104, 104), (52, 50), 12, 26)
    found = {}
    for plateau in (2000, 2):
        images = [drawn(sharp, plateau, seed=i) for i in range(6)]
        masks = labelled(frames_of(images), replace(SERVED, serve="student"))
        found[plateau] = np.mean([m.quality.entropy for m in masks])
        assert all(0 <= m.quality.entropy <= 1 for m in masks)
    assert found[2000] < 0.1
    assert found[2] > 2 * found[2000]


# --- stages ---------------------------------------------------------------------------------------


def test_masks_carry_the_record_of_each_stage_that_ended(scan):
    masks = labelled(frames_of(scan.frames[:10]), SERVED)
    assert [m.frame.index for m in masks if m.stages] == [0, 3, 7]
    records = [s for m in masks for s in m.stages]
    assert [s.frames for s in records] == [(0,), (0, 3), (0, 3, 7)]
    for record, mask in zip(records, (masks[0], masks[3], masks[7]), strict=True):
        assert record.promoted
        assert record.reason == ""
        assert record.student_hash == mask.student_hash
        assert record.centroids_hash == mask.centroids_hash
        assert record.stage == mask.student_revision
        assert record.rounds == QUICK.rounds
        assert record.converged == (record.delta < QUICK.epsilon)
        assert record.iou_to_anchor > 0.85
        assert abs(record.area_change) < 0.15
    assert [r.parent_hash for r in records] == ["", *(r.student_hash for r in records[:2])]


def test_convergence_is_reported_whether_it_is_reached_or_not(scan):
    for epsilon, converged in ((0.0, False), (1.0, True)):
        student = replace(QUICK, epsilon=epsilon, rounds=2)
        masks = labelled(frames_of(scan.frames[:5]), replace(SERVED, student=student))
        records = [s for m in masks for s in m.stages]
        assert [s.converged for s in records] == [converged] * 2
        assert [s.rounds for s in records] == [1 if converged else 2] * 2
        assert all(s.promoted for s in records)  # not converging is a legal outcome
