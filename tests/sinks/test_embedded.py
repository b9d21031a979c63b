"""The embedded server, and the sink against it over a real network."""

import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bluesky_tiled_plugins import subscribe_to_streams
from event_model import DocumentNames, schema_validators
from sinks_support import (
    account_of,
    alarm_of,
    bits_of,
    indices_in,
    mask_of,
    masks_of,
    read_spool,
    run_info,
    stage_of,
    until,
)
from tiled.client import from_uri

from ptychoseg_stream.errors import StoreError
from ptychoseg_stream.science.records import Quality
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.tiled import TiledSink


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedTiled]:
    with EmbeddedTiled() as server:
        yield server


@pytest.fixture
def options(options: TiledOptions, server: EmbeddedTiled) -> TiledOptions:
    return replace(options, uri=server.uri)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("ptychoseg_stream")]


def test_documents_of_a_run_are_valid_and_hold_no_key(server, options, spool):
    sink = TiledSink(options, spool, api_key=server.api_key)
    info = run_info(sample=f"a sample and {server.api_key}")
    sink.open(replace(info, processing={"command": ["x", f"--key={server.api_key}"]}))
    sink.write("raw-1", masks_of(range(33)))
    sink.close("raw-1", account_of(33))
    sink.shutdown()
    assert server.api_key not in sink.address("raw-1")
    client = from_uri(sink.address("raw-1"), api_key=server.api_key)
    with client.context:
        documents = list(client.documents())
    assert Counter(name for name, _ in documents) == {
        "start": 1,
        "descriptor": 1,
        "event": 33,
        "stop": 1,
    }
    assert [name for name, _ in documents][:3] == ["start", "descriptor", "event"]
    for name, document in documents:
        schema_validators[DocumentNames[name]].validate(dict(document))
    events = [document for name, document in documents if name == "event"]
    assert indices_in(np.array([event["data"]["mask"] for event in events])) == list(range(33))
    assert events[5]["timestamps"]["ring_area"] == 1005.0
    assert server.api_key not in json.dumps(documents)
    run = server.client()[options.container][sink.derived_uid("raw-1")]
    for node in (run, run["primary"].base, *run["primary"].base.values()):
        assert server.api_key not in json.dumps(node.item)
    assert server.api_key not in (server.folder / "server.log").read_text()
    assert server.api_key not in (server.folder / "config.json").read_text()


def test_documents_tell_bits_alarms_and_stages(server, options, spool):
    sink = TiledSink(options, spool, api_key=server.api_key)
    sink.open(run_info())
    sink.write("raw-1", [mask_of(0, valid_bits=bits_of(0), stages=(stage_of(0),))])
    sink.write("raw-1", [mask_of(1, quality=Quality(), alarms=(alarm_of(1),))])
    sink.close("raw-1", account_of(2))
    sink.shutdown()
    client = from_uri(sink.address("raw-1"), api_key=server.api_key)
    with client.context:
        documents = list(client.documents())
    for name, document in documents:
        schema_validators[DocumentNames[name]].validate(dict(document))
    streams = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    assert set(streams.values()) == {"primary", "alarms", "stages"}
    events = [
        (streams[doc["descriptor"]], doc["data"]) for name, doc in documents if name == "event"
    ]
    assert Counter(stream for stream, _ in events) == {"primary": 2, "alarms": 1, "stages": 1}
    assert documents[-1][1]["num_events"] == {"primary": 2, "alarms": 1, "stages": 1}
    frames = [data for stream, data in events if stream == "primary"]
    assert np.array_equal(frames[0]["valid_bits"], bits_of(0))
    assert (np.array(frames[1]["valid_bits"]) == 1).all()
    assert math.isnan(frames[1]["entropy"])
    told = dict(event for event in events if event[0] != "primary")
    assert told["alarms"]["text"] == "frame 1: the dose fell"
    assert math.isnan(told["alarms"]["expected"])
    assert told["stages"]["promoted"] is True


@pytest.mark.filterwarnings(r"ignore:connect\(\) must be used:DeprecationWarning")
def test_a_websocket_subscriber_sees_rows_arrive_in_order_and_is_told_the_end(
    server, options, spool
):
    sink = TiledSink(options, spool, api_key=server.api_key)
    sink.open(run_info())
    assert sink.drain(30)
    seen: list[tuple[int, list[int]]] = []

    def see(update) -> None:
        seen.append((update.update.offset[0], indices_in(update.data())))

    container = server.client()[options.container]
    with subscribe_to_streams(container, see, streams={"primary": "mask"}):
        for first in range(0, 40, 8):
            sink.write("raw-1", masks_of(range(first, first + 8)))
            assert until(lambda stop=first + 8: sum(len(rows) for _, rows in seen) >= stop)
        run = container[sink.derived_uid("raw-1")]
        closed: list[object] = []
        subscription = run.subscribe()
        ended = closed.append  # subscriptions hold callbacks weakly
        subscription.stream_closed.add_callback(ended)
        with subscription.start_in_thread(1):
            sink.close("raw-1", account_of(40))
            assert until(lambda: closed != [])
    sink.shutdown()
    assert [row for _, rows in seen for row in rows] == list(range(40))
    assert [first for first, _ in seen] == [rows[0] for _, rows in seen]


@pytest.mark.parametrize("key", ["wrong", ""])
def test_a_key_that_is_refused_sends_masks_to_the_spool_and_the_line_says_what_to_do(
    server, options, spool, monkeypatch, caplog, key
):
    monkeypatch.delenv("TILED_API_KEY", raising=False)
    monkeypatch.setenv("MASK_KEY", key)
    sink = TiledSink(replace(options, api_key_env="MASK_KEY"), spool)
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(5)))
    sink.close("raw-1", account_of(5))
    sink.shutdown()
    assert indices_in(read_spool(sink.address("raw-1"))["mask"]) == list(range(5))
    (line,) = lines(caplog)
    assert server.uri in line
    assert "set MASK_KEY to a key with the scopes" in line
    assert "wrong" not in line


CHILD = """
import sys, time
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
server = EmbeddedTiled(sys.argv[1])
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_the_server_ends_when_the_program_that_started_it_is_killed(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        assert alive(pid)
        child.send_signal(signal.SIGKILL)
    assert until(lambda: not alive(pid))


def test_a_server_that_takes_too_long_is_ended(tmp_path):
    server = EmbeddedTiled(tmp_path, timeout=0.1)
    with pytest.raises(StoreError, match=r"no answer in 0\.1 s"):
        server.start()
    assert server.pid is None
    assert server.uri == ""


@pytest.mark.slow
def test_a_server_that_cannot_start_says_why(tmp_path):
    (tmp_path / "catalog.db").write_text("this is no database")
    with pytest.raises(StoreError, match=r"(?s)did not start.*not a database"):
        EmbeddedTiled(tmp_path).start()
    assert tmp_path.exists()


def test_clients_that_append_to_tables_at_the_same_moment_do_not_end_the_server(server):
    """As a writer of raw runs and a node do; Tiled gives all threads one DuckDB connection."""

    def append(name: str) -> list[int]:
        table = server.client().create_appendable_table(schema, key=name)
        for row in range(20):
            table.append_partition(0, pa.table({"row": [row]}, schema=schema))
        return table.read()["row"].tolist()

    schema, pid = pa.schema([("row", pa.int64())]), server.pid
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(append, ["raw", "masks", "others"]))
    assert found == [list(range(20))] * 3
    assert alive(pid)


def test_masks_of_a_run_whose_server_is_killed_wait_and_are_uploaded_when_it_is_back(
    server, options, spool, caplog
):
    # The last test of this server.
    sink = TiledSink(options, spool, api_key=server.api_key)
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(20)))
    assert sink.drain(30)
    assert sink.stored("raw-1") == 20
    uri, folder = server.uri, server.folder
    server.kill()
    for index in range(20, 50):
        sink.write("raw-1", [mask_of(index)])
    sink.close("raw-1", account_of(50))
    assert sink.drain(60)
    assert sink.stored("raw-1") == 50
    assert sink.settled("raw-1")
    assert indices_in(read_spool(sink.address("raw-1"))["mask"]) == list(range(20, 50))
    (line,) = lines(caplog)
    assert "does not answer" in line or "cannot be reached" in line
    assert server.api_key not in line
    server.start()
    assert (server.uri, server.folder) == (uri, folder)
    assert until(lambda: sink.address("raw-1").startswith("http"), 60)
    run = server.client()[options.container][sink.derived_uid("raw-1")]
    assert indices_in(run["primary"].base["mask"].read()) == list(range(50))
    assert run.stop["account"]["received"] == 50
    assert until(lambda: list(spool.masks.iterdir()) == [])
    sink.shutdown()
    server.stop()
    assert not folder.exists()
    with pytest.raises(StoreError, match="not running"):
        server.client()
