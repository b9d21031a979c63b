import numpy as np
import pytest
from beams import annulus, radius

from ptychoseg_stream.evaluation.baselines import baselines
from ptychoseg_stream.evaluation.rules import (
    above_brightest,
    above_plateau,
    clustered,
    fit_clusters,
    fit_mixture,
    largest_blob,
    multi_otsu,
    otsu,
    seed_recipe,
    tracked_mean,
    view_of,
    walked,
)
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.frame import ClassCode
from ptychoseg_stream.science.metrics import iou
from ptychoseg_stream.science.prepare import prepare

PREPARE = PrepareOptions()
SHAPE = (64, 64)
QUICK_WAYS = 9


def drawn(centre=(32.0, 32.0), counts=400.0, seed=0):
    """A ring of Poisson counts with a faint halo, and where it is."""
    ring = annulus(SHAPE, centre, 7, 14)
    halo = annulus(SHAPE, centre, 0, 22)
    mean = 0.3 + counts * (0.04 * halo + 0.96 * ring)
    return np.random.default_rng(seed).poisson(mean).astype(np.uint16), ring


def viewed(image):
    return view_of(prepare(image, PREPARE))


PLAIN = {
    "half-maximum": above_plateau,
    "brightest": above_brightest,
    "Otsu": otsu,
    "walker": walked,
}


@pytest.mark.parametrize("rule", PLAIN.values(), ids=PLAIN)
def test_plain_ring_is_found_by_every_rule_that_is_meant_for_one(rule):
    image, ring = drawn()
    found = rule(viewed(image))
    assert found.shape == SHAPE
    assert found.dtype == bool
    assert iou(found, ring) > 0.95


@pytest.mark.parametrize("fit", [fit_clusters, fit_mixture])
def test_clusters_of_one_frame_label_another_dose(fit):
    rule = clustered(fit(viewed(drawn()[0])))
    faint, ring = drawn(counts=150, seed=1)
    assert iou(rule(viewed(faint)), ring) > 0.7


@pytest.mark.parametrize("fit", [fit_clusters, fit_mixture])
def test_clusters_are_the_same_every_time(fit):
    view = viewed(drawn()[0])
    one, other = (clustered(fit(view))(view) for _ in range(2))
    assert np.array_equal(one, other)


def test_multi_otsu_takes_the_brightest_of_three_levels():
    image, ring = drawn()
    found = multi_otsu(viewed(image))
    assert found.any()
    assert (ring | ~found).mean() > 0.99  # nothing of the halo


def test_largest_blob_is_the_whole_beam_with_its_halo():
    image, ring = drawn()
    image[2:5, 2:5] = 300  # a smaller blob
    found = largest_blob(viewed(image))
    assert found[ring].all()
    assert found[32, 32]
    assert not found[:6, :6].any()


def test_brightest_pixel_leads_half_of_it_astray_and_the_plateau_does_not():
    image, ring = drawn()
    # A bright spot of the beam, too broad for a spike.
    spot = 2000 * np.exp(-np.square(radius(SHAPE, (32, 21.5)) / 3))
    view = viewed((image + spot).astype(np.uint16))
    assert iou(above_brightest(view), ring) < 0.1
    assert iou(above_plateau(view), ring) > 0.9


def test_literal_recipe_does_not_survive_another_dose():
    rule = seed_recipe(viewed(drawn()[0]))
    image, ring = drawn(seed=1)
    faint, _ = drawn(counts=40, seed=1)
    assert iou(rule(viewed(image)), ring) > 0.8
    assert iou(rule(viewed(faint)), ring) < 0.3


def test_tracked_mean_goes_along_with_the_beam_by_parts_of_a_pixel():
    staged = [viewed(drawn((32 + 0.5 * i, 32 - 0.5 * i), seed=i)[0]) for i in range(4)]
    rule = tracked_mean(staged, PREPARE)
    for centre in ((32, 32), (35.5, 30.25), (28, 38)):
        image, ring = drawn(centre, seed=9)
        assert iou(rule(viewed(image)), ring) > 0.93


def test_walker_with_nothing_left_to_decide_takes_the_seeds():
    image = (annulus(SHAPE, (32, 32), 7, 14) * 100).astype(np.uint16)
    assert np.array_equal(walked(viewed(image)), annulus(SHAPE, (32, 32), 7, 14))


def test_walker_without_seeds_is_no_answer():
    flat = viewed(drawn()[0])
    with pytest.raises(ValueError, match="no seeds"):
        walked(flat, low=-1)


def test_walker_finds_a_beam_that_the_frame_cuts():
    image, ring = drawn((10.0, 32.0))
    assert iou(walked(viewed(image)), ring) > 0.9


# --- all of them on a stack -----------------------------------------------------------------------


def test_quick_leaves_out_the_slow_ways_and_changes_nothing_else(scan):
    every = baselines(scan.frames[:3], (0, 2), PREPARE)
    quick = baselines(scan.frames[:3], (0, 2), PREPARE, quick=True)
    assert len(quick) == QUICK_WAYS
    assert list(every)[:QUICK_WAYS] == list(quick)
    left_out = set(every) - set(quick)
    assert {name.split(",")[0] for name in left_out} == {
        "random walker",
        "k-means",
        "Gaussian mixture",
    }
    for name, maps in quick.items():
        assert all(np.array_equal(a, b) for a, b in zip(maps, every[name], strict=True))


def test_way_that_fails_on_a_frame_gives_an_invalid_mask_there():
    # Two values only: multi-Otsu needs three.
    coarse = (annulus(SHAPE, (32, 32), 7, 14) * 100).astype(np.uint16)
    frames = np.stack([drawn()[0], coarse, np.zeros(SHAPE, np.uint16)])
    found = baselines(frames, (0,), PREPARE)
    for name, maps in found.items():
        assert all(m.shape == SHAPE for m in maps), name
        if "constant" not in name:
            assert (maps[2] == ClassCode.INVALID).all(), name
    multi = found["multi-Otsu (3 classes) of each frame"]
    assert (multi[1] == ClassCode.INVALID).all()
    assert (multi[0] == ClassCode.RING).any()
    assert (found["Otsu of each frame"][1] == ClassCode.RING).any()


def test_mean_of_frames_that_do_not_match_fails_alone():
    frames = np.stack([drawn((16, 16))[0], drawn((48, 48))[0]])
    found = baselines(frames, (0, 1), PREPARE, quick=True)
    assert (found["half-maximum of each frame"][1] == ClassCode.RING).sum() > 300
