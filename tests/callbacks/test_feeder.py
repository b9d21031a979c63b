"""A source on a thread of its own, and the loop on the thread that calls."""

import os
import signal
import threading
from pathlib import Path

import pytest
from callbacks_targets import CountingTarget, ListSource, documents
from ptychoseg_callbacks.feeder import FeedOptions, feed, stop_on_signals
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.queueing.waiting import OverloadOptions

from ptychoseg_stream.errors import SourceError
from ptychoseg_stream.node.spool import SpoolOptions


@pytest.fixture
def journals(tmp_path: Path) -> Journals:
    return Journals(SpoolOptions(str(tmp_path / "spool"), min_free_bytes=0))


def test_source_is_processed_to_its_end(journals: Journals) -> None:
    target, source = CountingTarget(), ListSource([*documents("a", 5), *documents("b", 3)])
    fed = feed(target, source, Inbox(journals))
    assert [run.marks for run in target.runs] == [[0, 1, 2, 3, 4], [0, 1, 2]]
    assert [run.end for run in target.runs] == ["success", "success"]
    assert (fed.documents, fed.duplicates, fed.resumed) == (14, 0, 0)
    assert fed.exhausted
    assert fed.complete
    assert fed.vitals.received == 8
    assert source.numbers == list(range(1, 15))
    assert source.told[-1] == 14
    assert target.was_shut_down


def test_run_without_a_stop_document_is_closed_when_the_source_ends(journals: Journals) -> None:
    target = CountingTarget()
    feed(target, ListSource(documents("a", 3)[:-1]), Inbox(journals))
    (run,) = target.runs
    assert run.marks == [0, 1, 2]
    assert run.end == "the source ended before the stop document came"


def test_replay_that_ends_closes_what_it_delivered_and_leaves_the_rest(journals: Journals) -> None:
    mine, other, whole = documents("mine", 3)[:-1], documents("other", 4)[:-1], documents("c", 2)
    dead = Inbox(journals)
    for name, doc in [*mine[:3], *other, *whole]:
        dead.put(name, doc)
    dead.close()
    target = CountingTarget()
    fed = feed(target, ListSource(mine), Inbox(journals))
    ends = {run.raw: run.end for run in target.runs}
    why = "the source ended before the stop document came"
    assert ends == {"mine": why, "other": "", "c": "success"}
    assert target.was_suspended
    assert (fed.resumed, fed.left, fed.exhausted) == (3, 1, True)
    target = CountingTarget()
    fed = feed(target, ListSource(documents("other", 4)), Inbox(journals))
    (run,) = target.runs
    assert (run.raw, run.marks, run.end) == ("other", [0, 1, 2, 3], "success")
    assert fed.left == 0


def test_run_of_which_nothing_new_is_delivered_is_closed_all_the_same(journals: Journals) -> None:
    docs = documents("a", 3)[:-1]
    dead = Inbox(journals)
    for name, doc in docs:
        dead.put(name, doc)
    dead.close()
    target = CountingTarget()
    fed = feed(target, ListSource(docs), Inbox(journals))
    assert (fed.duplicates, fed.left) == (len(docs), 0)
    assert target.runs[0].end == "the source ended before the stop document came"


def test_source_that_is_read_again_from_its_beginning_skips_what_the_dead_process_had_finished(
    journals: Journals,
) -> None:
    done, cut = documents("done", 3), documents("cut", 4)
    dead = Inbox(journals)
    for name, doc in cut[:3]:
        dead.put(name, doc)
    feed(CountingTarget(), ListSource(done), Inbox(journals, resume=False))
    dead.close()
    target = CountingTarget()
    fed = feed(target, ListSource([*done, *cut]), Inbox(journals))  # the same command again
    (run,) = target.runs
    assert (run.raw, run.marks, run.end) == ("cut", [0, 1, 2, 3], "success")
    assert fed.duplicates == len(done) + 3
    again = CountingTarget()
    feed(again, ListSource(done), Inbox(journals))  # nothing was cut off: it is meant
    assert [run.marks for run in again.runs] == [[0, 1, 2]]


def test_feed_that_is_stopped_leaves_its_open_runs_to_the_next_one(journals: Journals) -> None:
    docs = documents("a", 6)
    stopping = threading.Event()
    source = ListSource(docs[:5], waits=True)

    def stop() -> None:  # at the first event, when all five are there
        assert source.delivered.wait(60)
        stopping.set()

    first = CountingTarget(stop)
    fed = feed(first, source, Inbox(journals), stopping)
    assert not fed.exhausted
    assert first.was_suspended
    assert first.was_shut_down
    assert first.runs[0].end == ""

    second = CountingTarget()
    fed = feed(second, ListSource(docs, redelivers=True), Inbox(journals))
    (run,) = second.runs
    assert (run.marks, run.resumed, run.end) == ([0, 1, 2, 3, 4, 5], True, "success")
    assert run.derived == first.runs[0].derived
    assert (fed.resumed, fed.duplicates) == (1, 5)

    third = CountingTarget()
    fed = feed(third, ListSource(docs, redelivers=True), Inbox(journals))
    assert third.runs == []
    assert fed.duplicates == len(docs)


def test_stopped_feed_does_not_label_for_longer_than_it_may(journals: Journals) -> None:
    stopping = threading.Event()
    target = CountingTarget(stopping.set)
    options = FeedOptions(stop_timeout=0.0)
    feed(target, ListSource(documents("a", 50), waits=True), Inbox(journals), stopping, options)
    assert target.runs[0].marks == [0]
    later = CountingTarget()
    feed(later, ListSource([]), Inbox(journals))
    delivered = len(later.runs[0].marks)  # the source may have been stopped before its end
    assert later.runs[0].marks == list(range(delivered))
    assert delivered > 1


def test_source_that_cannot_be_used_is_an_error_and_open_runs_are_kept(journals: Journals) -> None:
    target = CountingTarget()
    source = ListSource(documents("a", 3)[:-1], error=SourceError("no such address: tcp://x"))
    with pytest.raises(SourceError, match="no such address"):
        feed(target, source, Inbox(journals))
    assert target.runs[0].marks == [0, 1, 2]
    assert target.was_suspended
    assert target.was_shut_down
    assert len(journals.unfinished()) == 1


def test_source_that_breaks_is_a_source_error_too(journals: Journals) -> None:
    target = CountingTarget()
    with pytest.raises(SourceError, match="ZeroDivisionError: a bug"):
        feed(target, ListSource([], error=ZeroDivisionError("a bug")), Inbox(journals))
    assert target.was_shut_down


def test_source_waits_for_a_slow_target_where_the_profile_says_so(journals: Journals) -> None:
    source = ListSource(documents("a", 100))
    ahead: list[int] = []
    target = CountingTarget(lambda: ahead.append(len(source.numbers) - len(ahead)))
    feed(target, source, Inbox(journals, OverloadOptions("wait", documents=4)))
    assert target.runs[0].marks == list(range(100))
    assert max(ahead) <= 8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_a_feed(journals: Journals, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stopping = threading.Event()
    source = ListSource(documents("a", 3)[:-1], waits=True)

    def stop() -> None:
        assert source.delivered.wait(60)
        if not stopping.is_set():
            os.kill(os.getpid(), number)

    target = CountingTarget(stop)
    with stop_on_signals(stopping):
        feed(target, source, Inbox(journals), stopping)
    assert target.was_suspended
    assert target.runs[0].marks == [0, 1, 2]
    assert signal.getsignal(number) is before


def test_negative_time_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^stop_timeout"):
        FeedOptions(stop_timeout=-1)
