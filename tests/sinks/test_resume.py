"""Runs that a killed process began: real processes, a real server, kill -9."""

import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from faulty_proxy import FaultyProxy
from sinks_support import (
    account_of,
    alarm_of,
    classes_of,
    indices_in,
    mask_of,
    masks_of,
    run_info,
    stage_of,
    until,
)

from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.sinks.batch import make_batch
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.rows import Row
from ptychoseg_stream.sinks.side_tables import Notebook
from ptychoseg_stream.sinks.spool import waiting
from ptychoseg_stream.sinks.tiled import TiledSink
from ptychoseg_stream.sinks.tiled_run import TiledRun

ROWS = 60


def resumed(uid: str, **more):
    return replace(run_info(), derived=uid, began=5.0, resumed=True, **more)


def test_a_resumed_run_keeps_its_uid_and_leaves_out_rows_that_are_stored(root, options, make_sink):
    first: TiledSink = make_sink(options)
    uid = str(uuid.uuid4())
    first.open(replace(run_info(), derived=uid, began=5.0))
    first.write("raw-1", [mask_of(0, alarms=(alarm_of(0),)), *masks_of(range(1, 20))])
    assert first.drain(30)
    first.shutdown()  # without an end, as if it had been killed
    second: TiledSink = make_sink(options)
    second.open(resumed(uid))
    assert until(lambda: second.stored("raw-1") == 20)
    again = alarm_of(0, value=0.1 + 0.2, score=1 / 3)  # of a process that rounded otherwise
    late = mask_of(14, alarms=(again, alarm_of(14)))
    second.write("raw-1", [late, *masks_of(range(15, 30))])
    second.close("raw-1", account_of(30))
    assert second.drain(30)
    run = root[options.container][uid]
    stream = run["primary"].base
    assert indices_in(stream["mask"].read()) == list(range(30))
    assert stream["internal"].read().seq_num.tolist() == list(range(1, 31))
    assert run["alarms"].base["internal"].read().raw_index.tolist() == [0, 14]
    assert run.start["time"] == 5.0
    assert run.stop["account"]["repeated"] == 0
    assert len(root[options.container]) == 1


@pytest.mark.parametrize("dead_after", ["arrays", "notes", "table"])
def test_a_crash_between_any_two_requests_leaves_every_row_and_note_once(
    root, options, make_sink, monkeypatch, dead_after
):
    """What the killed process wrote of rows that are not in the table is written over."""
    uid = str(uuid.uuid4())
    first: TiledSink = make_sink(options)
    first.open(replace(run_info(), derived=uid, began=5.0))
    first.write("raw-1", masks_of(range(5)))
    assert first.drain(30)
    first.shutdown()
    tiled: TiledRun = TiledRun(
        root[options.container], first._runs["raw-1"].derived, options, first._runs["raw-1"].tiled
    )
    noted = [mask_of(5, alarms=(alarm_of(5),), stages=(stage_of(0),)), *masks_of(range(6, 12))]
    tiled.begin()
    part = batch_of(noted)
    assert tiled.rows == 5
    sized = tiled._put_arrays(part)
    if dead_after != "arrays":
        tiled._append_notes(sized)
    if dead_after == "table":
        tiled._tables["primary"].append(sized.table)
    second: TiledSink = make_sink(options)
    second.open(resumed(uid))
    second.write("raw-1", [mask_of(4), *noted[:4]])
    assert second.drain(30)
    second.write("raw-1", [*noted[4:], mask_of(12)])
    second.close("raw-1", account_of(13))
    assert second.drain(30)
    run = root[options.container][uid]
    assert indices_in(run["primary"].base["mask"].read()) == list(range(13))
    assert run["primary"].base["valid_bits"].shape[0] == 13
    assert run["primary"].base["internal"].read().raw_index.tolist() == list(range(13))
    assert run["alarms"].base["internal"].read().raw_index.tolist() == [5]
    assert run["stages"].base["internal"].read().stage.tolist() == [0]


def batch_of(masks):

    rows = [Row(mask, 6.0) for mask in masks]
    notebook = Notebook()
    notebook.take(rows)
    first = masks[0].frame.index
    return make_batch(first, rows, (6, 8), ("mask", "valid_bits"), notebook.tear_off())


def test_rows_of_arrays_that_nobody_comes_back_for_are_told_lost_at_the_end(
    root, options, make_sink
):
    uid = str(uuid.uuid4())
    first: TiledSink = make_sink(options)
    first.open(replace(run_info(), derived=uid))
    first.write("raw-1", masks_of(range(5)))
    assert first.drain(30)
    first.shutdown()
    tiled = TiledRun(root[options.container], first._runs["raw-1"].derived, options)
    tiled.begin()
    tiled._put_arrays(batch_of(masks_of(range(5, 9))))
    second: TiledSink = make_sink(options)
    second.open(resumed(uid))
    second.close("raw-1", account_of(5))
    assert second.drain(30)
    stream = root[options.container][uid]["primary"].base
    assert indices_in(stream["mask"].read()) == [0, 1, 2, 3, 4, -1, -1, -1, -1]
    assert stream["internal"].read().status.tolist() == ["ok"] * 5 + ["lost"] * 4
    assert "ended before" in stream["internal"].read().reason.tolist()[-1]


def test_a_run_with_a_stop_document_is_finished_and_nothing_is_written_again(
    root, options, make_sink
):
    uid = str(uuid.uuid4())
    first: TiledSink = make_sink(options)
    first.open(replace(run_info(), derived=uid))
    first.write("raw-1", masks_of(range(5)))
    first.close("raw-1", account_of(5))
    assert first.drain(30)
    second: TiledSink = make_sink(options)
    second.open(resumed(uid))
    second.write("raw-1", masks_of(range(9)))
    second.close("raw-1", account_of(9))
    assert second.drain(30)
    assert second.settled("raw-1")
    run = root[options.container][uid]
    assert indices_in(run["primary"].base["mask"].read()) == list(range(5))
    assert run.stop["account"]["received"] == 5


def test_a_run_resumed_while_tiled_is_down_goes_on_in_the_spool_from_any_row(
    root, options, spool, make_sink
):
    uid = str(uuid.uuid4())
    first: TiledSink = make_sink(options)
    first.open(replace(run_info(), derived=uid))
    first.write("raw-1", masks_of(range(20)))
    assert first.drain(30)
    first.shutdown()
    gone = replace(options, uri="http://127.0.0.1:1")
    second = TiledSink(gone, spool)
    second.open(resumed(uid))
    second.write("raw-1", masks_of(range(13, 25)))
    assert second.drain(30)
    assert second.stored("raw-1") == 25
    second.shutdown()  # killed again
    third: TiledSink = make_sink(options)
    third.open(resumed(uid))
    assert third.stored("raw-1") == 25
    third.write("raw-1", masks_of(range(10, 40)))
    third.close("raw-1", account_of(40))
    assert third.drain(30)
    assert until(lambda: third.address("raw-1").startswith("http"))
    stream = root[options.container][uid]["primary"].base
    assert indices_in(stream["mask"].read()) == list(range(40))
    assert stream["internal"].read().raw_index.tolist() == list(range(40))


# --- kill -9 --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedTiled]:
    with EmbeddedTiled() as server:
        yield server


def start(server_uri: str, key: str, folder: Path, *arguments: object) -> "subprocess.Popen[str]":
    here = Path(__file__).parent
    command = [sys.executable, str(here / "crashing_writer.py"), server_uri, str(folder)]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TILED_API_KEY": key, "PYTHONWARNINGS": "ignore"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_process_killed_at_any_moment_leaves_a_run_that_the_next_one_completes(
    server, tmp_path, seed
):
    """Half of them while Tiled is down, so that the spool is what is left."""
    dice = random.Random(seed)
    uid, container = str(uuid.uuid4()), f"killed/{seed}"
    with FaultyProxy(server.uri) as proxy:
        arguments = (server.api_key, tmp_path / "spool", container, uid)
        first = start(proxy.uri, *arguments, 0, ROWS, "new")
        assert first.stdout is not None
        last = 0
        dies_at = dice.randint(1, ROWS - 10)
        for line in first.stdout:
            if not line.strip().isdecimal():
                break
            last = int(line)
            if last >= 8 and seed % 2:
                proxy.status = dice.choice([-1, 503, 401])
            if last >= dies_at:
                break
        first.send_signal(signal.SIGKILL)
        first.wait()
        first.stdout.close()
        proxy.mend()
        again = dice.randint(0, last)
        second = start(proxy.uri, *arguments, again, ROWS, "resumed")
        assert second.communicate(timeout=120)[0].split()[-2:] == ["settled", "sent"]
    run = server.client()[container][uid]
    stream = run["primary"].base
    masks = stream["mask"].read()
    assert np.array_equal(masks, [classes_of(index) for index in range(ROWS)])
    assert stream["valid_bits"].shape[0] == ROWS
    assert stream["internal"].read().seq_num.tolist() == list(range(1, ROWS + 1))
    assert run["alarms"].base["internal"].read().raw_index.tolist() == list(range(0, ROWS, 5))
    assert run["stages"].base["internal"].read().stage.tolist() == list(range(ROWS // 10))
    assert run.stop["num_events"] == {"primary": ROWS, "alarms": ROWS // 5, "stages": ROWS // 10}
    assert waiting(SpoolOptions(str(tmp_path / "spool"))) == []
