"""A feed hears of runs and frames in order, and cannot harm the masks."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from callbacks_support import ListSink, ThresholdLabeller, describe
from detectors_support import InlineDetector
from ptychoseg_callbacks.frames.finder import FrameFinder
from ptychoseg_callbacks.runs.keeper import Keeper
from ptychoseg_callbacks.runs.open_run import OpenRun
from ptychoseg_callbacks.segmentation import Segmentation
from ptychoseg_callbacks.segmentation_options import SegmentationOptions

from ptychoseg_stream.node.guard import Guard
from ptychoseg_stream.node.ports import Account, Products, RunInfo
from ptychoseg_stream.science.frame import Frame, Mask
from ptychoseg_stream.science.products import RunProducts
from ptychoseg_stream.science.totals import Totals
from ptychoseg_stream.sim.plans import take_frames


@dataclass
class ListFeed:
    """Writes down what it is told."""

    fails: bool = False
    kept: int = 1 << 30
    calls: list[tuple[str, Any]] = field(default_factory=list)

    def open(self, run: RunInfo) -> None:
        self.calls.append(("open", run.uid))

    def send(self, run_uid: str, frames: Sequence[Frame], masks: Sequence[Mask]) -> None:
        pairs = zip(frames, masks, strict=True)
        self.calls += [("frame", (f.index, m.frame.index, f.image is not None)) for f, m in pairs]
        if self.fails:
            raise RuntimeError("a bug in the feed")

    def publish(self, run_uid: str, products: Products) -> None:
        self.calls.append(("products", products.of_frames.frames))

    def close(self, run_uid: str, account: Account) -> None:
        self.calls.append(("close", account.received))

    def told(self, run_uid: str) -> int:
        return self.kept

    def shutdown(self) -> None:
        self.calls.append(("shutdown", None))


def label(RE: Any, feed: ListFeed) -> ListSink:
    sink = ListSink()
    options = SegmentationOptions(batch=2)
    segmentation = Segmentation(ThresholdLabeller(), sink, describe, options, feed=feed)
    RE(take_frames(InlineDetector(), 5), segmentation)
    segmentation.shutdown()
    return sink


def test_a_feed_hears_of_every_frame_with_its_image_and_mask(RE: Any) -> None:
    feed = ListFeed()
    label(RE, feed)
    told = [call for call in feed.calls if call[0] != "products"]
    frames = [("frame", (index, index, True)) for index in range(5)]
    assert told[1:] == [*frames, ("close", 5), ("shutdown", None)]
    assert told[0][0] == "open"


def test_a_feed_that_raises_costs_no_mask(RE: Any) -> None:
    feed = ListFeed(fails=True)
    sink = label(RE, feed)
    (account,) = sink.accounts.values()
    assert (account.received, account.written) == (5, 5)


class Products5(ThresholdLabeller):
    """A labeller whose runs say something as a whole."""

    def products(self, run_uid: str) -> RunProducts:
        return Totals((4, 5)).products(None)


def test_sink_and_feed_hear_what_a_run_says_as_a_whole_and_in_the_end(RE: Any) -> None:
    feed, sink, clock = ListFeed(), ListSink(), iter(range(10_000))
    options = SegmentationOptions(batch=1, products_every=0.5)
    segmentation = Segmentation(
        Products5(), sink, describe, options, feed=feed, monotonic=lambda: float(next(clock))
    )
    RE(take_frames(InlineDetector(), 3), segmentation)
    segmentation.shutdown()
    order = [name for name, _ in feed.calls]
    assert order == ["open", *["frame", "products"] * 3, "products", "close", "shutdown"]
    (products,) = sink.products.values()
    assert products.final


@dataclass
class Told:
    """A run's journal, as far as a keeper asks it."""

    began: float = 1.0
    resumed: bool = False
    checkpoints: list[bytes] = field(default_factory=list)

    def save_checkpoint(self, data: bytes) -> None:
        self.checkpoints.append(data)


def test_a_checkpoint_waits_until_the_feed_has_kept_the_frames_before_it() -> None:
    feed, sink, labeller = ListFeed(kept=3), ListSink(), ThresholdLabeller()
    keeper = Keeper(labeller, sink, Guard(logging.getLogger()), 4, feed)
    journal: Any = Told()
    run = OpenRun("run", FrameFinder({"uid": "run"}), journal)
    sink.open(describe({"uid": "run"}))
    labeller.open("run")
    sink.masks["run"] = [None] * 4
    keeper.labelled(run, 4)
    keeper.tick([run])
    assert journal.checkpoints == []
    feed.kept = 4
    keeper.tick([run])
    assert len(journal.checkpoints) == 1
    assert run.safe == 4
