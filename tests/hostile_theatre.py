"""A node for the hostile corpus: its ways in, and what must hold when a case is over."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import zmq
from hostile_support import Case, Stage, Watch, good_run, images, write_frames
from ptychoseg_callbacks.documents import encode
from ptychoseg_callbacks.feeder import feed
from ptychoseg_callbacks.frames.finder import FinderOptions
from ptychoseg_callbacks.ingress import Ingress
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.segmentation import Segmentation, SegmentationOptions
from ptychoseg_callbacks.source import Callback, Source
from ptychoseg_callbacks.workers.thread import ThreadWorker

from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.ports import RunInfo, Sink
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.node.trainer import InlineTrainer
from ptychoseg_stream.science.frame import Mask
from ptychoseg_stream.sinks.memory import MemorySink
from ptychoseg_stream.sources.zmq.documents import ZmqDocuments

LIMIT = 60.0  # s until a wait is given up
OPTIONS = NodeOptions(stages=())  # nothing is learned: the way is what is tested
STORE = MemoryStore()


class ResumableSink(MemorySink):
    """Keeps the rows of a run that is gone on with, as a store does."""

    def open(self, run: RunInfo) -> None:
        known = self.rows.get(run.uid, []) if run.resumed else []
        super().open(run)
        self.rows[run.uid] = known

    def write(self, run_uid: str, masks: Sequence[Mask]) -> None:
        known = len(self.rows[run_uid])
        super().write(run_uid, [mask for mask in masks if mask.frame.index >= known])


class Theatre:
    """A node with all that belongs to it, and what became of the runs it was given."""

    def __init__(self, folder: Path) -> None:
        self.sink = ResumableSink()
        self.made = itertools.count()
        self.root, self.outside = folder / "root", folder / "outside"
        self.root.mkdir()
        self.outside.mkdir()
        write_frames(self.outside / "secret.h5")
        (self.outside / "secret.raw").write_bytes(images().tobytes())
        self.watch = Watch(self.outside)
        self.spool = SpoolOptions(str(folder / "spool"), min_free_bytes=0)

    def stage(self, send: Callable[..., Any], kept: Path | None = None) -> Stage:
        return Stage(send, self.root, self.outside, kept=kept or Path(), made=self.made)

    def segmentation(self, sink: Sink | None = None) -> Segmentation:
        finder = FinderOptions(
            roots=(str(self.root),), max_pixels=1 << 22, read_timeout=0.05, refill_timeout=0.05
        )
        node = Node(OPTIONS, lambda: InlineTrainer(OPTIONS.student), STORE)
        return Segmentation(
            node,
            sink or self.sink,
            lambda start: RunInfo(start["uid"], start, {"options_digest": "digest"}),
            SegmentationOptions(finder),
        )

    def inbox(self) -> Inbox:
        return Inbox(Journals(self.spool))

    def feed(self, source: Source, stopping: threading.Event | None = None) -> None:
        """Label all that a source delivers."""
        feed(self.segmentation(), source, self.inbox(), stopping)

    def check(self, case: Case) -> None:
        """Check all that must hold after a case and the good run that followed it."""
        assert self.sink.accounts["good"].written == 3, self.sink.accounts
        assert self.sink.accounts["good"].imbalance == ""
        spoiled = {uid: each for uid, each in self.sink.accounts.items() if uid != "good"}
        for uid, account in self.sink.accounts.items():
            rows = self.sink.rows[uid]
            statuses = [row.status for row in rows]
            assert [row.frame.index for row in rows] == list(range(account.received))
            assert statuses.count("ok") == account.written
            assert statuses.count("lost") == account.lost
            assert statuses.count("refused") == sum(account.refused.values())
            assert all(row.reason for row in rows if row.status != "ok")
        for account in spoiled.values():
            assert case.imbalance in account.imbalance
            assert case.imbalance or not account.imbalance
        assert set(self.sink.accounts) == set(self.sink.runs)
        assert sum(account.written for account in spoiled.values()) == case.masks
        self.check_nothing_got_out()

    def check_nothing_got_out(self) -> None:
        """Check that no code was run, and no file outside of the root was opened."""
        assert not (self.outside / "executed").exists()
        assert self.watch.touched() == []

    def check_no_journal_is_left(self) -> None:
        """Check that the next process does not find what is done with."""
        assert Journals(self.spool).unfinished() == []


class ScriptedSource:
    """Delivers what functions send."""

    redelivers = False

    def __init__(self, theatre: Theatre, *plays: Callable[[Stage], None]) -> None:
        self.theatre = theatre
        self.plays = plays

    def run(self, callback: Callback, stopping: threading.Event) -> None:
        for play in self.plays:
            play(self.theatre.stage(callback))

    def stored(self, number: int) -> None:
        pass


def by_run_engine(theatre: Theatre, case: Case) -> None:
    """The way of a callback: documents are copied, and a thread takes them."""
    ingress = Ingress(ThreadWorker(theatre.segmentation, inbox=theatre.inbox))
    stage = theatre.stage(ingress)
    case.feed(stage)
    good_run(stage)
    assert ingress.wait(LIMIT)
    ingress.close(LIMIT)


def by_source(theatre: Theatre, case: Case) -> None:
    """The way of `ptychoseg run`: a source delivers documents."""
    theatre.feed(ScriptedSource(theatre, case.feed, good_run))


def by_restart(theatre: Theatre, case: Case) -> None:
    """What came before a process died is in journals; the next process reads them."""
    dead = theatre.inbox()
    case.feed(theatre.stage(dead.put))
    dead.close()
    theatre.feed(ScriptedSource(theatre, good_run))
    waiting = theatre.inbox()
    left = waiting.open_runs
    waiting.close()
    if left:  # of no source yet: one that delivers them, and ends, has them closed
        theatre.feed(ScriptedSource(theatre, partial(begin_again, left)))


def begin_again(runs: Sequence[str], stage: Stage) -> None:
    for uid in runs:
        stage.send("start", {"uid": uid, "time": 1.0})


class Port:
    """A publisher on loopback, and a node that listens to it on a thread of its own."""

    def __init__(self, theatre: Theatre) -> None:
        self._theatre = theatre
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.sndhwm = 0
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.source = ZmqDocuments(f"zmq://127.0.0.1:{port}")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=theatre.feed, args=(self.source, self._stopping))

    def __enter__(self) -> Stage:
        self._thread.start()
        assert self._socket.poll(1000 * LIMIT)
        assert self._socket.recv() == b"\1"  # somebody listens, to everything
        stage = self._theatre.stage(self._send)
        stage.raw = lambda *parts: self._socket.send_multipart(parts)
        return stage

    def __exit__(self, *_: object) -> None:
        wait_for(lambda: "good" in self._theatre.sink.accounts)
        self._stopping.set()
        self._thread.join(LIMIT)
        self._context.destroy(linger=0)
        assert not self._thread.is_alive()

    def _send(self, name: str, doc: Any) -> None:
        self._socket.send(b" " + name.encode() + b" " + encode(doc))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()
