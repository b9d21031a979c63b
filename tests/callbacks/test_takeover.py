"""Whether a run is gone on with: never are rows of two settings in one derived run."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from callbacks_support import ListSink, ThresholdLabeller
from callbacks_targets import ListSource, documents
from ptychoseg_callbacks.feeder import feed
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.runs.resume import Checkpoint
from ptychoseg_callbacks.segmentation import Segmentation, SegmentationOptions

from ptychoseg_stream.errors import CheckpointError
from ptychoseg_stream.node.ports import Account, RunInfo
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.science.frame import Mask

SETTINGS = {"node": "a", "frames": "b"}


class Shelf(ListSink):
    """Keeps rows by derived run, over several lives; rows that come again are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, list[Mask]] = {}
        self.ends: dict[str, Account] = {}
        self.opened: list[RunInfo] = []

    def open(self, run: RunInfo) -> None:
        self.runs[run.uid] = run
        self.accounts.pop(run.uid, None)
        self.opened.append(run)
        self.masks[run.uid] = self.rows.setdefault(run.derived, [])

    def write(self, run_uid: str, masks: Sequence[Mask]) -> None:
        known = len(self.masks[run_uid])
        super().write(run_uid, [mask for mask in masks if mask.frame.index >= known])

    def close(self, run_uid: str, account: Account) -> None:
        super().close(run_uid, account)
        self.ends[self.runs[run_uid].derived] = account


class Choosy(ThresholdLabeller):
    """Refuses to go on from any frame but the first."""

    def open(self, run_uid: str, checkpoint: bytes = b"") -> None:
        if int(checkpoint or b"0"):
            raise CheckpointError("it was written by another version")
        super().open(run_uid)


@dataclass
class Lives:
    """A node that lives several times, with one disk and one store."""

    spool: SpoolOptions
    sink: Shelf = field(default_factory=Shelf)
    docs: list[Any] = field(default_factory=list)

    def live(
        self,
        count: int,
        settings: Mapping[str, str] = SETTINGS,
        target: str = "here",
        labeller: Any = None,
    ) -> None:
        """Label the first `count` documents; without the last one, the node is then stopped."""
        stopping = threading.Event()
        source = ListSource(self.docs[:count], redelivers=True, waits=count < len(self.docs))

        def stop() -> None:
            assert source.delivered.wait(60)
            if source.waits:
                stopping.set()

        segmentation = Segmentation(
            labeller or ThresholdLabeller(),
            self.sink,
            lambda start: RunInfo("a", start, {}, settings=settings, target=target),
        )
        waiter = threading.Thread(target=stop)
        waiter.start()
        feed(segmentation, source, Inbox(Journals(self.spool)), stopping)
        waiter.join()

    def tamper(self, change: Callable[[bytes], bytes]) -> None:
        (path,) = self.spool.runs.glob("*/checkpoint")
        path.write_bytes(change(path.read_bytes()))

    @property
    def next(self) -> int:
        (path,) = self.spool.runs.glob("*/checkpoint")
        return Checkpoint.unpack(path.read_bytes()).next

    def indices(self) -> list[list[int]]:
        return [[mask.frame.index for mask in rows] for rows in self.sink.rows.values()]


@pytest.fixture
def lives(tmp_path: Path) -> Lives:
    docs = documents("a", 6)
    docs[1][1]["data_keys"] = {"image": {"source": "", "dtype": "array", "shape": [16, 16]}}
    return Lives(SpoolOptions(str(tmp_path), min_free_bytes=0), docs=docs)


def check_beside(lives: Lives, reason: str) -> None:
    """Check that the old derived run has failed, and that a new one has all rows."""
    old, new = lives.sink.rows
    assert lives.indices() == [[0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]
    assert lives.sink.ends[old].exit_status == "fail"
    assert lives.sink.ends[old].reason == f"{reason}; labelled anew as {new}"
    end = lives.sink.ends[new]
    assert (end.exit_status, end.received, end.imbalance) == ("success", 6, "")
    assert not list(lives.spool.runs.glob("*/checkpoint"))


def test_the_same_settings_go_on_with_the_derived_run(lives: Lives) -> None:
    lives.live(6)
    assert lives.next == 4
    lives.live(9)
    assert lives.indices() == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    "changed", [{"frames": "c"}, {"node": ""}, {"version": "2"}], ids=lambda each: next(iter(each))
)
def test_other_settings_begin_a_new_derived_run_beside_the_old_one(
    lives: Lives, changed: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    lives.live(6)
    lives.live(9, {**SETTINGS, **changed})
    check_beside(lives, "the profile changed while the node was down")
    (old, _) = lives.sink.rows
    assert lives.sink.ends[old].received == 4
    assert f"(other than before: {next(iter(changed))})" in caplog.text


def test_settings_that_change_before_the_first_checkpoint_begin_a_new_run_too(
    lives: Lives,
) -> None:
    lives.live(2)
    assert lives.next == 0
    lives.live(9, {"node": "other"})
    assert lives.indices() == [[], [0, 1, 2, 3, 4, 5]]


def test_settings_that_change_again_begin_another_run_each_time(lives: Lives) -> None:
    lives.live(5)
    for n, node in enumerate("xyx"):
        lives.live(6 + n if n < 2 else 9, {"node": node})
    assert len(lives.sink.rows) == 4
    assert [each.exit_status for each in lives.sink.ends.values()] == ["fail"] * 3 + ["success"]


def test_another_place_leaves_the_old_derived_run_where_it_is(
    lives: Lives, caplog: pytest.LogCaptureFixture
) -> None:
    lives.live(6, target="masks at old")
    caplog.clear()
    lives.live(9, target="masks at new")
    old, new = lives.sink.rows
    assert lives.indices() == [[0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]
    assert set(lives.sink.ends) == {new}
    assert [run.derived for run in lives.sink.opened] == [old, new]
    assert f"The derived run {old} stays at masks at old, without an end" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:20],
        lambda data: b"12345678" + data[8:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data.replace(b"\n", b"\n0", 1),
    ],
    ids=["cut", "its first line", "what is remembered", "a checksum"],
)
def test_a_damaged_checkpoint_begins_a_new_derived_run(
    lives: Lives, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    lives.live(6)
    lives.tamper(damage)
    lives.live(9)
    check_beside(lives, "its checkpoint cannot be used")
    assert "it is damaged" in caplog.text


def test_a_checkpoint_that_is_damaged_twice_begins_two_new_runs(lives: Lives) -> None:
    lives.live(4)
    lives.tamper(lambda data: data[:20])
    lives.live(5)
    lives.tamper(lambda data: data[:21])
    lives.live(9)
    assert lives.indices() == [[0, 1], [0, 1, 2], [0, 1, 2, 3, 4, 5]]


def test_a_checkpoint_that_the_labeller_refuses_begins_a_new_derived_run(lives: Lives) -> None:
    lives.live(6)
    lives.live(9, labeller=Choosy())
    check_beside(lives, "its checkpoint cannot be used")


def test_what_is_damaged_before_the_first_checkpoint_is_labelled_again_in_the_same_run(
    lives: Lives, caplog: pytest.LogCaptureFixture
) -> None:
    lives.live(2)
    lives.tamper(lambda data: data[:-1])
    lives.live(9)
    assert lives.indices() == [[0, 1, 2, 3, 4, 5]]
    assert "labelled again from its first frame" in caplog.text


def test_without_any_checkpoint_rows_come_again_and_are_left_out(lives: Lives) -> None:
    lives.live(6)
    (path,) = lives.spool.runs.glob("*/checkpoint")
    path.unlink()
    lives.live(9)
    assert lives.indices() == [[0, 1, 2, 3, 4, 5]]


class Slow(Shelf):
    """Derived runs whose ending is under way, and not stored."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: set[str] = set()

    def settled(self, run_uid: str) -> bool:
        return run_uid not in self.under_way and super().settled(run_uid)

    def close(self, run_uid: str, account: Account) -> None:
        self.under_way.add(self.runs[run_uid].derived)
        super().close(run_uid, account)


def test_a_run_that_is_given_up_is_told_of_until_its_ending_is_stored(tmp_path: Path) -> None:
    docs = documents("a", 6)
    docs[1][1]["data_keys"] = {"image": {"source": "", "dtype": "array", "shape": [16, 16]}}
    sink = Slow()
    lives = Lives(SpoolOptions(str(tmp_path), min_free_bytes=0), sink, docs)
    lives.live(6)
    lives.live(6, {"node": "other"})
    old, new = sink.rows
    (path,) = lives.spool.runs.glob("*/checkpoint")
    assert Checkpoint.about(path.read_bytes()).derived == old  # killed now, it is closed again
    sink.under_way.clear()
    lives.live(6, {"node": "other"})
    sink.under_way.clear()
    assert [run.derived for run in sink.opened] == [old, old, new, old, new]
    lives.live(9, {"node": "other"})
    assert lives.indices() == [[0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]


class Refusing(ThresholdLabeller):
    """Cannot begin any run just now."""

    def open(self, run_uid: str, checkpoint: bytes = b"") -> None:
        raise RuntimeError("out of memory")


def test_a_run_that_the_labeller_cannot_open_now_is_gone_on_with_later(lives: Lives) -> None:
    lives.live(6)
    lives.live(6, labeller=Refusing())
    assert lives.sink.ends == {}
    lives.live(9)
    assert lives.indices() == [[0, 1, 2, 3, 4, 5]]
    (end,) = lives.sink.ends.values()
    assert end.exit_status == "success"


def test_runs_of_an_earlier_process_beyond_the_most_are_not_closed(tmp_path: Path) -> None:
    spool, sink = SpoolOptions(str(tmp_path), min_free_bytes=0), ListSink()
    names = [f"run {n}" for n in range(5)]
    for _ in range(2):
        docs = [] if sink.runs else [doc for name in names for doc in documents(name, 2)[:-1]]
        segmentation = Segmentation(
            ThresholdLabeller(),
            sink,
            lambda start: RunInfo(start["uid"], start, {}),
            SegmentationOptions(max_open_runs=2 if sink.runs else 16),
        )
        stopping = threading.Event()
        source = ListSource(docs, waits=True)
        stopper = threading.Timer(0.5, stopping.set)
        stopper.start()
        feed(segmentation, source, Inbox(Journals(spool)), stopping)
        stopper.join()
    assert sink.accounts == {}
    assert len(list(spool.runs.glob("*/run.json"))) == 5
