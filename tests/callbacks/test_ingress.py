"""What is subscribed to the RunEngine, with the worker on a thread."""

import gc
import logging
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import pytest
from bluesky.run_engine import RunEngine
from callbacks_support import (
    InlineDetector,
    ListSink,
    StreamDetector,
    ThresholdLabeller,
    adds_up,
    fly,
    marks,
    segmentation,
)
from ptychoseg_callbacks.ingress import Ingress
from ptychoseg_callbacks.workers.thread import ThreadWorker
from ptychoseg_callbacks.workers.worker import WorkerOptions

from ptychoseg_stream.errors import ProfileError

Attach = Callable[..., Ingress]


class HeldLabeller(ThresholdLabeller):
    """Waits at its first batch until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.released = threading.Event(), threading.Event()

    def process(self, frames: Any) -> Any:
        self.reached.set()
        assert self.released.wait(60)
        return super().process(frames)


@pytest.fixture
def attach(RE: RunEngine) -> Iterator[Attach]:
    opened: list[Ingress] = []

    def attach(
        labeller: Any = None, sink: Any = None, options: WorkerOptions | None = None
    ) -> Ingress:
        ingress = Ingress(ThreadWorker(lambda: segmentation(labeller, sink), options))
        opened.append(ingress)
        RE.subscribe(ingress)
        return ingress

    yield attach
    for ingress in opened:
        ingress.close(20.0)


def test_masks_of_all_flavours_are_those_of_their_frames(
    RE: RunEngine, attach: Attach, tmp_path: Path
) -> None:
    sink = ListSink()
    ingress = attach(sink=sink)
    plans = [
        bp.count([InlineDetector()], 20),
        bp.count([StreamDetector(tmp_path)], 20),
        fly(StreamDetector(tmp_path), [7, 13]),
    ]
    uids = [RE(plan).run_start_uids[0] for plan in plans]
    assert ingress.wait(20.0)
    assert [marks(sink.masks[uid]) for uid in uids] == [list(range(20))] * 3
    assert all(sink.accounts[uid].written == 20 for uid in uids)


def test_scan_ends_while_the_labeller_still_works_on_its_first_frame(
    RE: RunEngine, attach: Attach
) -> None:
    labeller, sink = HeldLabeller(), ListSink()
    ingress = attach(labeller, sink)
    (uid,) = RE(bp.count([InlineDetector()], 30)).run_start_uids
    assert not labeller.released.is_set()
    assert labeller.reached.wait(20)
    assert sink.masks[uid] == []
    assert not ingress.wait(0.01)
    assert ingress.vitals().backlog > 20
    labeller.released.set()
    assert ingress.wait(20.0)
    assert marks(sink.masks[uid]) == list(range(30))  # though the detector reused its buffer
    assert ingress.vitals().backlog == 0
    assert ingress.vitals().written == 30


def test_documents_changed_after_they_were_emitted_do_not_matter(
    RE: RunEngine, attach: Attach
) -> None:
    labeller, sink = HeldLabeller(), ListSink()
    ingress = attach(labeller, sink)

    def vandal(name: str, doc: Any) -> None:
        if name == "event":
            doc["data"]["det_image"][:] = 0
            doc["data"].clear()
            doc["descriptor"] = "gone"

    RE.subscribe(vandal)
    (uid,) = RE(bp.count([InlineDetector()], 5)).run_start_uids
    labeller.released.set()
    assert ingress.wait(20.0)
    assert marks(sink.masks[uid]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("where", ["open", "process", "close", "build", "write", "stored"])
def test_whatever_raises_the_scan_ends_well_and_one_line_is_logged(
    RE: RunEngine, attach: Attach, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    def broken(*_: Any) -> Any:
        raise ProfileError("this is broken")

    labeller, sink = ThresholdLabeller(), ListSink()
    if where in ("write", "stored"):
        setattr(sink, where, broken)
    elif where != "build":
        setattr(labeller, where, broken)
    ingress = attach(labeller, sink)
    if where == "build":
        RE.subscribe(ingress := Ingress(ThreadWorker(broken)))

    result = RE(bp.count([InlineDetector()], 10))
    assert result.exit_status == "success"
    ingress.wait(20.0)
    assert "this is broken" in ingress.vitals().fault
    told = caplog.text.count("this is broken")
    # What is stored is asked for vitals, and for whoever sent the documents.
    assert told == 1 or (told == 2 and where == "stored")
    assert all(adds_up(account) for account in sink.accounts.values())
    assert where != "build" or ingress.lost > 0
    ingress.close(20.0)


def test_next_run_is_labelled_after_one_that_could_not_begin(
    RE: RunEngine, attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    class Unwilling(ThresholdLabeller):
        def open(self, run_uid: str, checkpoint: bytes = b"") -> None:
            if not self.batches:
                self.batches.append([])
                raise OSError("not today")
            super().open(run_uid, checkpoint)

    sink = ListSink()
    ingress = attach(Unwilling(), sink)
    RE(bp.count([InlineDetector()], 3))
    (uid,) = RE(bp.count([InlineDetector()], 3)).run_start_uids
    assert ingress.wait(20.0)
    assert sink.accounts[uid].written == 3


def test_images_beyond_the_memory_limit_are_accounted_for_as_lost(
    RE: RunEngine, caplog: pytest.LogCaptureFixture
) -> None:
    released, sink = threading.Event(), ListSink()

    def build() -> Any:
        assert released.wait(60)  # until then nobody takes anything
        return segmentation(sink=sink)

    image = 12 * 16 * 2
    RE.subscribe(ingress := Ingress(ThreadWorker(build, WorkerOptions(max_bytes=4 * image))))
    (uid,) = RE(bp.count([InlineDetector()], 10)).run_start_uids
    released.set()
    assert ingress.wait(20.0)
    masks = sink.masks[uid]
    assert [mask.status for mask in masks] == ["ok"] * 4 + ["lost"] * 6
    assert "memory limit" in masks[5].reason
    assert "max_bytes" in masks[5].reason
    assert adds_up(sink.accounts[uid])
    assert caplog.text.count("memory limit") == 1

    (uid,) = RE(bp.count([InlineDetector()], 4)).run_start_uids  # memory is free again
    assert ingress.wait(20.0)
    assert sink.accounts[uid].written == 4
    ingress.close(20.0)


def test_document_that_cannot_be_copied_is_counted_and_logged_once_a_run(
    RE: RunEngine, attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    class Untellable:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    ingress = attach()
    for _ in range(3):
        ingress("event", {"data": {"x": Untellable()}})
    assert ingress.lost == 3
    assert caplog.text.count("no words") == 1
    ingress("start", {"uid": "next", "time": 0.0})
    ingress("event", {"data": {"x": Untellable()}})
    assert caplog.text.count("no words") == 2


def test_run_engine_alone_keeps_an_ingress_alive(RE: RunEngine, attach: Attach) -> None:
    ingress = attach(sink=(sink := ListSink()))
    reference = weakref.ref(ingress)
    gc.collect()
    (uid,) = RE(bp.count([InlineDetector()], 3)).run_start_uids
    assert reference() is ingress
    assert ingress.wait(20.0)
    assert len(sink.masks[uid]) == 3


def test_close_stores_what_is_queued_and_refuses_what_comes_later(
    RE: RunEngine, attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    ingress = attach(sink=(sink := ListSink()))
    (uid,) = RE(bp.count([InlineDetector()], 10)).run_start_uids
    ingress("start", {"uid": "never stopped", "time": 0.0})
    ingress.close(20.0)
    ingress.close(20.0)
    assert sink.accounts[uid].written == 10
    assert sink.accounts["never stopped"].exit_status == "fail"
    assert sink.is_shut_down
    assert not ingress.wait(1.0)
    RE(bp.count([InlineDetector()], 1))
    assert caplog.text.count("was closed") == 1


def test_worker_that_hangs_does_not_hang_close(
    attach: Attach, RE: RunEngine, caplog: pytest.LogCaptureFixture
) -> None:
    labeller = HeldLabeller()
    ingress = attach(labeller)
    RE(bp.count([InlineDetector()], 3))
    with caplog.at_level(logging.ERROR):
        ingress.close(0.05)
    assert "did not end within" in caplog.text
    labeller.released.set()
    for thread in threading.enumerate():
        if thread.name == "ptychoseg-worker":
            thread.join(20)


_SCRIPT = """
import sys, time
import bluesky.plans as bp
from bluesky.run_engine import RunEngine
from callbacks_support import InlineDetector, ListSink, ThresholdLabeller, segmentation
from ptychoseg_callbacks.ingress import Ingress, IngressOptions
from ptychoseg_callbacks.workers.thread import ThreadWorker

class Slow(ThresholdLabeller):
    def process(self, frames):
        time.sleep(float(sys.argv[1]))
        return super().process(frames)

class TellingSink(ListSink):
    def close(self, run_uid, account):
        print(account.written, account.exit_status, flush=True)

RE = RunEngine({})
worker = ThreadWorker(lambda: segmentation(Slow(), TellingSink()))
RE.subscribe(Ingress(worker, IngressOptions(exit_timeout=float(sys.argv[2]))))
RE(bp.count([InlineDetector()], 9))
"""


@pytest.mark.parametrize(
    ("labelling", "patience", "printed", "told"),
    [(0.001, 20, "9 success\n", False), (0.7, 20, "9 success\n", True), (60, 0.2, "", True)],
)
def test_python_waits_at_exit_for_the_last_masks_but_not_for_ever(
    labelling: float, patience: float, printed: str, told: bool
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(labelling), str(patience)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert ended.stdout == printed
    assert ("are still to be labelled" in ended.stderr) is told
