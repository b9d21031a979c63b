import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky.run_engine import RunEngine, RunEngineInterrupted
from callbacks_support import (
    SHAPE,
    InlineDetector,
    ListSink,
    StreamDetector,
    ThresholdLabeller,
    fly,
    marks,
    segmentation,
)
from ophyd.sim import motor
from ptychoseg_callbacks.frames.finder import FinderOptions
from ptychoseg_callbacks.loop import Received
from ptychoseg_callbacks.segmentation import SegmentationOptions

from ptychoseg_stream.science.frame import ClassCode

IMPATIENT = SegmentationOptions(finder=FinderOptions(read_timeout=0.02))


def detector_of(flavour: str, folder: Path, per_event: int) -> Any:
    if flavour == "inline":
        return InlineDetector(per_event=per_event)
    return StreamDetector(folder, per_event=per_event)


@pytest.mark.parametrize("per_event", [1, 3])
@pytest.mark.parametrize("flavour", ["inline", "stream"])
def test_step_scan_gives_every_frame_its_own_mask_in_order(
    RE: RunEngine, tmp_path: Path, flavour: str, per_event: int
) -> None:
    sink = ListSink()
    RE.subscribe(segmentation(sink=sink))
    (uid,) = RE(bp.count([detector_of(flavour, tmp_path, per_event)], 7)).run_start_uids

    masks = sink.masks[uid]
    assert marks(masks) == [mask.frame.index for mask in masks] == list(range(7 * per_event))
    assert [m.frame.seq_num for m in masks] == [1 + n // per_event for n in range(7 * per_event)]
    assert {m.status for m in masks} == {"ok"}
    assert masks[0].classes.shape == SHAPE
    assert masks[0].classes[6, 8] == ClassCode.RING
    account = sink.accounts[uid]
    assert (account.received, account.written) == (7 * per_event, 7 * per_event)
    assert account.exit_status == "success"


@pytest.mark.parametrize("per_event", [1, 3])
def test_fly_scan_without_any_event_gives_every_frame_its_mask(
    RE: RunEngine, tmp_path: Path, per_event: int
) -> None:
    sink, names = ListSink(), []
    RE.subscribe(segmentation(sink=sink))
    RE.subscribe(lambda name, doc: names.append(name))
    detector = StreamDetector(tmp_path, per_event=per_event)
    (uid,) = RE(fly(detector, [5, 1, 20])).run_start_uids

    masks = sink.masks[uid]
    assert "event" not in names
    assert marks(masks) == [mask.frame.index for mask in masks] == list(range(26 * per_event))
    assert [m.frame.seq_num for m in masks] == [1 + n // per_event for n in range(26 * per_event)]


@pytest.mark.parametrize("flavour", ["inline", "stream"])
def test_points_retaken_after_a_pause_get_the_next_index(
    RE: RunEngine, tmp_path: Path, flavour: str
) -> None:
    paused = []

    def plan(detector: Any) -> Iterator[Any]:
        for point in range(9):
            if point % 3 == 0:
                yield from bps.checkpoint()
            if point == 5 and not paused:
                paused.append(True)
                yield from bps.pause()
            yield from bps.trigger_and_read([detector])

    sink = ListSink()
    RE.subscribe(segmentation(sink=sink))
    detector = detector_of(flavour, tmp_path, 1)
    with pytest.raises(RunEngineInterrupted):
        RE(bpp.stage_wrapper(bpp.run_wrapper(plan(detector)), [detector]))
    RE.resume()

    (masks,) = sink.masks.values()
    assert [mask.frame.seq_num for mask in masks] == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9]
    assert marks(masks) == [mask.frame.index for mask in masks] == list(range(11))


def test_aborted_run_is_closed_with_its_own_exit_status(RE: RunEngine) -> None:
    def plan(detector: Any) -> Iterator[Any]:
        for point in range(5):
            if point == 3:
                yield from bps.pause()
            yield from bps.trigger_and_read([detector])

    sink = ListSink()
    RE.subscribe(segmentation(sink=sink))
    detector = InlineDetector()
    with pytest.raises(RunEngineInterrupted):
        RE(bpp.run_wrapper(plan(detector)))
    RE.abort()

    (account,) = sink.accounts.values()
    assert (account.received, account.written) == (3, 3)
    assert account.exit_status == "abort"


def test_failing_plan_is_closed_with_its_reason(RE: RunEngine) -> None:
    sink = ListSink()
    RE.subscribe(segmentation(sink=sink))
    with pytest.raises(RuntimeError, match="shutter"):
        RE(bp.count([InlineDetector(break_at=2)], 5))
    (account,) = sink.accounts.values()
    assert (account.received, account.exit_status) == (2, "fail")
    assert "shutter" in account.reason


def test_one_image_key_of_one_stream_is_segmented(
    RE: RunEngine, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = InlineDetector("first"), InlineDetector("second")

    def plan() -> Iterator[Any]:
        yield from bps.trigger_and_read([first], name="dark")
        for _ in range(3):
            yield from bps.trigger_and_read([motor, first, second], name="primary")

    sink = ListSink()
    RE.subscribe(segmentation(sink=sink))
    with caplog.at_level(logging.INFO):
        RE(bpp.run_wrapper(plan()))
    (masks,) = sink.masks.values()
    assert {(m.frame.stream, m.frame.data_key) for m in masks} == {("primary", "first_image")}
    assert [mask.frame.index for mask in masks] == [0, 1, 2]
    assert marks(masks) == [1, 2, 3]  # frame 0 of the detector was the dark
    assert caplog.text.count("ignored: second_image") == 1


def test_options_choose_the_image_key(RE: RunEngine) -> None:
    sink = ListSink()
    options = SegmentationOptions(FinderOptions(data_keys=("absent", "second_image")))
    RE.subscribe(segmentation(sink=sink, options=options))
    RE(bp.count([InlineDetector("first"), InlineDetector("second")], 2))
    (masks,) = sink.masks.values()
    assert [mask.frame.data_key for mask in masks] == ["second_image"] * 2


def test_run_without_images_is_an_empty_account(
    RE: RunEngine, caplog: pytest.LogCaptureFixture
) -> None:
    sink = ListSink()
    RE.subscribe(segmentation(sink=sink))
    with caplog.at_level(logging.INFO):
        RE(bp.scan([], motor, 0, 1, 3))
    (account,) = sink.accounts.values()
    assert account.received == 0
    assert "no images found" in caplog.text


def documents_of(RE: RunEngine, plan: Any) -> list[tuple[str, Any]]:
    """Return documents whose arrays are copies, as a recorder would keep them."""
    kept: list[tuple[str, Any]] = []

    def keep(name: str, doc: Any) -> None:
        if name == "event":
            doc = {**doc, "data": {key: np.array(value) for key, value in doc["data"].items()}}
        kept.append((name, doc))

    token = RE.subscribe(keep)
    RE(plan)
    RE.unsubscribe(token)
    return kept


def test_interleaved_runs_are_kept_apart(RE: RunEngine) -> None:
    one = documents_of(RE, bp.count([InlineDetector()], 5))
    other = documents_of(RE, bp.count([InlineDetector()], 5))
    sink = ListSink()
    segment = segmentation(sink=sink)
    for pair in zip(one, other, strict=True):
        for name, doc in pair:
            segment(name, doc)
    assert len(sink.accounts) == 2
    assert [marks(masks) for masks in sink.masks.values()] == [list(range(5))] * 2
    assert segment.vitals().open_runs == 0


def test_batches_wait_for_more_frames_only_until_flush(RE: RunEngine) -> None:
    documents = documents_of(RE, bp.count([InlineDetector()], 5))
    labeller, sink = ThresholdLabeller(), ListSink()
    segment = segmentation(labeller, sink, SegmentationOptions(batch=3))
    for name, doc in documents[:-1]:
        for _ in segment.steps(Received(name, doc, 0.0)):
            assert labeller.batches == [[0, 1, 2]]
    assert labeller.batches == [[0, 1, 2]]
    assert segment.vitals().backlog == 2
    segment.flush()
    assert labeller.batches == [[0, 1, 2], [3, 4]]
    segment(*documents[-1])
    assert labeller.batches == [[0, 1, 2], [3, 4]]
    assert labeller.open_runs == set()


def test_frames_of_one_document_are_labelled_in_batches(RE: RunEngine, tmp_path: Path) -> None:
    labeller, sink = ThresholdLabeller(), ListSink()
    RE.subscribe(segmentation(labeller, sink))
    RE(fly(StreamDetector(tmp_path), [20]))
    assert [len(batch) for batch in labeller.batches] == [8, 8, 4]


def test_documents_of_an_unknown_run_are_counted_and_logged_once(
    RE: RunEngine, caplog: pytest.LogCaptureFixture
) -> None:
    documents = documents_of(RE, bp.count([InlineDetector()], 4))
    segment = segmentation(sink=(sink := ListSink()))
    for name, doc in documents[1:]:  # the start document was missed
        segment(name, doc)
    assert segment.unknown == len(documents) - 1
    assert len(caplog.records) == 1
    for name, doc in documents:
        segment(name, doc)
    assert [account.written for account in sink.accounts.values()] == [4]


def test_run_that_starts_again_without_a_stop_is_closed_as_failed(RE: RunEngine) -> None:
    documents = documents_of(RE, bp.count([InlineDetector()], 4))
    closed: list[Any] = []

    class TellingSink(ListSink):
        def close(self, run_uid: str, account: Any) -> None:
            closed.append(account)

    segment = segmentation(sink=TellingSink())
    for name, doc in [*documents[:3], *documents]:
        segment(name, doc)
    assert [(a.exit_status, a.received) for a in closed] == [("fail", 1), ("success", 4)]


def test_runs_that_never_stop_are_closed_when_there_are_too_many() -> None:
    sink = ListSink()
    segment = segmentation(sink=sink, options=SegmentationOptions(max_open_runs=3))
    for number in range(5):
        segment("start", {"uid": f"run {number}", "time": 0.0})
    assert list(sink.accounts) == ["run 0", "run 1"]
    assert sink.accounts["run 0"].exit_status == "fail"
    segment.shutdown()
    assert len(sink.accounts) == 5
    assert sink.is_shut_down


def test_vitals_tell_how_the_run_is_doing(RE: RunEngine) -> None:
    segment = segmentation()
    RE.subscribe(segment)
    (uid,) = RE(bp.count([InlineDetector()], 5)).run_start_uids
    vitals = segment.vitals()
    assert (vitals.run, vitals.derived, vitals.open_runs) == (uid, f"memory:{uid}", 0)
    assert (vitals.received, vitals.written, vitals.stored, vitals.index) == (5, 5, 5, 4)
    assert (vitals.source, vitals.fault, vitals.progress.step) == ("teacher", "", 5)
    assert vitals.latency_ms >= 0
