"""A feed hears of runs and frames in order, and cannot harm the masks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from callbacks_support import ListSink, ThresholdLabeller, describe
from detectors_support import InlineDetector
from ptychoseg_callbacks.segmentation import Segmentation
from ptychoseg_callbacks.segmentation_options import SegmentationOptions

from ptychoseg_stream.node.ports import Account, Products, RunInfo
from ptychoseg_stream.science.frame import Frame, Mask
from ptychoseg_stream.sim.plans import take_frames


@dataclass
class ListFeed:
    """Writes down what it is told."""

    fails: bool = False
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
