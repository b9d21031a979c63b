"""What is no ring gets a truthful answer; what is one keeps it."""

import numpy as np
import pytest
from beams import annulus, beam_of
from scenes import (
    SHAPE,
    blob,
    drawn,
    half_lit,
    lattice,
    peaks,
    powder,
    sector,
    streak,
)

from ptychoseg_stream.errors import FrameError
from ptychoseg_stream.science.classes import class_map
from ptychoseg_stream.science.frame import ClassCode
from ptychoseg_stream.science.geometry import Geometry, find_beam
from ptychoseg_stream.science.prepare import prepare
from ptychoseg_stream.science.prototypes import TeacherOptions
from ptychoseg_stream.science.som import Centroids
from ptychoseg_stream.science.verdict import judge
from ptychoseg_stream.sim import GoldBalls, simulate
from ptychoseg_stream.sources.arrays.stack import open_stack

SMALL = TeacherOptions(map_size=4, iterations=300, sample=1000)


def judged(frame, centroids):
    """Profile and class map of a frame, through preparation and teacher."""
    prepared = prepare(frame)
    beam = find_beam(prepared.relative[0])
    ring = centroids.ring(prepared, [beam])[0]
    profile = judge(ring, beam)
    return profile, class_map(ring, beam, profile=profile)


def one_line(text):
    return text and "\n" not in text and len(text) < 140


# --- no ring --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [2, 3, 5, 15, 60, 120])
def test_bragg_peaks_are_separate_spots(n, seed, centroids):
    profile, classes = judged(peaks(n, seed), centroids)
    assert profile.verdict == "none"
    assert "separate bright spots" in profile.reason
    assert one_line(profile.reason)
    assert not classes.any()


@pytest.mark.parametrize("n", [4, 8, 15, 25])
def test_bragg_peaks_on_a_powder_ring_are_separate_spots(n, centroids):
    profile, classes = judged(powder(n), centroids)
    assert profile.verdict == "none"
    assert "separate bright spots" in profile.reason
    assert not classes.any()


@pytest.mark.parametrize("spacing", [8, 10, 12, 16, 25])
def test_bragg_peaks_on_a_lattice_are_separate_spots(spacing, centroids):
    profile, classes = judged(lattice(spacing), centroids)
    assert profile.verdict == "none"
    assert "separate bright spots" in profile.reason
    assert not classes.any()


def test_one_peak_is_a_spot(centroids):
    profile, classes = judged(peaks(1), centroids)
    assert profile.verdict == "none"
    assert "too small to be told from a peak" in profile.reason
    assert not classes.any()


@pytest.mark.parametrize("width", [4, 10])
@pytest.mark.parametrize("angle", [0, 20, 45, 90])
def test_streak_is_a_streak(angle, width, centroids):
    profile, classes = judged(streak(angle, 80, width), centroids)
    assert profile.verdict == "none"
    assert "a streak" in profile.reason
    assert not classes.any()


def test_crossed_streaks_are_irregular(centroids):
    profile, classes = judged(streak(0) + streak(90), centroids)
    assert profile.verdict == "none"
    assert "without a round edge" in profile.reason
    assert not classes.any()


@pytest.mark.parametrize("angle", [0, 30, 90, 200])
@pytest.mark.parametrize("part", [0.25, 0.45])
def test_half_lit_detector_has_no_round_edge(part, angle, centroids):
    profile, classes = judged(half_lit(part, angle), centroids)
    assert profile.verdict == "none"
    assert "runs out of the frame" in profile.reason
    assert not classes.any()


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    "frame",
    [
        drawn(np.ones(SHAPE, bool)),
        np.zeros(SHAPE, np.uint16),
        np.random.default_rng(0).poisson(0.05, SHAPE).astype(np.uint16),
        np.random.default_rng(0).poisson(3, SHAPE).astype(np.uint16),
        np.random.default_rng(0).poisson(300, SHAPE).astype(np.uint16),
        np.random.default_rng(0).normal(0, 30, SHAPE).astype(np.float32),
        half_lit(0.55),
    ],
    ids=["flat", "empty", "dark noise", "faint noise", "noise", "read noise", "more than half lit"],
)
def test_what_shows_no_beam_is_refused_with_a_reason(frame, own, centroids):
    with pytest.raises(FrameError) as refused:
        Centroids.fit(frame, SMALL) if own else centroids.label(frame)
    assert one_line(str(refused.value).replace("`", ""))


@pytest.mark.parametrize("frame", [peaks(30), powder(15), lattice(), streak(20), half_lit()])
def test_teacher_learned_on_what_is_no_ring_still_labels_none(frame):
    assert not Centroids.fit(frame, SMALL).label(frame).any()


def test_beam_of_which_the_frame_shows_too_little_is_refused(centroids):
    profile, classes = judged(drawn(annulus((128, 128), (-12, -12), 20, 50)), centroids)
    assert profile.verdict == "none"
    assert "runs out of the frame" in profile.reason
    assert not classes.any()


def test_known_beam_that_has_left_the_frame_says_how_much_is_seen():
    ring, geometry = beam_of((128, 128), (-20, 64), 12, 30)
    profile = judge(ring, geometry)
    assert profile.verdict == "none"
    assert "the frame shows only" in profile.reason


def test_long_ellipse_is_refused_with_its_ratio():
    y, x = np.indices((100, 100)) - 50
    long = (np.hypot(y * 2.6, x) < 40) & (np.hypot(y * 2.6, x) > 15)
    profile = judge(long, Geometry(50, 50, 25))
    assert profile.verdict == "none"
    assert "times as long as wide" in profile.reason


def test_nothing_bright_is_no_ring():
    profile = judge(np.zeros((40, 40), bool), Geometry(20, 20, 5))
    assert profile.verdict == "none"
    assert "nothing is as bright" in profile.reason
    assert not profile.seen.any()


# --- discs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [4, 8, 14])
def test_round_blob_is_a_disc(width, centroids):
    profile, classes = judged(blob(width), centroids)
    assert profile.verdict == "disc"
    assert "no core" in profile.reason
    assert set(np.unique(classes)) == {ClassCode.BACKGROUND, ClassCode.RING}


def test_real_near_field_is_a_disc(shared_data, centroids):
    with open_stack(shared_data("petra_p25/PETRAIII_P25_Near_Field_Ptycho.cxi")) as stack:
        frames = stack[0:200:20]
    profiles = [judged(frame, centroids)[0] for frame in frames]
    assert {p.verdict for p in profiles} == {"disc"}
    assert min(p.good.mean() for p in profiles) > 0.8


# --- rings ----------------------------------------------------------------------------------------


def test_single_frames_of_the_siemens_star_stay_annuli(shared_data):
    with open_stack(shared_data("siemens_star/siemens_star_first258.h5")) as stack:
        frames = stack[0:258:6]
    own = Centroids.fit(frames[0])
    verdicts = [judged(frame, own)[0] for frame in frames]
    assert {(v.verdict, v.reason) for v in verdicts} == {("annulus", "")}


def test_gold_balls_stay_annuli(shared_data, centroids):
    with open_stack(shared_data("gold_balls/goldballs_resim_f000-040.cxi")) as stack:
        frames = stack[0:41:4]
    assert {judged(frame, centroids)[0].verdict for frame in frames} == {"annulus"}


@pytest.mark.parametrize("dose", [1000, 1500, 1e4])
def test_simulated_frames_stay_annuli_at_low_dose(dose, centroids):
    for frame in simulate(GoldBalls(n_frames=8, dose=dose)).frames:
        assert judged(frame, centroids)[0].verdict == "annulus"


def test_ring_with_a_sample_that_breaks_it_is_an_annulus():
    ring, geometry = beam_of((100, 100), (50, 50), 14, 30)
    rng = np.random.default_rng(0)
    for begin in rng.uniform(0, 350, 3):
        ring &= ~sector((100, 100), (50, 50), begin, begin + 20)
    assert judge(ring, geometry).verdict == "annulus"
    assert judge(ring, geometry).reason == ""
