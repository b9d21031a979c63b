"""Rows of a table that reach Tiled late, through a proxy that holds one request back."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy
from sinks_support import account_of, indices_in, masks_of, run_info, until

from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.sinks.connection import Unanswered
from ptychoseg_stream.sinks.courier import Courier
from ptychoseg_stream.sinks.derived import Derived
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.ending import Ending
from ptychoseg_stream.sinks.late import Appends
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.route import Desk, Route
from ptychoseg_stream.sinks.rows import Intake
from ptychoseg_stream.sinks.spool import waiting
from ptychoseg_stream.sinks.tiled import TiledSink
from ptychoseg_stream.sinks.tiled_run import TiledRun
from ptychoseg_stream.sinks.upload import upload_all


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTiled]:
    with EmbeddedTiled(tmp_path_factory.mktemp("appends") / "tiled") as server:
        yield server


def an_append(method: str, path: str) -> bool:
    return method == "PATCH" and "/table/partition/" in path


def first_append() -> Callable[[str, str], bool]:
    turn = count()
    return lambda method, path: an_append(method, path) and next(turn) == 0


def passed_on(proxy: FaultyProxy) -> int:
    return sum(an_append(*request.split()) for request in proxy.requests)


def stream_of(server: EmbeddedTiled, options: TiledOptions, derived: str):
    return server.client()[options.container][derived]["primary"].base


def test_an_append_that_arrives_after_its_time_limit_leaves_every_row_once(server, options, spool):
    with FaultyProxy(server.uri) as proxy:
        mine = replace(options, uri=proxy.uri, timeout=4.0, append_timeout=4.0)
        sink = TiledSink(mine, spool, api_key=server.api_key)
        proxy.chosen, proxy.delay = first_append(), 6.0
        sink.open(run_info())
        sink.write("raw-1", masks_of(range(20)))
        sink.close("raw-1", account_of(20))
        assert until(lambda: sink._runs["raw-1"].ended)
        sink.shutdown()
        assert "does not answer (ReadTimeout" in sink.fault()
        assert passed_on(proxy) == 1  # the one that came late
    run = server.client()[options.container][sink.derived_uid("raw-1")]
    assert run["primary"].base["internal"].read().seq_num.tolist() == list(range(1, 21))
    assert indices_in(run["primary"].base["mask"].read()) == list(range(20))
    assert run.stop["exit_status"] == "success"
    assert "doubled" not in run.stop["account"]


def test_an_append_may_take_longer_than_other_requests(server, options, spool):
    with FaultyProxy(server.uri) as proxy:
        mine = replace(options, uri=proxy.uri, timeout=2.0, append_timeout=20.0)
        sink = TiledSink(mine, spool, api_key=server.api_key)
        proxy.chosen, proxy.delay = first_append(), 3.0
        sink.open(run_info())
        sink.write("raw-1", masks_of(range(20)))
        sink.close("raw-1", account_of(20))
        assert until(lambda: sink._runs["raw-1"].ended)
        sink.shutdown()
        assert "ReadTimeout" not in sink.fault()
        assert passed_on(proxy) == 1


def test_rows_that_came_twice_all_the_same_are_counted_and_the_run_is_completed(
    server, options, spool, caplog
):
    uid = str(uuid.uuid4())
    with FaultyProxy(server.uri) as proxy:
        hasty = replace(options, uri=proxy.uri, timeout=0.5, append_timeout=0.5)
        first = TiledSink(hasty, spool, api_key=server.api_key)
        proxy.chosen, proxy.delay = first_append(), 5.0
        first.open(replace(run_info(), derived=uid))
        first.write("raw-1", masks_of(range(20)))
        assert until(lambda: passed_on(proxy) > 1)
        assert until(lambda: len(stream_of(server, options, uid)["internal"].read()) == 40)
        first.shutdown()
        second = TiledSink(replace(options, uri=server.uri), spool, api_key=server.api_key)
        second.open(replace(run_info(), derived=uid, resumed=True))
        second.write("raw-1", masks_of(range(15, 30)))
        second.close("raw-1", account_of(30))
        assert until(lambda: second._runs["raw-1"].ended)
        second.shutdown()
    stream = stream_of(server, options, uid)
    table = stream["internal"].read()
    assert sorted(set(table.seq_num)) == list(range(1, 31))
    assert len(table) == 50
    assert indices_in(stream["mask"].read()) == list(range(30))
    stop = server.client()[options.container][uid].stop
    assert stop["account"]["doubled"] == 20
    assert stop["exit_status"] == "fail"
    assert "20 rows of its tables are there twice" in stop["reason"]
    assert "Run raw-1: 20 rows of its tables are there twice" in caplog.text


def test_who_goes_on_with_a_run_waits_for_rows_that_a_dead_process_sent(server, options, spool):
    uid = str(uuid.uuid4())
    with FaultyProxy(server.uri) as proxy:
        mine = replace(options, uri=proxy.uri, timeout=6.0, append_timeout=6.0)
        dead = TiledSink(mine, spool, api_key=server.api_key)
        proxy.chosen, proxy.delay = first_append(), 3.0
        dead.open(replace(run_info(), derived=uid))
        dead.write("raw-1", masks_of(range(20)))
        assert until(lambda: spool.appends.joinpath(uid).exists())
        # As after a kill: the rows are on their way, and nobody waits for the answer.
        second = TiledSink(replace(mine, uri=server.uri), spool, api_key=server.api_key)
        second.open(replace(run_info(), derived=uid, resumed=True))
        second.write("raw-1", masks_of(range(15, 30)))
        second.close("raw-1", account_of(30))
        assert until(lambda: second._runs["raw-1"].ended)
        assert passed_on(proxy) == 1
        second.shutdown()
        dead.shutdown()
    run = server.client()[options.container][uid]
    assert run["primary"].base["internal"].read().seq_num.tolist() == list(range(1, 31))
    assert "doubled" not in run.stop["account"]
    assert list(spool.appends.iterdir()) == []


def test_an_upload_waits_for_rows_that_a_dead_process_sent(server, options, spool):
    lost = replace(options, uri=server.uri, timeout=2.0, append_timeout=2.0)
    with FaultyProxy(server.uri) as proxy:
        proxy.chosen, proxy.delay = first_append(), 3.0
        sink = TiledSink(replace(lost, uri=proxy.uri), spool, api_key=server.api_key)
        sink.open(run_info())
        sink.write("raw-1", masks_of(range(20)))
        sink.close("raw-1", account_of(20))
        assert until(lambda: "ReadTimeout" in sink.fault() and sink.settled("raw-1"))
        sink.shutdown()
        assert [path.name for path in spool.appends.iterdir()] == [sink.derived_uid("raw-1")]
        (sent,) = upload_all(lost, spool, server.api_key, 60.0)
    assert sent.why == ""
    table = stream_of(server, options, sent.derived)["internal"].read()
    assert table.seq_num.tolist() == list(range(1, 21))
    assert list(spool.appends.iterdir()) == []


def test_a_mark_in_the_future_or_a_disk_that_takes_none_keeps_nothing_back(spool, tmp_path: Path):
    appends = Appends(spool, TiledOptions(timeout=1.0, append_timeout=5.0))
    with pytest.raises(Unanswered), appends.under_way("a"):
        raise Unanswered("does not answer")
    later = time.time() + 3600
    os.utime(spool.appends / "a", (later, later))
    assert appends.patience("a") == 5.0
    os.utime(spool.appends / "a", (0, 0))
    assert appends.patience("a") == 0.0
    assert appends.patience("unknown") == 0.0
    tmp_path.joinpath("file").write_text("")
    nowhere = Appends(SpoolOptions(str(tmp_path / "file")), TiledOptions())
    with nowhere.under_way("a"):
        pass
    assert nowhere.patience("a") == 0.0


def test_a_spool_folder_is_empty_when_every_row_is_there(server, options, tmp_path: Path):
    """What waits for a pause to end waits on disk, and is gone afterwards."""
    spool = SpoolOptions(str(tmp_path / "spool"), min_free_bytes=0)
    with FaultyProxy(server.uri) as proxy:
        mine = replace(options, uri=proxy.uri, timeout=1.0, append_timeout=1.0)
        sink = TiledSink(mine, spool, api_key=server.api_key)
        proxy.chosen, proxy.delay = first_append(), 1.5
        sink.open(run_info())
        sink.write("raw-1", masks_of(range(20)))
        assert until(lambda: sink.stored("raw-1") == 20)
        assert [run.rows for run in waiting(spool)] == [20]
        sink.close("raw-1", account_of(20))
        assert until(lambda: sink._runs["raw-1"].ended and not waiting(spool))
        sink.shutdown()
    assert len(stream_of(server, options, sink.derived_uid("raw-1"))["internal"].read()) == 20


def test_rows_that_belong_to_the_end_of_a_run_are_not_sent_again_at_once(spool) -> None:
    class Cut(TiledRun):
        """Gives rows to arrays that are ahead of their table; Tiled does not answer."""

        rows, finished = 0, False

        def __init__(self) -> None:
            pass

        def end(self, ending: Ending, rows: int = 0) -> None:
            raise Unanswered("does not answer")

    courier = Courier(Desk(spool), pytest.fail, "http://127.0.0.1:9", TiledOptions())
    route = Route(Derived.of(run_info(), lambda: 0.0, ""), Intake())
    route.tiled, route.ending = Cut(), Ending(account_of(0), 0.0)
    with pytest.raises(Unanswered):
        courier.advance(route)
    assert route.quiet_until > 0.0
