"""What is told of a run, and what of it is left out because it was told before."""

from dataclasses import replace

import numpy as np
from feed_support import ACCOUNT, SHAPE, frame_of, info_of, mask_of, products_of

from ptychoseg_stream.feed import FrameItem, Item, ProductsItem, Revision, Start, Stop
from ptychoseg_stream.node.ports import Products
from ptychoseg_stream.science.frame import Frame, Mask, ValidBit
from ptychoseg_stream.sinks.feed import telling as module
from ptychoseg_stream.sinks.feed.telling import Telling


def unknown(index: int) -> tuple[Frame, Mask]:
    """A frame that could not be read, before anybody knew how large frames are."""
    frame = Frame("raw-1", index, None, (0, 0), seq_num=index + 1)
    return frame, Mask(frame, np.zeros((0, 0), np.uint8), "none", "lost", verdict="none")


def final(products: Products) -> Products:
    return replace(products, final=True)


def kinds(items: list[Item]) -> list[str]:
    return [type(item).__name__ for item in items]


def test_frames_wait_until_the_size_of_the_run_is_known():
    told = Telling(info_of())
    assert list(told.frames(*([each] for each in unknown(0)))) == []
    frame = frame_of(1)
    items = list(told.frames([frame], [mask_of(frame)]))
    assert kinds(items) == ["Start", "FrameItem", "FrameItem"]
    assert isinstance(items[0], Start)
    assert items[0].shape == SHAPE
    assert [item.seq for item in items] == [0, 1, 2]
    lost = items[1]
    assert isinstance(lost, FrameItem)
    assert (lost.index, lost.status, lost.classes.shape) == (0, "lost", SHAPE)
    assert (lost.classes == 255).all()
    assert (lost.valid_bits == ValidBit.GAP).all()


def test_a_run_whose_frames_all_could_not_be_read_tells_them_at_its_end():
    told = Telling(info_of())
    assert list(told.frames(*([each] for each in unknown(0)))) == []
    items = list(told.stop(ACCOUNT))
    assert kinds(items) == ["Start", "FrameItem", "Stop"]
    assert isinstance(items[-1], Stop)
    assert items[-1].seq == 2


def test_the_last_products_revise_all_frames_also_those_told_behind_a_revision():
    told = Telling(info_of())
    for index in range(3):
        list(told.frames([frame_of(index)], [mask_of(frame_of(index))]))
    first = list(told.products(products_of(3, [(1, 2)])))
    assert kinds(first) == ["Revision", "ProductsItem"]
    list(told.frames([frame_of(3)], [mask_of(frame_of(3))]))  # its mask lacks the pixel
    assert kinds(list(told.products(products_of(4, [(1, 2)])))) == ["ProductsItem"]
    last = list(told.products(final(products_of(4, [(1, 2)]))))
    assert kinds(last) == ["Revision", "ProductsItem"]
    revision = last[0]
    assert isinstance(revision, Revision)
    assert (revision.first, revision.last, revision.revision) == (0, 4, 2)
    assert np.argwhere(revision.bits).tolist() == [[1, 2]]


def test_large_products_are_told_when_frames_of_twice_their_size_were(monkeypatch):
    monkeypatch.setattr(module, "_LIGHT", 0)
    told = Telling(info_of())
    frames = [frame_of(index) for index in range(40)]

    def after(*some: Frame) -> list[str]:
        list(told.frames(some, [mask_of(frame) for frame in some]))
        return kinds([i for i in told.products(products_of(1)) if isinstance(i, ProductsItem)])

    assert after(frames[0]) == []
    assert after(*frames[1:39]) == ["ProductsItem"]
    assert after(frames[39]) == []
    assert kinds(list(told.products(final(products_of(1)))))[-1] == "ProductsItem"


def test_who_goes_on_repeats_nothing():
    told = Telling(info_of())
    told.go_on(seq=9, index=5)
    frames = [frame_of(index) for index in range(3, 7)]
    items = list(told.frames(frames, [mask_of(frame) for frame in frames]))
    assert [(item.seq, item.index) for item in items if isinstance(item, FrameItem)] == [
        (9, 5),
        (10, 6),
    ]
