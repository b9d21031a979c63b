"""What nobody foresaw: the threads of the sink go on, and say what happened."""

import itertools
from dataclasses import replace

from sinks_support import account_of, indices_in, mask_of, masks_of, run_info, until

from ptychoseg_stream.sinks.connection import Unavailable
from ptychoseg_stream.sinks.spool import waiting
from ptychoseg_stream.sinks.tiled import TiledSink


class Odd(Exception):
    """One that cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError


def test_an_unforeseen_error_on_the_way_to_tiled_sends_the_run_to_the_spool_until_it_is_gone(
    root, options, spool, make_sink, caplog
):
    turn = itertools.count()

    def odd():
        if next(turn) < 3:
            raise Odd
        return root

    sink: TiledSink = make_sink(options, odd)
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(20)))
    sink.close("raw-1", account_of(20))
    assert sink.drain(30)
    assert until(lambda: sink.settled("raw-1"))
    assert until(lambda: "cannot bring masks to Tiled: Odd" in sink.fault())
    assert "please report it" in sink.fault()
    assert until(lambda: sink.address("raw-1").startswith("http"))
    stream = root[options.container][sink.derived_uid("raw-1")]["primary"].base
    assert indices_in(stream["mask"].read()) == list(range(20))
    assert until(lambda: not waiting(spool))


def test_a_mask_of_which_no_row_can_be_made_spoils_its_own_run_and_no_other(
    root, options, make_sink, caplog
):
    sink: TiledSink = make_sink(options)
    for uid in ("raw-1", "raw-2"):
        sink.open(run_info(uid))
    sink.write("raw-1", masks_of(range(20)))
    assert until(lambda: sink.stored("raw-1") == 20)
    sink.write("raw-1", [mask_of(20), mask_of(21, shift=("not", "numbers")), mask_of(22)])
    assert until(lambda: "rows of run raw-1 from 20 on" in sink.fault())
    assert "could not convert string to float" in sink.fault()
    for index in range(23, 40):
        sink.write("raw-1", [mask_of(index)])
        sink.write("raw-2", [mask_of(index - 23, "raw-2")])
    for uid, rows in (("raw-1", 40), ("raw-2", 17)):
        sink.close(uid, account_of(rows))
    assert until(lambda: sink.settled("raw-2"))
    assert not sink.drain(30)  # not all that was given is there, and it says so
    assert not sink.settled("raw-1")  # its journal stays
    assert until(lambda: sink._desk.held == 0)
    runs = root[options.container]
    stop = runs[sink.derived_uid("raw-1")].stop
    assert stop["exit_status"] == "fail"
    assert stop["account"]["dropped"] == 20
    assert "could not convert string to float" in stop["reason"]
    other = runs[sink.derived_uid("raw-2")]["primary"].base["mask"].read()
    assert indices_in(other) == list(range(17))


def test_rows_that_are_dropped_within_a_long_hole_are_all_counted(
    root, options, spool, make_sink, caplog
):
    """Tiled is gone, the disk is full, and memory takes a few batches only."""
    there: list[bool] = []

    def client():
        if not there:
            raise Unavailable("not yet")
        return root

    small = replace(options, batch_rows=4, queue_bytes=16 * 6 * 8 * 3 * 4, arrays=("mask",))
    sink: TiledSink = make_sink(small, client, spool=replace(spool, min_free_bytes=1 << 60))
    sink.open(run_info())
    sink.write("raw-1", [mask_of(0)])
    assert until(lambda: "are not safe" in sink.fault())
    sink.write("raw-1", [mask_of(1500)])
    assert until(lambda: sink._runs["raw-1"].dropped_rows > 0)
    sink.close("raw-1", account_of(1501))
    there.append(True)
    assert until(lambda: sink._runs["raw-1"].ended)
    stop = root[options.container][sink.derived_uid("raw-1")].stop
    assert stop["num_events"]["primary"] + stop["account"]["dropped"] == 1501
    assert until(lambda: sink._desk.held == 0)
