"""Whatever goes wrong with a frame, it is accounted for, and the next one is labelled."""

from pathlib import Path
from typing import Any

import bluesky.plans as bp
import pytest
from bluesky.run_engine import RunEngine
from callbacks_support import (
    SHAPE,
    InlineDetector,
    ListSink,
    StreamDetector,
    ThresholdLabeller,
    adds_up,
    fly,
    segmentation,
)
from ptychoseg_callbacks.frames.finder import FinderOptions
from ptychoseg_callbacks.segmentation import SegmentationOptions

from ptychoseg_stream.errors import StoreError
from ptychoseg_stream.science.frame import ClassCode

IMPATIENT = SegmentationOptions(finder=FinderOptions(read_timeout=0.02))


def test_frames_missing_in_the_file_are_rows_that_say_so(RE: RunEngine, tmp_path: Path) -> None:
    detector, sink = StreamDetector(tmp_path), ListSink()
    detector.missing = 2
    RE.subscribe(segmentation(sink=sink, options=IMPATIENT))
    (uid,) = RE(fly(detector, [5])).run_start_uids

    masks = sink.masks[uid]
    assert [mask.status for mask in masks] == ["ok"] * 3 + ["lost"] * 2
    assert "holds only 3 of the 5 frames" in masks[3].reason
    assert (masks[4].classes == ClassCode.INVALID).all()
    assert masks[4].classes.shape == SHAPE
    assert sink.accounts[uid].lost == 2
    assert adds_up(sink.accounts[uid])


@pytest.mark.parametrize("change", ["file", "dataset", "mimetype", "scheme"])
def test_what_cannot_be_read_is_named_in_every_row(
    RE: RunEngine, tmp_path: Path, change: str
) -> None:
    segment = segmentation(sink=(sink := ListSink()), options=IMPATIENT)

    def altered(name: str, doc: Any) -> None:
        if name == "stream_resource":
            doc = {**doc, "parameters": dict(doc["parameters"])}
            if change == "file":
                doc["uri"] = "file://localhost/nowhere/at%20all.h5"
            elif change == "dataset":
                doc["parameters"]["dataset"] = "/entry/other"
            elif change == "mimetype":
                doc["mimetype"] = "application/x-unheard-of"
            else:
                doc["uri"] = "s3://bucket/frames.h5"
        segment(name, doc)

    RE.subscribe(altered)
    (uid,) = RE(bp.count([StreamDetector(tmp_path)], 3)).run_start_uids
    named = {
        "file": "/nowhere/at all.h5",
        "dataset": "/entry/other",
        "mimetype": "application/x-unheard-of",
        "scheme": "s3://bucket/frames.h5",
    }[change]
    assert [m.status for m in sink.masks[uid]] == ["lost"] * 3
    assert all(named in mask.reason for mask in sink.masks[uid])
    assert sink.accounts[uid].lost == 3


def test_labeller_that_raises_refuses_its_batch_and_goes_on(
    RE: RunEngine, caplog: pytest.LogCaptureFixture
) -> None:
    sink = ListSink()
    options = SegmentationOptions(batch=2)
    segment = segmentation(ThresholdLabeller(fail_at=[2, 4]), sink, options)
    RE.subscribe(segment)
    (uid,) = RE(bp.count([InlineDetector(per_event=2)], 4)).run_start_uids

    masks = sink.masks[uid]
    assert [m.frame.index for m in masks] == list(range(8))
    assert [m.status for m in masks] == ["ok"] * 2 + ["refused"] * 4 + ["ok"] * 2
    assert "ZeroDivisionError: a bug in the labeller" in masks[2].reason
    assert (masks[2].classes == ClassCode.INVALID).all()
    assert sum(sink.accounts[uid].refused.values()) == 4
    assert adds_up(sink.accounts[uid])
    assert caplog.text.count("a bug in the labeller") == 1
    assert "a bug" in segment.vitals().fault


def test_labeller_that_answers_too_few_masks_is_found_out(RE: RunEngine) -> None:
    class Forgetful(ThresholdLabeller):
        def process(self, frames: Any) -> Any:
            return super().process(frames)[:-1]

    sink = ListSink()
    RE.subscribe(segmentation(Forgetful(), sink))
    (uid,) = RE(bp.count([InlineDetector(per_event=3)], 1)).run_start_uids
    assert [m.status for m in sink.masks[uid]] == ["refused"] * 3
    assert "one mask per frame" in sink.masks[uid][0].reason


def test_masks_that_a_sink_refuses_are_counted_as_lost(RE: RunEngine) -> None:
    class FullSink(ListSink):
        def write(self, run_uid: str, masks: Any) -> None:
            if masks[0].frame.index >= 2:
                raise StoreError("the disk is full")
            super().write(run_uid, masks)

    sink = FullSink()
    RE.subscribe(segment := segmentation(sink=sink, options=SegmentationOptions(batch=2)))
    (uid,) = RE(bp.count([InlineDetector()], 5)).run_start_uids
    account = sink.accounts[uid]
    assert (account.received, account.written, account.lost) == (5, 2, 3)
    assert "the disk is full" in segment.vitals().fault


def test_failing_sink_or_labeller_at_the_end_does_not_stop_the_other(RE: RunEngine) -> None:
    class BadClose(ThresholdLabeller):
        def close(self, run_uid: str) -> None:
            raise KeyError(run_uid)

    sink = ListSink()
    RE.subscribe(segmentation(BadClose(), sink))
    (uid,) = RE(bp.count([InlineDetector()], 2)).run_start_uids
    assert sink.accounts[uid].written == 2


def test_sink_is_closed_as_failed_when_the_labeller_cannot_begin() -> None:
    class Unwilling(ThresholdLabeller):
        def open(self, run_uid: str, checkpoint: bytes = b"") -> None:
            raise OSError("no centroids")

    sink = ListSink()
    with pytest.raises(OSError, match="no centroids"):
        segmentation(Unwilling(), sink)("start", {"uid": "a", "time": 0.0})
    assert sink.accounts["a"].exit_status == "fail"
