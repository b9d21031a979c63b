import numpy as np
import pytest
from beams import annulus, beam_of, degrees, radius
from scipy import ndimage

from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.features import FEATURE_VERSION, FEATURES, WEIGHTS, extract
from ptychoseg_stream.science.geometry import Geometry, find_beam
from ptychoseg_stream.science.prepare import join, prepare, solve_plateau
from ptychoseg_stream.science.prototypes import TeacherOptions

INSIDE = np.s_[10:-10, 10:-10]  # where no rule for borders matters


@pytest.fixture(scope="module")
def prepared(strong):
    return prepare(strong.frames[3])


@pytest.fixture(scope="module")
def features(prepared):
    return dict(zip(FEATURES, extract(prepared, [Geometry(51.5, 48.9, 9.6)])[0], strict=True))


def test_names_order_and_weights_are_those_of_the_specification():
    assert list(WEIGHTS.items()) == [
        ("intensity", 0.6),
        ("log_intensity", 0.3),
        ("local_std", 0.3),
        ("local_mean", 1.0),
        ("laplacian", 0.1),
        ("gradient", 0.2),
        ("radius", 0.3),
        ("angle", 0.05),
        ("residual", 0.2),
    ]
    assert tuple(WEIGHTS) == FEATURES
    assert FEATURE_VERSION == 2  # to be raised whenever a formula below has to be changed


def test_features_are_single_precision_and_one_plane_each(prepared):
    out = extract(prepared, [Geometry(50, 50, 10)])
    assert out.shape == (1, 9, 104, 104)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()


def test_local_features_are_the_textbook_filters(prepared, features):
    b = np.clip(prepared.relative[0], 0, 1.5).astype(np.float64)
    mean5 = ndimage.uniform_filter(b, 5)
    variance = ndimage.uniform_filter(b * b, 5) - mean5**2
    expected = {
        "intensity": b,
        "log_intensity": np.log(1 + b / 0.01) / np.log(101),
        "local_std": np.sqrt(np.maximum(variance, 0)),
        "local_mean": ndimage.uniform_filter(b, 3),
        "laplacian": ndimage.laplace(b),
        "gradient": np.hypot(ndimage.sobel(b, 0), ndimage.sobel(b, 1)) / 8,
        "residual": b - ndimage.gaussian_filter(b, 2),
    }
    for name, values in expected.items():
        tolerance = 2e-3 if name == "local_std" else 1e-5  # a difference of squares in float32
        assert features[name][INSIDE] == pytest.approx(values[INSIDE], abs=tolerance), name
        assert np.abs(values[INSIDE]).max() > 50 * tolerance, f"{name}: nothing was compared"


def test_polar_features_are_measured_from_the_beam(features):
    r = radius((104, 104), (51.5, 48.9))
    assert features["radius"] == pytest.approx(np.minimum(r / 9.6, 2), abs=1e-5)
    turn = degrees((104, 104), (51.5, 48.9))
    angle = np.where(turn > 180, turn - 360, turn) / 180
    assert features["angle"] == pytest.approx(angle, abs=1e-5)


def test_intensity_is_clipped_at_one_and_a_half_plateaus():
    image = np.where(annulus((64, 64), (32, 32), 8, 16), 100.0, 0.0)
    image[32, 44:46] = 260
    image[5:8, 5:8] = -40
    out = extract(prepare(image), [Geometry(32, 32, 16)])[0]
    assert out[0].max() == 1.5
    assert out[0].min() == 0


@pytest.mark.parametrize("factor", [0.3, 3, 10, 100])
def test_features_of_a_bright_frame_do_not_know_the_dose(strong, factor):
    # Without noise: what despiking takes for a spike does depend on the dose.
    image = ndimage.gaussian_filter(strong.frames[0].astype(np.float32), 1.0)
    assert prepare(image).plateau[0] * factor > 25  # no smoothing on either side
    geometry = find_beam(prepare(image).relative[0])
    one, other = (extract(prepare(f), [geometry]) for f in (image, np.float32(factor) * image))
    assert other == pytest.approx(one, abs=2e-4)


def test_below_the_smoothing_limit_features_change_only_by_the_smoothing():
    beam, geometry = beam_of((80, 80), (40.0, 39.0), 9, 20)
    faint, bright = (np.where(beam, d, 0).astype(np.float32) for d in (5.0, 50.0))
    assert solve_plateau(faint, PrepareOptions())[0].max() < 5.01
    one, other = (extract(prepare(f), [geometry])[0] for f in (faint, bright))
    flat = ndimage.binary_erosion(beam, iterations=4) | ndimage.binary_erosion(~beam, iterations=4)
    for name in ("intensity", "local_mean"):
        i = FEATURES.index(name)
        changed = np.abs(one[i] - other[i]) > 0.05
        assert changed.any()
        assert not changed[flat].any()


def test_batch_of_features_is_that_of_its_frames(strong):
    parts = [prepare(f) for f in strong.frames[:3]]
    beams = [find_beam(p.relative[0]) for p in parts]
    together = extract(join(parts), beams)
    apart = [extract(p, [g])[0] for p, g in zip(parts, beams, strict=True)]
    assert together.tobytes() == np.stack(apart).tobytes()


def test_literal_recipe_takes_raw_counts(prepared):
    raw = extract(prepared, [Geometry(51.5, 48.9, 9.6)], "seed")[0]
    assert np.array_equal(raw[0], prepared.counts[0])
    assert raw[1] == pytest.approx(np.log1p(np.maximum(prepared.counts[0], 0)), abs=1e-5)
    assert raw[6] == pytest.approx(radius((104, 104), (51.5, 48.9)), abs=1e-4)
    assert np.abs(raw[7]).max() == pytest.approx(np.pi, abs=0.05)


def test_weights_can_be_changed_by_name_and_misspelt_ones_are_named():
    weights = TeacherOptions(weights={"angle": 0.0, "radius": 2.0}).weight_vector()
    assert weights.tolist() == [0.6, 0.3, 0.3, 1.0, 0.1, 0.2, 2.0, 0.0, 0.2]
    with pytest.raises(ValueError, match="no feature 'radios'; there are intensity"):
        TeacherOptions(weights={"radios": 1.0}).weight_vector()
