import numpy as np
import pytest

from ptychoseg_stream.science.frame import ClassCode
from ptychoseg_stream.sim.truth import class_map, plateau, stop_arm

RADIUS = np.hypot(*(np.indices((60, 60)) - 29.5))
BEAM = ((RADIUS > 6) & (RADIUS < 15)).astype(np.float32) * 800


def test_ring_core_and_background_follow_from_the_empty_beam_in_any_unit():
    classes = class_map(BEAM)
    assert np.array_equal(classes == ClassCode.RING, BEAM > 0)
    assert np.array_equal(classes == ClassCode.CORE, RADIUS <= 6)
    assert np.array_equal(classes == ClassCode.BACKGROUND, RADIUS >= 15)


def test_a_disc_has_no_core():
    assert not (class_map((RADIUS < 15).astype(np.float32)) == ClassCode.CORE).any()


def test_the_beam_stop_overrides_ring_and_core():
    arm = stop_arm((60, 60), (29.5, 29.5), 4.0, 0.0)
    classes = class_map(BEAM, arm)
    assert np.array_equal(classes == ClassCode.BEAM_STOP, arm)
    assert (classes == ClassCode.CORE).any()


@pytest.mark.parametrize(
    ("angle", "edge"),
    [(0, np.s_[:, -1]), (90, np.s_[0, :]), (180, np.s_[:, 0]), (270, np.s_[-1, :])],
)
def test_an_arm_comes_from_the_side_its_angle_says(angle, edge):
    arm = stop_arm((60, 60), (29.5, 29.5), 6.0, angle)
    assert arm.sum() == 6 * 30
    assert arm[edge].sum() == 6


def test_no_width_is_no_arm():
    assert not stop_arm((60, 60), (29.5, 29.5), 0.0, 45.0).any()


def test_the_plateau_is_not_taken_in_by_soft_edges():
    soft = np.clip((15 - RADIUS) / 4, 0, 1).astype(np.float32) * 300
    assert plateau(soft) == pytest.approx(300, rel=0.02)
    assert plateau(np.zeros((4, 4), np.float32)) == 0


def test_the_rule_gives_the_reference_labels_of_the_measured_pupil(gold_labels):
    classes = class_map(gold_labels["pupil_intensity"])
    assert (classes != gold_labels["labels"]).sum() <= 3
