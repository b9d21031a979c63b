"""Beams of other shapes and in other places than the middle of the frame."""

import numpy as np
import pytest
from beams import annulus, radius
from scenes import drawn, ellipse, sector

from ptychoseg_stream.science.classes import class_map
from ptychoseg_stream.science.frame import ClassCode
from ptychoseg_stream.science.geometry import find_beam
from ptychoseg_stream.science.metrics import iou
from ptychoseg_stream.science.prepare import prepare
from ptychoseg_stream.science.verdict import judge

SHAPE = (128, 128)
CENTRE = (64, 60)
RING, CORE = annulus(SHAPE, CENTRE, 12, 26), radius(SHAPE, CENTRE) < 12


@pytest.fixture
def label(centroids):
    """Verdict and class map of a drawn ring, in Poisson counts."""

    def labelled(ring, plateau=100.0):
        prepared = prepare(drawn(ring, plateau))
        beam = find_beam(prepared.relative[0])
        found = centroids.ring(prepared, [beam])[0]
        profile = judge(found, beam)
        return profile, class_map(found, beam, profile=profile)

    return labelled


def agree(classes, ring, core):
    return iou(classes == ClassCode.RING, ring), iou(classes == ClassCode.CORE, core)


@pytest.mark.parametrize(
    ("shape", "centre", "inner", "outer"),
    [
        ((64, 64), (33, 30), 4.6, 9.6),
        ((128, 128), (64, 60), 12, 26),
        ((128, 128), (64, 64), 40, 50),
        ((300, 200), (100, 120), 30, 70),
        ((256, 256), (20, 120), 50, 100),
        ((128, 128), (0, 60), 12, 26),
        ((128, 128), (-6, 60), 12, 26),
        ((128, 128), (5, 8), 12, 26),
    ],
)
def test_annuli_of_all_sizes_whole_and_cut(shape, centre, inner, outer, label):
    profile, classes = label(annulus(shape, centre, inner, outer))
    assert (profile.verdict, profile.reason) == ("annulus", "")
    ring, core = agree(classes, annulus(shape, centre, inner, outer), radius(shape, centre) < inner)
    assert ring > 0.98
    assert core > 0.97


@pytest.mark.parametrize("plateau", [3.0, 20.0])
def test_faint_ring_cut_in_half_gets_its_core(plateau, label):
    ring = annulus(SHAPE, (0, 60), 12, 26)
    profile, classes = label(ring, plateau)
    assert profile.verdict == "annulus"
    assert min(agree(classes, ring, radius(SHAPE, (0, 60)) < 12)) > 0.94


def test_ring_of_five_pixels_radius_is_an_annulus(label):
    ring = annulus((64, 64), (30, 33), 2.8, 5.5)
    profile, classes = label(ring)
    assert profile.verdict == "annulus"
    assert iou(classes == ClassCode.RING, ring) > 0.85
    core = classes == ClassCode.CORE
    assert 9 <= core.sum() <= 25
    assert core[30, 33]


def test_sectors_outside_the_frame_are_not_missed():
    ring = annulus(SHAPE, (0, 60), 12, 26)
    profile = judge(ring, find_beam(ring.astype(np.float32)))
    assert profile.shown.mean() == pytest.approx(0.5, abs=0.04)
    assert profile.good[profile.shown].mean() > 0.95


@pytest.mark.parametrize("centre", [(3, 60), (-6, 60), (120, 124)])
def test_disc_that_the_border_cuts_is_a_disc(centre, label):
    disc = annulus(SHAPE, centre, 0, 30)
    profile, classes = label(disc)
    assert profile.verdict == "disc"
    assert iou(classes == ClassCode.RING, disc) > 0.98
    assert not (classes == ClassCode.CORE).any()


@pytest.mark.parametrize("ratio", [1.1, 1.3, 1.5])
@pytest.mark.parametrize(("outer", "hole"), [(26, 0.5), (40, 0.8), (14, 0.45)])
def test_elliptical_annulus(outer, hole, ratio, label):
    ring, core = ellipse(SHAPE, CENTRE, outer, ratio, hole)
    profile, classes = label(ring)
    assert profile.verdict == "annulus"
    assert profile.good.mean() > 0.95
    assert min(agree(classes, ring, core)) > 0.94


def test_elliptical_disc(label):
    disc, _ = ellipse(SHAPE, CENTRE, 30, 1.5, 0)
    assert label(disc)[0].verdict == "disc"


@pytest.mark.parametrize("width", [20, 60, 120, 200])
def test_lost_sector_keeps_the_core_and_is_no_ring(width, label):
    left = RING & ~sector(SHAPE, CENTRE, 40, 40 + width)
    profile, classes = label(left)
    assert profile.verdict == "annulus"
    assert profile.good.mean() == pytest.approx(1 - width / 360, abs=0.05)
    assert min(agree(classes, left, CORE)) > 0.94


def test_elliptical_ring_with_a_lost_sector(label):
    ring, core = ellipse(SHAPE, CENTRE, 26, 1.4)
    left = ring & ~sector(SHAPE, CENTRE, 40, 100)
    profile, classes = label(left)
    assert profile.verdict == "annulus"
    assert min(agree(classes, left, core)) > 0.94


def test_dark_spots_stay_dark_and_the_core_round(label):
    left = RING.copy()
    for y, x, r in ((64, 80, 4), (80, 66, 5), (46, 50, 4), (64, 36, 5)):
        left &= radius(SHAPE, (y, x)) >= r
    profile, classes = label(left)
    assert profile.verdict == "annulus"
    assert min(agree(classes, left, CORE)) > 0.92


@pytest.mark.parametrize("width", [6, 10])
def test_spider_of_four_arms_is_an_annulus(width, label):
    y, x = np.indices(SHAPE)
    left = RING & (np.abs(x - 60) >= width / 2) & (np.abs(y - 64) >= width / 2)
    profile, classes = label(left)
    assert profile.verdict == "annulus"
    assert min(agree(classes, left, CORE)) > 0.9


@pytest.mark.parametrize("radii", [(4, 8, 20, 28), (6, 12, 22, 30), (10, 14, 17, 24)])
def test_two_concentric_rings_are_both_ring_and_the_inner_one_has_the_core(radii, label):
    a, b, c, d = radii
    rings = annulus(SHAPE, CENTRE, a, b) | annulus(SHAPE, CENTRE, c, d)
    profile, classes = label(rings)
    assert profile.verdict == "annulus"
    assert min(agree(classes, rings, radius(SHAPE, CENTRE) < a)) > 0.95
    between = annulus(SHAPE, CENTRE, b + 1, c - 1)
    assert (classes[between] == ClassCode.BACKGROUND).all()


def test_square_is_a_disc_and_with_a_stop_in_it_an_annulus(label):
    y, x = np.indices(SHAPE)
    square = (np.abs(y - 64) < 24) & (np.abs(x - 60) < 24)
    hole = (np.abs(y - 64) < 10) & (np.abs(x - 60) < 10)
    assert label(square)[0].verdict == "disc"
    profile, classes = label(square & ~hole)
    assert profile.verdict == "annulus"
    assert min(agree(classes, square & ~hole, hole)) > 0.95


def test_rectangle_of_ratio_one_and_a_half_is_like_a_square(label):
    y, x = np.indices(SHAPE)
    rectangle = (np.abs(y - 64) < 16) & (np.abs(x - 60) < 24)
    hole = (np.abs(y - 64) < 6) & (np.abs(x - 60) < 9)
    assert label(rectangle)[0].verdict == "disc"
    profile, classes = label(rectangle & ~hole)
    assert profile.verdict == "annulus"
    assert min(agree(classes, rectangle & ~hole, hole)) > 0.95
