"""The worker on threads of the RunEngine's process, with journals and a target that counts."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import bluesky.plans as bp
import pytest
from bluesky.run_engine import RunEngine
from callbacks_support import InlineDetector
from callbacks_targets import CountingTarget
from ptychoseg_callbacks.ingress import Ingress
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.queueing.waiting import OverloadOptions
from ptychoseg_callbacks.workers.thread import ThreadWorker
from ptychoseg_callbacks.workers.worker import WorkerOptions

from ptychoseg_stream.node.spool import SpoolOptions

IMAGE = 12 * 16 * 2

Attach = Callable[..., Ingress]


@pytest.fixture
def attach(RE: RunEngine, tmp_path: Path) -> Iterator[Attach]:
    """Attach a worker with journals to the RunEngine."""
    opened: list[Ingress] = []
    spool = SpoolOptions(str(tmp_path / "spool"), min_free_bytes=0)

    def attach(
        target: CountingTarget,
        overload: OverloadOptions | None = None,
        options: WorkerOptions | None = None,
    ) -> Ingress:
        def inbox() -> Inbox:
            return Inbox(Journals(spool), overload)

        opened.append(Ingress(ThreadWorker(lambda: target, options, inbox=inbox)))
        RE.subscribe(opened[-1])
        return opened[-1]

    yield attach
    for ingress in opened:
        ingress.close(20.0)


def test_scan_completes_while_the_target_is_stuck_and_memory_does_not_grow(
    RE: RunEngine, attach: Attach
) -> None:
    released = threading.Event()
    most: list[tuple[int, int]] = []
    target = CountingTarget(lambda: released.wait(60) and None)
    ingress = attach(target, OverloadOptions(memory_bytes=10 * 1024))
    worker = ingress._worker
    assert isinstance(worker, ThreadWorker)

    def look(name: str, doc: object) -> None:
        if worker._inbox is not None:
            most.append(worker._inbox.memory)

    RE.subscribe(look)
    RE(bp.count([InlineDetector()], 300))
    (run,) = target.runs or [None]
    assert run is None or run.marks == []  # not one event is processed, and the scan has ended
    assert ingress.vitals().backlog > 298
    released.set()
    assert ingress.wait(60.0)
    assert target.runs[0].marks == list(range(300))
    assert most
    assert max(size for _, size in most) <= 10 * 1024
    assert max(held for held, _ in most) < 30


def test_images_that_nobody_takes_over_are_bounded(RE: RunEngine) -> None:
    building = threading.Event()

    def build() -> CountingTarget:
        assert building.wait(60)
        return target

    target = CountingTarget()
    ingress = Ingress(ThreadWorker(build, WorkerOptions(max_bytes=4 * IMAGE)))
    RE.subscribe(ingress)
    RE(bp.count([InlineDetector()], 10))
    building.set()
    assert ingress.wait(60.0)
    ingress.close(20.0)
    assert target.runs[0].marks[:4] == [0, 1, 2, 3]
    assert all("memory limit" in reason for reason in target.runs[0].marks[4:])
    assert len(target.runs[0].marks) == 10


def test_node_that_hangs_keeps_its_run_and_the_next_one_leaves_it_alone(
    RE: RunEngine, attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    released = threading.Event()
    hanging, other = CountingTarget(lambda: released.wait(60) and None), CountingTarget()
    first = attach(hanging)
    RE(bp.count([InlineDetector()], 5))
    first.close(0.05)
    assert "did not end within" in caplog.text
    assert attach(other).wait(60.0)
    assert other.runs == []
    released.set()
    first._worker._thread.join(20)  # type: ignore[attr-defined]
    assert hanging.runs[0].marks == [0, 1, 2, 3, 4]


def test_documents_that_come_again_are_processed_once(RE: RunEngine, attach: Attach) -> None:
    target = CountingTarget()
    ingress = attach(target)
    RE.subscribe(ingress)  # by mistake, a second time
    RE(bp.count([InlineDetector()], 5))
    assert ingress.wait(60.0)
    assert target.runs[0].marks == [0, 1, 2, 3, 4]
    assert target.unknown == []


def test_nobody_waits_for_a_worker_that_has_ended_and_nothing_is_left_of_who_asked() -> None:
    worker = ThreadWorker(CountingTarget)
    worker.close(20.0)
    assert not worker.drain(60.0)
    assert worker._tickets._waiting == {}
