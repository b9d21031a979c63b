import dataclasses

import numpy as np
import pytest
from beams import annulus, beam_of, degrees, radius

from ptychoseg_stream.science.classes import (
    SECTORS,
    class_map,
    clean_ring,
    judge,
    shadowed_sectors,
)
from ptychoseg_stream.science.frame import ClassCode, legend
from ptychoseg_stream.science.geometry import Geometry
from ptychoseg_stream.science.metrics import iou

CENTRE = (48.3, 52.6)
SHAPE = (100, 110)


def painted(classes, code):
    return classes == code


# --- cleaning -------------------------------------------------------------------------------------


def test_parts_below_five_percent_of_the_largest_are_dropped():
    ring = np.zeros((60, 60), bool)
    ring[5:25, 5:25] = True  # 400
    ring[40:44, 40:45] = True  # 20: five per cent stay
    ring[50:53, 10:16] = True  # 18
    expected = ring.copy()
    expected[50:53, 10:16] = False
    assert np.array_equal(clean_ring(ring), expected)


def test_core_stays_and_pinholes_are_filled():
    ring = annulus((60, 60), (30, 30), 6, 18)
    pricked = ring.copy()
    pricked[30, 42] = pricked[20, 30] = pricked[20, 31] = False
    assert np.array_equal(clean_ring(pricked), ring)


@pytest.mark.parametrize(("pixels", "stays"), [(1, False), (2, False), (3, True), (40, True)])
def test_a_single_hole_stays_unless_it_has_fewer_than_three_pixels(pixels, stays):
    ring = annulus((60, 60), (30, 30), 0, 18)
    hole = np.zeros_like(ring)
    hole[30, 20 : 20 + min(pixels, 20)] = True
    hole[31, 20 : 20 + max(0, pixels - 20)] = True
    assert np.array_equal(clean_ring(ring & ~hole), ring & ~hole if stays else ring)


def test_hole_of_a_tenth_of_the_largest_stays():
    ring = np.ones((40, 40), bool)
    ring[5:15, 5:15] = False  # 100
    ring[25, 20:30] = False  # 10
    ring[30, 5:14] = False  # 9
    cleaned = clean_ring(ring)
    assert not cleaned[25, 20:30].any()
    assert cleaned[30, 5:14].all()


def test_bay_at_the_border_is_no_hole():
    ring = np.ones((30, 30), bool)
    ring[10:20, 10:20] = False
    ring[0:2, 5] = False
    assert np.array_equal(clean_ring(ring), ring)


def test_nothing_stays_nothing_and_the_input_is_not_modified():
    assert not clean_ring(np.zeros((20, 20), bool)).any()
    ring = annulus((60, 60), (30, 30), 6, 18)
    ring[30, 42] = ring[0, 0] = ~ring[30, 42]
    before = ring.copy()
    clean_ring(ring)
    assert np.array_equal(ring, before)


def test_core_of_the_inner_of_two_rings_is_no_pinhole_of_the_space_between_them():
    inner, outer = annulus((80, 80), (40, 40), 4, 8), annulus((80, 80), (40, 40), 20, 28)
    pricked = inner | outer
    pricked[40, 64] = False
    assert np.array_equal(clean_ring(pricked), inner | outer)


# --- core and verdict -----------------------------------------------------------------------------


@pytest.mark.parametrize(("inner", "outer"), [(4.6, 9.6), (3, 8), (12, 26), (20, 25), (2.5, 30)])
def test_core_of_an_annulus_is_its_hole(inner, outer):
    ring, geometry = beam_of(SHAPE, CENTRE, inner, outer)
    classes = class_map(ring, geometry)
    hole = radius(SHAPE, CENTRE) < inner
    assert judge(ring, geometry).verdict == "annulus"
    assert iou(painted(classes, ClassCode.CORE), hole) > 0.93
    assert np.array_equal(painted(classes, ClassCode.RING), ring)
    assert set(np.unique(classes)) == {0, 1, 2}
    assert classes.dtype == np.uint8


def test_radii_are_those_of_the_annulus_in_every_sector():
    ring, geometry = beam_of(SHAPE, CENTRE, 12, 26)
    profile = judge(ring, geometry)
    assert profile.good.all()
    assert profile.seen.all()
    # A sector of four degrees is narrower than a pixel there: the first pixel may be two behind.
    assert np.abs(profile.inner - 12).max() < 2.5
    assert np.abs(profile.outer - 26).max() < 1.2


@pytest.mark.parametrize("shift", [(0, 0), (1, -1), (0.2, 0.4)])
@pytest.mark.parametrize("outer", [5, 14, 40])
def test_disc_has_no_core(outer, shift):
    ring, geometry = beam_of(SHAPE, CENTRE, 0, outer)
    geometry = geometry.moved(shift)
    assert judge(ring, geometry).verdict == "disc"
    assert not painted(class_map(ring, geometry), ClassCode.CORE).any()


def test_dark_spot_in_a_disc_is_no_core():
    ring, geometry = beam_of(SHAPE, CENTRE, 0, 14)
    ring[48:51, 54:57] = False  # what a sample does; it begins 2 px from the centre
    assert judge(ring, geometry).verdict == "disc"
    assert set(np.unique(class_map(ring, geometry))) == {0, 1}


@pytest.mark.parametrize("part", [20, 60, 100])
def test_arc_is_no_annulus_and_encloses_nothing(part):
    ring, geometry = beam_of(SHAPE, CENTRE, 12, 26)
    arc = ring & (degrees(SHAPE, CENTRE) < part)
    assert judge(arc, geometry).verdict == "none"
    assert not class_map(arc, geometry).any()


def test_annulus_with_a_gap_still_encloses_its_core():
    ring, geometry = beam_of(SHAPE, CENTRE, 12, 26)
    open_ring = ring & (degrees(SHAPE, CENTRE) > 50)
    profile = judge(open_ring, geometry)
    assert profile.verdict == "annulus"
    assert 0.8 < profile.good.mean() < 0.9
    classes = class_map(open_ring, geometry)
    assert iou(painted(classes, ClassCode.CORE), radius(SHAPE, CENTRE) < 12) > 0.93
    # Without word of a beam-stop the gap is dark background, not core and not stop.
    gap = ring & ~open_ring & (radius(SHAPE, CENTRE) > 13.5)
    assert (classes[gap] == ClassCode.BACKGROUND).all()


def test_empty_ring_is_background_without_a_verdict():
    geometry = Geometry(20, 20, 5)
    assert judge(np.zeros((40, 40), bool), geometry).verdict == "none"
    assert not class_map(np.zeros((40, 40), bool), geometry).any()


def test_ring_cut_by_the_border_of_the_frame_gets_its_core():
    ring, geometry = beam_of((60, 60), (12.0, 30.0), 8, 18)
    classes = class_map(ring, geometry)
    hole = radius((60, 60), (12.0, 30.0)) < 8
    assert iou(painted(classes, ClassCode.CORE), hole) > 0.9


def test_unknown_pixels_are_invalid_whatever_else_they_would_be():
    ring, geometry = beam_of(SHAPE, CENTRE, 12, 26)
    unknown = np.zeros(SHAPE, bool)
    unknown[47:50] = True
    classes = class_map(ring, geometry, unknown)
    assert np.array_equal(painted(classes, ClassCode.INVALID), unknown)
    assert np.array_equal(classes[~unknown], class_map(ring, geometry)[~unknown])


def test_ring_behind_a_gap_of_the_detector_is_not_missed():
    ring, geometry = beam_of(SHAPE, CENTRE, 12, 26)
    gap = (degrees(SHAPE, CENTRE) < 240) & (radius(SHAPE, CENTRE) > 8)
    assert judge(ring & ~gap, geometry).verdict == "none"
    profile = judge(ring & ~gap, geometry, gap)
    assert profile.verdict == "annulus"
    assert profile.shown.mean() < 0.4
    classes = class_map(ring & ~gap, geometry, gap)
    assert iou(painted(classes, ClassCode.CORE), ~gap & (radius(SHAPE, CENTRE) < 12)) > 0.9


def test_profile_that_is_known_already_is_not_made_again():
    ring, geometry = beam_of(SHAPE, CENTRE, 12, 26)
    profile = judge(ring, geometry)
    again = class_map(ring, geometry, profile=profile)
    assert np.array_equal(again, class_map(ring, geometry))
    none = dataclasses.replace(profile, verdict="none")
    assert not class_map(ring, geometry, profile=none).any()


def test_classes_are_painted_without_touching_the_ring_given():
    ring, geometry = beam_of(SHAPE, CENTRE, 12, 26)
    before = ring.copy()
    class_map(ring, geometry, ring)
    assert np.array_equal(ring, before)


# --- beam-stop ------------------------------------------------------------------------------------


@pytest.fixture
def stopped():
    """An annulus that an arm of 32 degrees shadows around 270 degrees, towards row 0."""
    ring, geometry = beam_of(SHAPE, CENTRE, 12, 26)
    arm = np.abs(degrees(SHAPE, CENTRE) - 270) < 16
    return ring, arm, geometry


def test_shadow_across_the_ring_is_beam_stop(stopped):
    ring, arm, geometry = stopped
    left = ring & ~arm
    profile = judge(left, geometry)
    shadow = shadowed_sectors(profile, left.astype(np.float32), geometry)
    assert shadow.shape == (SECTORS,)
    at = (np.nonzero(shadow)[0] + 0.5) * 360 / SECTORS
    assert np.abs(at - 270).max() < 16
    assert 6 <= shadow.sum() <= 8
    classes = class_map(left, geometry, stop_sectors=shadow)
    assert iou(painted(classes, ClassCode.BEAM_STOP), ring & arm) > 0.7
    assert iou(painted(classes, ClassCode.CORE), radius(SHAPE, CENTRE) < 12) > 0.93


def test_sector_that_the_sample_dims_is_no_beam_stop(stopped):
    ring, arm, geometry = stopped
    left = ring & ~arm
    dim = np.where(arm, 0.4, 1.0) * ring
    profile = judge(left, geometry)
    assert not shadowed_sectors(profile, dim.astype(np.float32), geometry).any()


def test_dark_surroundings_of_an_arc_are_no_beam_stop(stopped):
    ring, _, geometry = stopped
    arc = ring & (degrees(SHAPE, CENTRE) < 90)
    profile = judge(arc, geometry)
    assert not shadowed_sectors(profile, arc.astype(np.float32), geometry).any()


# --- codes ----------------------------------------------------------------------------------------


def test_codes_are_fixed_for_ever():
    assert {c.name: c.value for c in ClassCode} == {
        "BACKGROUND": 0,
        "RING": 1,
        "CORE": 2,
        "BEAM_STOP": 3,
        "SCATTER": 4,
        "EMPTY": 5,
        "INVALID": 255,
    }
    assert legend() == {
        "0": "background",
        "1": "ring",
        "2": "core",
        "3": "beam_stop",
        "4": "scatter",
        "5": "empty",
        "255": "invalid",
    }
