import dataclasses

import numpy as np
import pytest
from beams import annulus

from ptychoseg_stream.science.features import extract
from ptychoseg_stream.science.geometry import find_beam
from ptychoseg_stream.science.prepare import prepare
from ptychoseg_stream.science.readings import jensen_shannon, read
from ptychoseg_stream.science.verdict import judge

NO_HITS = np.zeros(100)


def reading_of(frame, centroids, *, expected=None, shift=(0.0, 0.0), usual=NO_HITS):
    prepared = prepare(frame)
    geometry = find_beam(prepared.relative[0])
    labels = centroids.label_features(extract(prepared, [geometry]))
    profile = judge(labels.rings[0], geometry)
    expected = labels.rings[0] if expected is None else expected
    return read(prepared, shift, labels, profile, expected, usual), labels


def test_readings_are_logarithms_of_what_the_frame_shows(scan, centroids):
    readings, labels = reading_of(scan.frames[3], centroids, shift=(0.25, -0.5))
    prepared = prepare(scan.frames[3])
    assert np.exp(readings.plateau) == pytest.approx(float(prepared.plateau[0]))
    assert np.exp(readings.total) == pytest.approx(float(prepared.counts.sum()), rel=1e-5)
    assert np.exp(readings.area) == pytest.approx(labels.rings[0].sum())
    assert np.exp(readings.error) == pytest.approx(labels.errors[0])
    assert 8.0 < np.exp(readings.radius) < 10.5
    assert 0.005 < np.exp(readings.scatter) < 0.2
    assert (readings.shift_y, readings.shift_x) == (0.25, -0.5)
    assert readings.ciou == 1.0
    assert readings.spikes == 0.0
    assert readings.js == 0.0
    assert readings.verdict == "annulus"
    numbers = dataclasses.astuple(readings)[:-1]
    assert all(type(number) is float for number in numbers)


def test_ciou_compares_with_the_ring_that_is_expected(scan, centroids):
    _, labels = reading_of(scan.frames[3], centroids)
    half = labels.rings[0].copy()
    half[:51] = False
    readings, _ = reading_of(scan.frames[3], centroids, expected=half)
    assert readings.ciou == pytest.approx(half.sum() / labels.rings[0].sum())


def test_spikes_are_counted(scan, centroids):
    frame = scan.frames[3].copy()
    frame[5:95:10, 5] = 60000
    readings, _ = reading_of(frame, centroids)
    assert np.expm1(readings.spikes) == pytest.approx(9)


def test_radius_hardly_depends_on_a_gap_in_the_ring(centroids):
    rng = np.random.default_rng(0)
    whole = np.where(annulus((104, 104), (51.0, 50.0), 5, 12), 300, 0.1)
    gap = whole.copy()
    gap[:51, 49:52] = 0.1
    a, b = (reading_of(rng.poisson(x).astype(np.uint16), centroids)[0] for x in (whole, gap))
    assert np.exp(a.radius) == pytest.approx(11.5, abs=0.6)
    assert a.radius == pytest.approx(b.radius, abs=0.04)
    assert a.area > b.area + 0.03


def test_divergence_hardly_depends_on_the_dose_but_on_the_ring(scan, centroids):
    usual = sum(reading_of(frame, centroids)[1].hits[0] for frame in scan.frames[:10])
    thin = np.random.default_rng(0).binomial(scan.frames[15], 0.3).astype(np.uint16)
    same, faint = (
        reading_of(frame, centroids, usual=usual)[0].js for frame in (scan.frames[15], thin)
    )
    half = scan.frames[15].copy()
    half[:51] //= 4
    other = reading_of(half, centroids, usual=usual)[0].js
    assert same < 0.03
    assert faint < 0.03
    assert other > 2 * max(same, faint)


def test_frame_without_a_ring_has_finite_readings(centroids):
    prepared = prepare(_dot())
    geometry = find_beam(prepared.relative[0])
    labels = centroids.label_features(extract(prepared, [geometry]))
    none = dataclasses.replace(labels, rings=np.zeros_like(labels.rings))
    profile = judge(none.rings[0], geometry)
    readings = read(prepared, (0.0, 0.0), none, profile, labels.rings[0], NO_HITS)
    assert np.isfinite(dataclasses.astuple(readings)[:-1]).all()
    assert readings.verdict == "none"
    assert readings.ciou == 0.0
    assert readings.area == 0.0


def _dot():
    return np.where(annulus((64, 64), (30.0, 33.0), 0, 9), 500, 0).astype(np.uint16)


def test_divergence_is_symmetric_bounded_and_zero_for_equal_shares():
    p, q = np.array([4, 0, 2]), np.array([1, 5, 0])
    assert jensen_shannon(p, q) == pytest.approx(jensen_shannon(q, p))
    assert jensen_shannon(p, 7 * p) == pytest.approx(0.0)
    assert jensen_shannon(np.array([3, 0]), np.array([0, 9])) == pytest.approx(1.0)
    assert jensen_shannon(p, np.zeros(3)) == 0.0
    # By hand: p = (1/2, 1/2), q = (1, 0), middle (3/4, 1/4).
    by_hand = 0.5 * (0.5 * np.log2(2 / 3) + 0.5 * np.log2(2)) + 0.5 * np.log2(4 / 3)
    assert jensen_shannon(np.array([1, 1]), np.array([1, 0])) == pytest.approx(by_hand)
