"""Silent runs are closed, and what comes of them after all is counted and told."""

import logging

import pytest
from callbacks_support import ListSink, ThresholdLabeller, describe
from callbacks_targets import documents
from ptychoseg_callbacks.loop import Received
from ptychoseg_callbacks.runs.strays import Strays
from ptychoseg_callbacks.segmentation import Segmentation, SegmentationOptions


class Line:
    """A pipeline whose time is set by hand; a run is silent after 10 s."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sink = ListSink()
        options = SegmentationOptions(idle_timeout=10.0)
        self.segmentation = Segmentation(
            ThresholdLabeller(), self.sink, describe, options, monotonic=lambda: self.now
        )

    def process(self, name: str, doc: object) -> None:
        """Take a document while others wait behind it."""
        for _ in self.segmentation.steps(Received(name, doc, 0.0)):
            self.segmentation.tick()
        self.segmentation.tick()

    def idle(self) -> None:
        self.segmentation.flush()
        self.segmentation.tick()


def test_run_whose_documents_wait_behind_those_of_another_is_not_silent() -> None:
    line = Line()
    a, b = documents("a", 4), documents("b", 40)
    line.process(*a[0])
    for each in b:  # a backlog that takes 42 s
        line.process(*each)
        line.now += 1.0
    for each in a[1:]:  # they waited behind it
        line.process(*each)
    line.idle()
    assert {uid: each.exit_status for uid, each in line.sink.accounts.items()} == {
        "a": "success",
        "b": "success",
    }


def test_run_of_which_nothing_waited_is_silent_when_all_else_is_done() -> None:
    line = Line()
    line.process(*documents("a", 1)[0])
    for each in documents("b", 40):
        line.process(*each)
        line.now += 1.0
    assert list(line.sink.accounts) == ["b"]
    line.idle()
    assert line.sink.accounts["a"].exit_status == "fail"
    assert line.sink.accounts["a"].reason == "the raw run went silent: no document for 10 s"


def test_documents_of_a_run_that_was_closed_are_counted_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = Line()
    docs = documents("a", 4)
    for each in docs[:4]:
        line.process(*each)
    line.now = 11.0
    line.idle()
    assert line.sink.accounts["a"].exit_status == "fail"
    caplog.clear()
    for each in docs[4:]:
        line.process(*each)
    assert line.segmentation.unknown == len(docs) - 4
    first, last = (record.getMessage() for record in caplog.records)
    assert first.startswith("run a: a event document came after it was closed (the raw run went ")
    assert "label it again with `ptychoseg replay`" in first
    assert last == f"run a: {len(docs) - 4} documents came after it was closed"
    caplog.clear()
    for each in docs:  # the same run again
        line.process(*each)
    assert line.sink.accounts["a"].exit_status == "success"
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_only_so_many_closed_runs_are_remembered(caplog: pytest.LogCaptureFixture) -> None:
    strays = Strays()
    for n in range(100):
        strays.closed(f"run {n}", "silent", [f"d{n}"])
    strays.note("event", {"descriptor": "d0"})
    strays.note("event", {"descriptor": "d99"})
    strays.note("resource", {"uid": "r"})  # of whom, nobody says
    assert strays.count == 3
    told = [record.getMessage().split(":")[0] for record in caplog.records]
    assert told == ["a event document belongs to no open run", "run run 99"]
