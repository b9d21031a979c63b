"""Frames come faster than they can be labelled: the scan goes on, and nothing is lost unseen."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky.run_engine import RunEngine
from endings_support import H, Line, MarkLabeller, W, detector_of, points
from ptychoseg_callbacks.documents import Document
from ptychoseg_callbacks.feeder import feed
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.queueing.waiting import OverloadOptions
from ptychoseg_callbacks.segmentation import Segmentation, SegmentationOptions
from ptychoseg_callbacks.source import Callback
from ways_support import (
    LIMIT,
    Named,
    Recorder,
    answer_of,
    eventually,
    marked_frames,
    run_engine,
)

from ptychoseg_stream.assemble import attach, attach_to
from ptychoseg_stream.errors import ProfileError
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.ports import RunInfo
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.profile import Profile, load_profile
from ptychoseg_stream.science.learning import StudentOptions
from ptychoseg_stream.sim.detectors import PlayedDetector
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.memory import MemorySink

N = 120  # points of a scan; those of the RunEngine come within milliseconds of each other
FRAME = 2 * H * W  # bytes
ROOM = 8 * FRAME  # so much may wait in memory


class Held(MarkLabeller):
    """Labels nothing until it is let go: slower than any factor."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.reached = threading.Event()
        super().__init__(self._hold)

    def _hold(self) -> None:
        self.reached.set()
        assert self.gate.wait(LIMIT)


@pytest.fixture
def labeller() -> Iterator[Held]:
    labeller = Held()
    yield labeller
    labeller.gate.set()


@pytest.fixture
def make_line(tmp_path: Path, labeller: Held) -> Iterator[Callable[..., Line]]:
    lines: list[Line] = []

    def make(sink: MemorySink, policy: Any, **more: Any) -> Line:
        overload = OverloadOptions(policy, memory_bytes=ROOM, documents=16)
        lines.append(
            Line(sink, tmp_path / "spool", labeller=labeller, overload=overload, batch=2, **more)
        )
        return lines[-1]

    yield make
    labeller.gate.set()
    for line in lines:
        line.close()


def scanned(line: Line, tmp_path: Path, kind: str) -> RunEngine:
    with run_engine() as engine:
        engine.subscribe(line)
        engine(points(detector_of(kind, tmp_path, N), N))
        return engine


def check_all_there(sink: MemorySink, count: int) -> None:
    (uid,) = sink.runs
    rows, account = sink.rows[uid], sink.accounts[uid]
    assert [mask.frame.index for mask in rows] == list(range(count))
    assert [mask.plateau for mask in rows] == list(range(count))
    assert (account.received, account.written, account.lost) == (count, count, 0)
    assert account.announced == count
    assert account.imbalance == ""


@pytest.mark.parametrize("kind", ["inline", "file"])
@pytest.mark.parametrize("policy", ["spill", "teacher-only"])
def test_a_scan_ends_while_its_first_frame_is_still_being_labelled(
    policy: str, kind: str, make_line: Any, labeller: Held, tmp_path: Path
) -> None:
    sink = MemorySink()
    line = make_line(sink, policy)
    scanned(line, tmp_path, kind)  # it came back: nobody waited for the node
    assert labeller.reached.wait(LIMIT)
    assert sum(labeller.labelled.values()) == 0
    assert eventually(lambda: line.inbox.number >= N + 3)
    documents, size = line.inbox.memory
    assert size <= ROOM + 4096  # what is being labelled included
    if kind == "inline":
        assert documents < 40
    labeller.gate.set()
    line.settle()
    check_all_there(sink, N)
    (uid,) = sink.runs
    cheap = [mask.frame.teacher_only for mask in sink.rows[uid]]
    assert sink.accounts[uid].teacher_only == sum(cheap)
    if policy == "spill":
        assert not any(cheap)
    else:
        assert sum(cheap) > N / 2
        assert not cheap[-1]  # it had caught up by then
    assert line.inbox.memory == (0, 0)


def test_memory_stays_bounded_all_the_time(make_line: Any, labeller: Held, tmp_path: Path) -> None:
    sink, most, never = MemorySink(), list[int](), threading.Event()
    line = make_line(sink, "spill")

    def slowly() -> None:
        most.append(line.inbox.memory[1])
        never.wait(0.002)

    labeller.before = slowly
    scanned(line, tmp_path, "inline")
    line.settle()
    check_all_there(sink, N)
    assert max(most) <= ROOM + 4096


def test_without_a_journal_what_does_not_fit_is_marked_as_lost_and_the_account_balances(
    make_line: Any, labeller: Held, tmp_path: Path
) -> None:
    sink = MemorySink()
    line = make_line(sink, "spill", journal=False)
    scanned(line, tmp_path, "inline")
    assert eventually(lambda: line.inbox.number >= N + 3)
    assert line.inbox.memory[1] <= ROOM + 4096
    labeller.gate.set()
    line.settle()
    (uid,) = sink.runs
    rows, account = sink.rows[uid], sink.accounts[uid]
    assert [mask.frame.index for mask in rows] == list(range(N))
    lost = [mask for mask in rows if mask.status == "lost"]
    assert 0 < len(lost) < N
    assert all("memory limit" in mask.reason for mask in lost)
    assert all("spool.folder" in mask.reason for mask in lost)
    assert (account.received, account.written, account.lost) == (N, N - len(lost), len(lost))
    assert account.imbalance == ""


class Recorded:
    """A source that delivers documents as fast as they are taken."""

    redelivers = False

    def __init__(self, documents: list[Named]) -> None:
        self.documents = documents
        self.delivered = 0

    def run(self, callback: Callback, stopping: threading.Event) -> None:
        for name, doc in self.documents:
            callback(name, doc)
            self.delivered += 1

    def stored(self, number: int) -> None:
        """Nothing to give up."""


def test_with_wait_a_source_stands_still_until_there_is_room(
    labeller: Held, tmp_path: Path
) -> None:
    recorder = Recorder()
    with run_engine() as engine:
        engine.subscribe(recorder)
        engine(points(detector_of("inline", tmp_path, N), N))
    journals = Journals(SpoolOptions(str(tmp_path / "spool"), min_free_bytes=0))
    inbox = Inbox(journals, OverloadOptions("wait", documents=8))
    sink, source = MemorySink(), Recorded(recorder.documents)
    segmentation = Segmentation(labeller, sink, describe, SegmentationOptions(batch=2))
    done = list[bool]()
    node = threading.Thread(target=lambda: done.append(feed(segmentation, source, inbox).complete))
    node.start()
    try:
        assert labeller.reached.wait(LIMIT)
        assert eventually(lambda: inbox.waiting >= 8)
        before = source.delivered
        assert before <= 8 + 2 + 4  # start and descriptor, and what the labeller holds
        assert not threading.Event().wait(0.3)
        assert source.delivered == before
        assert inbox.memory[0] <= before + 1
    finally:
        labeller.gate.set()
        node.join(LIMIT)
    assert done == [True]
    check_all_there(sink, N)
    assert not any(mask.frame.teacher_only for mask in sink.rows[recorder.uid])


def describe(start: Document) -> RunInfo:
    return RunInfo(start["uid"], start, {"profile": "test"})


@pytest.mark.parametrize("own_process", [True, False])
def test_waiting_is_refused_where_a_run_engine_would_wait(own_process: bool) -> None:
    profile = replace(
        load_profile("demo"),
        own_process=own_process,
        tiled=replace(load_profile("demo").tiled, uri="http://127.0.0.1:9"),
        overload=OverloadOptions("wait"),
    )
    with pytest.raises(ProfileError, match=r"overload\.policy wait would make the RunEngine wait"):
        attach_to(profile)
    with pytest.raises(ProfileError, match="choose spill or teacher-only, or feed the node with"):
        attach(profile)


@pytest.fixture
def flooded(tiled: EmbeddedTiled, tmp_path: Path) -> Profile:
    """Frames 0 and 10 are learned from for seconds, in which others come."""
    base = load_profile("demo")
    student = StudentOptions(first_steps=60, steps=30, rounds=1, round_steps=3)
    return replace(
        base,
        node=NodeOptions(stages=(0, 10), student=student),
        tiled=replace(
            base.tiled,
            uri=tiled.uri,
            arrays=("mask", "valid_bits"),
            container=f"processed/{tmp_path.name}",
        ),
        spool=SpoolOptions(str(tmp_path / "spool"), min_free_bytes=0),
        overload=OverloadOptions("teacher-only", documents=4),
    )


@pytest.mark.slow
@pytest.mark.parametrize("own_process", [False, True])
def test_a_flood_gives_rows_by_the_teacher_alone_in_tiled_and_full_ones_afterwards(
    own_process: bool, flooded: Profile, tiled: EmbeddedTiled, engine: RunEngine
) -> None:
    profile = replace(flooded, own_process=own_process)
    frames = marked_frames()
    detector = PlayedDetector(frames, name="det")
    attachment = attach_to(profile, tiled.api_key)

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Iterator[Any]:
        for point in range(len(frames)):
            if point == 18:
                assert attachment.wait(120)  # the flood is over
            if point > 18:
                assert eventually(lambda: attachment.vitals().backlog == 0)
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([detector])

    try:
        engine.subscribe(attachment)
        (uid,) = engine(plan())
        assert attachment.wait(120)
        assert attachment.vitals().fault == ""
    finally:
        attachment.close()
    answer = answer_of(tiled, profile, uid)
    cheap = answer.rows["teacher_only"].to_numpy(bool)
    assert cheap[1:10].any()
    assert not cheap[18:].any()
    assert set(answer.rows["source"][cheap]) == {"teacher"}
    assert set(answer.rows["source"][18:]) == {"fused"}
    account = answer.stop["account"]
    assert (account["received"], account["written"]) == (len(frames), len(frames))
    assert account["teacher_only"] == int(np.count_nonzero(cheap))
