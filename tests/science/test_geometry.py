import numpy as np
import pytest
from beams import annulus, degrees
from scenes import ellipse

from ptychoseg_stream.science.geometry import Geometry, angle_map, find_beam, keep_large, radius_map
from ptychoseg_stream.science.prepare import prepare


@pytest.mark.parametrize("centre", [(40.0, 52.0), (30.3, 61.8)])
@pytest.mark.parametrize(("inner", "outer"), [(4.6, 9.6), (0, 12), (12, 26)])
def test_centre_and_radius_of_a_filled_annulus(centre, inner, outer):
    beam = annulus((90, 100), centre, inner, outer).astype(np.float32)
    found = find_beam(beam)
    # Closing by 4 px fills a hole of radius 4.6 and more only with the hole filled afterwards.
    assert (found.y, found.x) == pytest.approx(centre, abs=0.3)
    assert found.radius == pytest.approx(outer, rel=0.06)


def test_centre_of_the_simulated_beam(scan):
    found = find_beam(prepare(scan.frames[0]).relative[0])
    assert (found.y, found.x) == pytest.approx((51.46, 49.20), abs=0.35)
    assert found.radius == pytest.approx(9.63, abs=0.4)


def test_specks_far_from_the_beam_do_not_move_the_centre():
    beam = annulus((90, 90), (45, 45), 8, 18).astype(np.float32)
    spotted = beam.copy()
    spotted[2:8, 80:86] = 1  # 36 px of about 820
    assert find_beam(spotted) == find_beam(beam)


def test_beam_that_touches_the_border_is_not_eroded():
    found = find_beam(annulus((60, 60), (12, 30), 0, 14).astype(np.float32))
    assert found.y == pytest.approx(12.2, abs=0.6)
    assert found.x == pytest.approx(30, abs=0.05)


@pytest.mark.parametrize(
    ("shape", "centre", "inner", "outer"),
    [
        ((128, 128), (10, 60), 12, 26),
        ((128, 128), (0, 60), 12, 26),  # half of it
        ((128, 128), (-6, 60), 12, 26),  # its centre is not in the frame
        ((128, 128), (5, 8), 14, 30),  # in a corner
        ((128, 128), (3, 60), 0, 30),
        ((128, 128), (60, 133), 0, 30),
        ((512, 512), (60, 250), 100, 200),
        ((512, 512), (-30, 250), 60, 120),
        ((64, 64), (5, 30), 8, 18),
    ],
)
def test_beam_that_the_border_cuts_has_the_centre_and_radius_of_the_whole(
    shape, centre, inner, outer
):
    found = find_beam(annulus(shape, centre, inner, outer).astype(np.float32))
    assert np.hypot(found.y - centre[0], found.x - centre[1]) < 1
    assert found.radius == pytest.approx(outer, abs=1)


@pytest.mark.parametrize("lost", [20, 60, 120, 200])
def test_lost_sector_does_not_move_the_centre(lost):
    shape, centre = (128, 128), (64, 60)
    beam = annulus(shape, centre, 12, 26) & (degrees(shape, centre) > lost)
    found = find_beam(beam.astype(np.float32))
    assert (found.y, found.x) == pytest.approx(centre, abs=0.5)
    assert found.radius == pytest.approx(26, abs=0.5)


@pytest.mark.parametrize("ratio", [1.1, 1.3, 1.5])
def test_ellipse_is_not_taken_for_a_part_of_a_larger_circle(ratio):
    ring, _ = ellipse((128, 128), (64, 60), 30, ratio)
    found = find_beam(ring.astype(np.float32))
    assert (found.y, found.x) == pytest.approx((64, 60), abs=0.1)
    assert found.radius == pytest.approx(30 / np.sqrt(ratio), rel=0.02)


def test_straight_edge_is_no_circle():
    lit = np.zeros((100, 100), np.float32)
    lit[:, 60:] = 1
    found = find_beam(lit)
    assert (found.y, found.x) == pytest.approx((49.5, 79.5), abs=0.1)


def test_frame_without_beam_falls_back_to_its_middle():
    assert find_beam(np.zeros((40, 60), np.float32)) == Geometry(19.5, 29.5, 10)


def test_moved_geometry_is_where_the_shifted_frame_has_its_beam():
    assert Geometry(10, 20, 5).moved((1.5, -2)) == Geometry(11.5, 18, 5)


def test_parts_below_a_fraction_of_the_largest_are_dropped():
    region = np.zeros((20, 20), bool)
    region[:10, :10] = True  # 100
    region[12:14, 12:17] = True  # 10
    region[18, 18] = True  # 1
    assert keep_large(region, 0.1).sum() == 110
    assert keep_large(region, 0.11).sum() == 100
    assert not keep_large(np.zeros((5, 5), bool), 0.5).any()


def test_maps_hold_distance_and_angle_of_each_centre():
    y, x = np.array([2.0, 0.5]), np.array([1.0, 3.0])
    r, a = radius_map((4, 5), y, x), angle_map((4, 5), y, x)
    assert r.shape == a.shape == (2, 4, 5)
    assert r.dtype == a.dtype == np.float32
    assert r[0, 2, 4] == 3
    assert r[1, 2, 1] == pytest.approx(2.5)
    assert a[0, 2, 4] == 0  # along +x
    assert a[0, 3, 1] == pytest.approx(np.pi / 2)  # along +y
