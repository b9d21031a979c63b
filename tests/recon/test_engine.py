"""What masks do to a reconstruction: these guard the semantics."""

import numpy as np
import pytest
from recon_support import PIXEL, SIDE, Small, make_small

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.recon.engine import Engine, ReconOptions, reconstruct
from ptychoseg_stream.recon.growing import GrowingScan
from ptychoseg_stream.recon.metrics import Scored, score
from ptychoseg_stream.recon.schedule import Schedule
from ptychoseg_stream.science.frame import ClassCode

OPTIONS = ReconOptions(rate=0.02)
EPOCHS = 24


def scored(scan: GrowingScan, small: Small, options: ReconOptions = OPTIONS) -> Scored:
    engine = Engine(scan, options)
    for _ in range(EPOCHS):
        engine.epoch()
    return compare(engine, small)


def compare(engine: Engine, small: Small) -> Scored:
    """Score the part between the outermost places of the probe, with 2 px around it."""
    low = np.floor(small.positions.min(axis=0) / PIXEL).astype(int) - 2
    high = np.ceil(small.positions.max(axis=0) / PIXEL).astype(int) + 3
    parts = []
    for image, corner in ((engine.object, engine.corner), (small.sample, small.corner)):
        first = low - np.rint(np.array(corner) / PIXEL).astype(int) + SIDE // 2
        last = first + high - low
        parts.append(image[first[0] : last[0], first[1] : last[1]])
    return score(*parts)


@pytest.fixture(scope="module")
def masked(small: Small) -> Scored:
    return scored(small.scan(), small)


def beam(small: Small) -> np.ndarray:
    return (small.classes == ClassCode.RING) | (small.classes == ClassCode.CORE)


def test_masks_bring_the_error_below_0_6_of_that_without(small: Small, masked: Scored) -> None:
    scan = small.scan()
    scan.valid[:] = True
    assert masked.nrmse < 0.3
    assert masked.nrmse < 0.6 * scored(scan, small).nrmse


def test_ring_and_core_as_the_valid_pixels_do_harm(small: Small, masked: Scored) -> None:
    scan = small.scan()
    scan.valid &= beam(small)
    harmed = scored(scan, small)
    assert harmed.nrmse > 1.2 * masked.nrmse
    assert harmed.resolution < masked.resolution


def test_zeroing_the_background_does_harm(small: Small, masked: Scored) -> None:
    scan = small.scan()
    scan.frames[~beam(small)] = 0
    assert scored(scan, small).nrmse > 1.2 * masked.nrmse


def test_zeroing_bad_pixels_does_not_replace_masking_them(small: Small, masked: Scored) -> None:
    scan = small.scan()
    scan.frames[~scan.valid] = 0
    scan.valid[:] = True
    assert scored(scan, small).nrmse > 1.2 * masked.nrmse


def test_an_object_is_as_in_the_sample_and_not_turned_by_180_degrees(
    small: Small, masked: Scored
) -> None:
    turned = score(masked.aligned[::-1, ::-1], masked.truth)
    assert turned.nrmse > 3 * masked.nrmse


def test_ring_and_core_in_the_first_epochs_only_do_little_harm(
    small: Small, masked: Scored
) -> None:
    first = ReconOptions(Schedule(ring_first=4), rate=0.02)
    assert scored(small.scan(), small, first).nrmse < 1.3 * masked.nrmse


def test_weights_by_the_variance_do_no_harm(small: Small, masked: Scored) -> None:
    weighted = ReconOptions(Schedule(variance=True), rate=0.02)
    assert scored(small.scan(), small, weighted).nrmse < 1.2 * masked.nrmse


def test_the_same_seed_gives_the_same_object(small: Small) -> None:
    objects = []
    for seed in (0, 0, 1):
        steps = reconstruct(small.scan(), ReconOptions(seed=seed))
        objects.append([next(steps).loss for _ in range(3)])
    assert objects[0] == objects[1]
    assert objects[0] != objects[2]


def test_an_object_grows_with_places_that_nobody_announced(small: Small) -> None:
    scan = GrowingScan((SIDE, SIDE), 0, small.scan().experiment)
    n = len(small.frames)
    for index in range(n // 2, n):
        scan.add(small.item(index))
    scan.place(n // 2, small.positions[n // 2 :])
    engine = Engine(scan, OPTIONS)
    engine.epoch()
    before = engine.object.shape
    for index in range(n // 2):
        scan.add(small.item(index))
    scan.place(0, small.positions[: n // 2])
    for _ in range(EPOCHS):
        step = engine.epoch()
    assert engine.object.shape[0] > before[0] + 8
    assert step.frames == n
    assert compare(engine, small).nrmse < 0.3


def test_without_a_known_object_pixel_it_is_asked_for(small: Small) -> None:
    scan = GrowingScan((SIDE, SIDE), 64)
    for index in range(12):
        scan.add(small.item(index))
    scan.place(0, small.positions)
    with pytest.raises(DatasetError, match="give --object-pixel"):
        Engine(scan)
    assert Engine(scan, ReconOptions(object_pixel=PIXEL)).epoch().frames == 12


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_other_samples_say_the_same(seed: int) -> None:
    small = make_small(seed, grid=10)
    scan = small.scan()
    ours = scored(scan, small).nrmse
    scan = small.scan()
    scan.valid &= beam(small)
    assert ours < 0.3
    assert scored(scan, small).nrmse > 1.2 * ours
