"""Two processes that share one spool folder and one Tiled: who sends what is left."""

import uuid
from dataclasses import replace

import pytest
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_callbacks.journals.journal import Journal
from sinks_support import account_of, indices_in, mask_of, masks_of, run_info, until
from tiled.client.container import Container

from ptychoseg_stream.errors import StoreError
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.sinks.connection import Unavailable
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.spool import SpoolFolder, waiting
from ptychoseg_stream.sinks.tiled import TiledSink
from ptychoseg_stream.sinks.upload import RESUMABLE, upload_all


@pytest.fixture
def journal(spool: SpoolOptions) -> Journal:
    """The journal of an open run, whose node has died."""
    journal = Journals(spool).create("raw-1")
    assert journal is not None
    journal.append("start", {"uid": "raw-1"}, 1.0, 0)
    journal.release()
    return journal


def leave_behind(options: TiledOptions, spool: SpoolOptions, derived: str, rows: int) -> None:
    """Do what a node does that cannot reach Tiled, and is killed."""

    def nobody() -> Container:
        raise Unavailable("nobody listens")

    sink = TiledSink(options, spool, nobody)
    sink.open(replace(run_info(), derived=derived))
    sink.write("raw-1", masks_of(range(rows)))
    assert until(lambda: sink.stored("raw-1") == rows)
    sink.shutdown()


def finish(journal: Journal, spool: SpoolOptions) -> None:
    (again,) = Journals(spool).unfinished()
    assert again.derived == journal.derived
    again.finish()


def test_masks_of_a_run_with_a_journal_are_left_to_the_node_that_goes_on_with_it(
    root, options, spool, make_sink, journal
):
    leave_behind(options, spool, journal.derived, 20)
    other: TiledSink = make_sink(options)
    other.open(run_info("raw-2"))
    other.write("raw-2", [mask_of(0, "raw-2")])
    other.close("raw-2", account_of(1))
    assert until(lambda: other._runs["raw-2"].ended)
    other.shutdown()
    (left,) = waiting(spool)
    assert (left.derived, left.busy, left.resumable) == (journal.derived, False, True)
    assert journal.derived not in root[options.container]
    heir: TiledSink = make_sink(options)
    heir.open(replace(run_info(), derived=journal.derived, resumed=True))
    assert heir.stored("raw-1") == 20
    heir.write("raw-1", masks_of(range(18, 30)))
    heir.close("raw-1", account_of(30))
    assert until(lambda: heir._runs["raw-1"].ended)
    stream = root[options.container][journal.derived]["primary"].base
    assert indices_in(stream["mask"].read()) == list(range(30))
    assert stream["internal"].read().seq_num.tolist() == list(range(1, 31))


def test_masks_of_a_run_that_goes_on_under_another_uid_are_left_too(
    root, options, spool, make_sink, journal
):
    """After other settings: its journal has the uid of the first derived run."""
    leave_behind(options, spool, str(uuid.uuid4()), 20)
    make_sink(options)
    (left,) = waiting(spool)
    assert (left.busy, left.resumable) == (False, True)


def test_once_the_journal_is_gone_the_next_node_sends_what_is_left(
    root, options, spool, make_sink, journal
):
    leave_behind(options, spool, journal.derived, 20)
    finish(journal, spool)
    make_sink(options)
    assert until(lambda: not waiting(spool))
    stream = root[options.container][journal.derived]["primary"].base
    assert indices_in(stream["mask"].read()) == list(range(20))


def test_upload_leaves_a_run_that_a_node_goes_on_with_and_says_so(root, options, spool, journal):
    leave_behind(options, spool, journal.derived, 20)
    (left,) = upload_all(options, spool, "", 30.0, lambda: root)
    assert (left.raw, left.derived, left.rows, left.why) == (
        "raw-1",
        journal.derived,
        20,
        RESUMABLE,
    )
    assert f"{left.path} still waits: the run has not ended" in str(left)
    finish(journal, spool)
    (sent,) = upload_all(options, spool, "", 30.0, lambda: root)
    assert (sent.rows, sent.why) == (20, "")
    assert waiting(spool) == []


def test_a_run_whose_folder_a_living_process_holds_is_not_opened_a_second_time(
    options, spool, make_sink, journal
):
    leave_behind(options, spool, journal.derived, 20)
    holder = SpoolFolder(spool.masks / journal.derived)
    sink: TiledSink = make_sink(options)
    run = replace(run_info(), derived=journal.derived, resumed=True)
    with pytest.raises(StoreError, match=r"raw-1 is not gone on with: .* belongs to another proce"):
        sink.open(run)
    with pytest.raises(StoreError, match="is not open"):
        sink.write("raw-1", masks_of(range(20, 30)))
    holder.release()
    sink.open(run)
    assert sink.stored("raw-1") == 20


def test_the_same_raw_run_labelled_twice_is_asked_for_by_its_derived_uid(root, options, make_sink):
    sink: TiledSink = make_sink(options)
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    sink.open(replace(run_info(), derived=first))
    sink.write("raw-1", masks_of(range(20)))
    sink.close("raw-1", account_of(20))
    sink.open(replace(run_info(), derived=second))
    sink.write("raw-1", masks_of(range(5)))
    assert until(lambda: sink.settled(first))
    assert until(lambda: sink.stored(second) == 5)
    assert (sink.stored(first), sink.settled(second), sink.settled("raw-1")) == (20, False, False)
    assert first in sink.address(first)
    assert second in sink.address("raw-1")
