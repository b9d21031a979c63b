"""Frames come in any order, late, twice, or not at all."""

import numpy as np
import pytest
from recon_support import Small, frame_of

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.recon.growing import GrowingScan
from ptychoseg_stream.recon.schedule import Schedule, background_variance
from ptychoseg_stream.science.experiment import Experiment
from ptychoseg_stream.sinks.feed.items import FrameItem

SHAPE = (4, 5)


def frame(index: int, bits: int = 0, status: str = "ok", value: float = 7) -> FrameItem:
    return frame_of(
        index,
        np.full(SHAPE, value, np.uint16),
        np.ones(SHAPE, np.uint8),
        np.full(SHAPE, bits, np.uint16),
        status,
    )


def test_a_frame_is_ready_once_its_position_is_there_in_whatever_order() -> None:
    scan = GrowingScan(SHAPE, 8)
    scan.place(2, np.array([[1.0, 2.0]]))
    assert scan.ready.tolist() == []
    scan.add(frame(2))
    scan.add(frame(0))
    assert scan.ready.tolist() == [2]
    scan.place(0, np.array([[0.0, 0.0], [np.nan, 1.0], [9.0, 9.0]]))
    assert scan.ready.tolist() == [0, 2]
    assert scan.positions[2].tolist() == [9.0, 9.0]


def test_a_position_that_is_told_as_unknown_does_not_replace_a_known_one() -> None:
    scan = GrowingScan(SHAPE, 2)
    scan.place(0, np.array([[1.0, 2.0]]))
    scan.place(0, np.array([[np.nan, np.nan]]))
    assert scan.positions[0].tolist() == [1.0, 2.0]


def test_frames_without_image_or_mask_are_left_out() -> None:
    scan = GrowingScan(SHAPE, 3)
    scan.place(0, np.zeros((3, 2)))
    scan.add(frame_of(0, None, np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint16), "lost"))
    scan.add(frame(1, status="refused"))
    scan.add(frame(2))
    assert scan.ready.tolist() == [2]


def test_a_revision_takes_pixels_out_of_the_frames_it_names() -> None:
    scan = GrowingScan(SHAPE, 3)
    for index in range(3):
        scan.add(frame(index))
    bits = np.zeros(SHAPE, np.uint16)
    bits[1, 2] = 512
    scan.revise(0, 2, bits)
    assert scan.usable(np.arange(3))[:, 1, 2].tolist() == [False, False, True]
    assert scan.usable(np.arange(3)).sum() == 3 * 20 - 2


def test_a_pixel_that_is_bad_in_the_whole_run_is_used_in_no_frame(small: Small) -> None:
    scan = small.scan()
    assert scan.products is not None
    bad = scan.products.pixel_mask.copy()
    bad[50, 50] = 8
    products = small.products().of_frames
    scan.learn(type(products)(**{**fields_of(products), "pixel_mask": bad}))
    assert not scan.usable(scan.ready)[:, 50, 50].any()


def fields_of(products: object) -> dict:
    return {name: getattr(products, name) for name in products.__dataclass_fields__}  # type: ignore


def test_there_is_room_for_more_frames_than_were_announced() -> None:
    scan = GrowingScan(SHAPE, 2)
    scan.add(frame(0, value=3))
    scan.add(frame(9))
    scan.place(0, np.zeros((10, 2)))
    assert scan.expected >= 10
    assert scan.ready.tolist() == [0, 9]
    assert scan.frames[0, 0, 0] == 3
    assert np.isnan(GrowingScan(SHAPE, 2).positions).all()


def test_counts_are_values_less_pedestal_by_gain_and_nan_is_not_used() -> None:
    scan = GrowingScan(SHAPE, 1, Experiment(), pedestal=100, gain=10)
    image = np.full(SHAPE, 150.0)
    image[0, 0] = np.nan
    scan.add(frame_of(0, image, np.ones(SHAPE, np.uint8), np.zeros(SHAPE, np.uint16)))
    assert scan.frames[0, 1, 1] == 5
    assert scan.frames[0, 0, 0] == 0
    assert not scan.usable(np.array([0]))[0, 0, 0]


def test_a_frame_of_another_size_is_refused() -> None:
    with pytest.raises(DatasetError, match="the run began with"):
        GrowingScan((3, 3)).add(frame(0))


def test_ring_first_holds_for_its_epochs_only(small: Small) -> None:
    scan, schedule = small.scan(), Schedule(ring_first=2)
    index = scan.ready[:3]
    early, later = (schedule.weights(scan, index, epoch) for epoch in (1, 2))
    assert 0 < early.sum() < later.sum() == scan.usable(index).sum()
    assert set(np.unique(small.classes[:3][early > 0])) == {1, 2}


def test_weights_by_the_variance_lie_between_0_and_validity(small: Small) -> None:
    scan = small.scan()
    weights = Schedule(variance=True).weights(scan, scan.ready[:3], 0)
    assert ((weights >= 0) & (weights <= scan.usable(scan.ready[:3]))).all()
    assert (background_variance(scan) >= 0.5).all()
    with pytest.raises(ValueError, match="ring_first"):
        Schedule(ring_first=-1)
