"""One document of a whole fly scan: what is due is done meanwhile, and it can be broken off."""

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky.run_engine import RunEngine
from callbacks_support import ListSink, StreamDetector, ThresholdLabeller, describe
from callbacks_targets import ListSource, Port
from ptychoseg_callbacks.feeder import Fed, FeedOptions, feed
from ptychoseg_callbacks.frames.options import FinderOptions
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_callbacks.loop import Close, Loop, Received
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.runs.resume import Checkpoint
from ptychoseg_callbacks.segmentation import Segmentation, SegmentationOptions
from scans_support import fly, recorded

from ptychoseg_stream.node.ports import RunInfo
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.science.frame import Mask

FRAMES = 60
FINDER = FinderOptions(read_timeout=0.02)
OPTIONS = SegmentationOptions(FINDER, batch=2, checkpoint_frames=4)


class Slow(ThresholdLabeller):
    """Does something before each batch."""

    def __init__(self, before: Callable[[int], object]) -> None:
        super().__init__()
        self.before = before

    def process(self, frames: Any) -> list[Mask]:
        self.before(frames[0].index)
        return super().process(frames)


class Kept(ListSink):
    """Keeps the rows of a run that is gone on with."""

    def open(self, run: RunInfo) -> None:
        known = self.masks.get(run.uid, []) if run.resumed else []
        super().open(run)
        self.masks[run.uid] = known


@pytest.fixture
def spool(tmp_path: Path) -> SpoolOptions:
    return SpoolOptions(str(tmp_path / "spool"), min_free_bytes=0)


@pytest.fixture
def scan(RE: RunEngine, tmp_path: Path) -> list[Any]:
    """Documents of a scan that announces all its frames at once."""
    docs = recorded(RE, fly(StreamDetector(tmp_path), [FRAMES]))
    assert [name for name, _ in docs].count("stream_datum") == 1
    return docs


def label(
    scan: list[Any],
    spool: SpoolOptions | None,
    sink: ListSink,
    labeller: ThresholdLabeller,
    stopping: threading.Event | None = None,
) -> Fed:
    inbox = Inbox(Journals(spool) if spool else None)
    source = ListSource(scan, redelivers=True)
    segmentation = Segmentation(labeller, sink, describe, OPTIONS)
    if isinstance(labeller, Slow):
        first = labeller.before

        def before(index: int) -> None:
            assert source.delivered.wait(60)  # all of it is written down
            first(index)

        labeller.before = before
    return feed(segmentation, source, inbox, stopping, FeedOptions(stop_timeout=0.0))


def checkpoint(spool: SpoolOptions) -> int:
    (path,) = spool.runs.glob("*/checkpoint")
    return Checkpoint.unpack(path.read_bytes()).next


def test_document_of_a_whole_scan_is_broken_off_and_gone_on_with(
    scan: list[Any], spool: SpoolOptions
) -> None:
    uid = scan[0][1]["uid"]
    undisturbed, sink = ListSink(), Kept()
    label(scan, None, undisturbed, ThresholdLabeller())
    stopping, slow = threading.Event(), Slow(lambda index: index >= 20 and stopping.set())
    fed = label(scan, spool, sink, slow, stopping)
    assert (fed.left, fed.exhausted) == (1, False)
    assert [mask.frame.index for mask in sink.masks[uid]] == list(range(22))
    assert sink.accounts == {}
    assert checkpoint(spool) == 22

    second = ThresholdLabeller()
    fed = label(scan, spool, sink, second)
    assert (fed.resumed, fed.left) == (1, 0)
    assert second.batches[0] == [22, 23]
    found, expected = sink.masks[uid], undisturbed.masks[uid]
    assert [mask.frame.index for mask in found] == list(range(FRAMES))
    assert [mask.plateau for mask in found] == [mask.plateau for mask in expected]
    assert all(np.array_equal(a.classes, b.classes) for a, b in zip(found, expected, strict=True))
    assert sink.accounts[uid] == undisturbed.accounts[uid]
    assert not list(spool.runs.glob("*/checkpoint"))


def test_checkpoints_are_written_within_a_document(scan: list[Any], spool: SpoolOptions) -> None:
    seen: dict[int, int] = {}
    labeller = Slow(lambda index: seen.update({index: checkpoint(spool)}))
    segmentation = Segmentation(labeller, ListSink(), describe, OPTIONS)
    port = Port(Inbox(Journals(spool)))
    for each in scan:
        port.inbox.put(*each)
    port.inbox.tell(Close(1.0))
    hours = itertools.count()
    Loop(segmentation, port, lambda: 3600.0 * next(hours)).run()
    assert seen[0] == 0
    assert all(index - 6 <= kept <= index for index, kept in seen.items())
    assert seen[FRAMES - 2] >= FRAMES - 8


def test_document_that_is_broken_off_leaves_no_receipt(scan: list[Any]) -> None:
    sink = ListSink()
    segmentation = Segmentation(ThresholdLabeller(), sink, describe, OPTIONS)
    for number, (name, doc) in enumerate(scan[:-1], 1):
        steps = segmentation.steps(Received(name, doc, 0.0, number))
        if name == "stream_datum":
            next(steps)
            steps.close()
            break
        assert list(steps) == []
    assert segmentation.stored() == number - 1
    assert sink.accounts == {}
    segmentation.flush()
    assert segmentation.vitals().received == 2


def test_end_that_is_broken_off_while_lost_frames_are_had_closes_no_run(
    scan: list[Any], spool: SpoolOptions
) -> None:
    """The frames of a document that was lost are found when the stop document counts them."""
    (uid, sink, stopping) = scan[0][1]["uid"], Kept(), threading.Event()
    stop = {**scan[-1][1], "num_events": {"primary": FRAMES + 20}}
    slow = Slow(lambda index: index >= FRAMES + 4 and stopping.set())
    label([*scan[:-1], ("stop", stop)], spool, sink, slow, stopping)
    assert sink.accounts == {}
    assert len(sink.masks[uid]) == FRAMES + 6
    label([*scan[:-1], ("stop", stop)], spool, sink, ThresholdLabeller())
    assert [mask.frame.index for mask in sink.masks[uid]] == list(range(FRAMES + 20))
    account = sink.accounts[uid]
    assert (account.written, account.lost, account.imbalance) == (FRAMES, 20, "")


def test_run_whose_document_takes_long_is_not_silent(scan: list[Any]) -> None:
    now = [0.0]
    sink = ListSink()
    options = SegmentationOptions(batch=2, idle_timeout=10.0)
    labeller = Slow(lambda index: now.__setitem__(0, now[0] + 6.0))
    segmentation = Segmentation(labeller, sink, describe, options, monotonic=lambda: now[0])
    for name, doc in scan:
        for _ in segmentation.steps(Received(name, doc, 0.0)):
            segmentation.flush()
            segmentation.tick()
    (account,) = sink.accounts.values()
    assert (account.exit_status, account.written) == ("success", FRAMES)
