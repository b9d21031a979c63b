"""Keys with the least scopes, tags that are copied, secrets that stay secret."""

import logging
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy
from many_users import ManyUsers
from sinks_support import account_of, alarm_of, mask_of, masks_of, run_info, until
from tiled.client import from_uri

from ptychoseg_stream.sinks.connection import SCOPES
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.tiled import TiledSink

NEEDED = SCOPES.split(", ")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyUsers]:
    with ManyUsers(tmp_path_factory.mktemp("users")) as server:
        yield server


def write(sink: TiledSink) -> None:
    sink.open(run_info(tiled_access_tags=["beamline", "proposal-7"]))
    sink.write("raw-1", [mask_of(0, alarms=(alarm_of(0),)), *masks_of(range(1, 20))])
    assert sink.drain(30)
    sink.write("raw-1", masks_of(range(20, 40)))
    sink.close("raw-1", account_of(40))
    assert sink.drain(30)


@pytest.mark.slow
def test_a_key_with_the_documented_scopes_writes_a_run_whose_nodes_have_the_raw_tags(
    server, options, spool
):
    server.define_tags("beamline", "proposal-7")
    key = server.key(NEEDED)
    sink = TiledSink(replace(options, uri=server.uri), spool, api_key=key)
    write(sink)
    sink.shutdown()
    assert sink.fault() == ""
    client = from_uri(server.uri, api_key=key, remember_me=False, trust_env=False)
    run = client[options.container][sink.derived_uid("raw-1")]
    assert run.stop["num_events"] == {"primary": 40, "alarms": 1}
    stream = run["primary"].base
    nodes = [run, stream, *(stream[name] for name in stream), run["alarms"].base["internal"]]
    tags = [sorted(node.item["attributes"]["access_tags"]) for node in nodes]
    assert tags == [["beamline", "proposal-7"]] * 6
    client.context.close()


@pytest.mark.slow
def test_tags_that_the_server_does_not_know_are_named(server, options, spool):
    key = server.key(NEEDED)
    sink = TiledSink(replace(options, uri=server.uri), spool, api_key=key)
    sink.open(run_info(tiled_access_tags=["unheard-of"]))
    assert until(lambda: sink.fault() != "")
    sink.shutdown()
    assert "refuses the raw run's access tags" in sink.fault()
    assert "unheard-of" in sink.fault()


@pytest.mark.slow
@pytest.mark.parametrize("missing", NEEDED)
def test_a_key_that_lacks_any_of_them_is_refused_with_a_line_that_names_it(
    server, options, spool, missing
):
    there = replace(options, uri=server.uri)
    info = replace(run_info(), derived=str(uuid.uuid4()))
    if missing == "read:data":  # which only those need who go on with a run
        first = TiledSink(there, spool, api_key=server.key(NEEDED))
        first.open(info)
        first.write("raw-1", masks_of(range(3)))
        first.shutdown()
        assert first.stored("raw-1") == 3
        info = replace(info, resumed=True)
    key = server.key([scope for scope in NEEDED if scope != missing])
    sink = TiledSink(there, spool, api_key=key)
    sink.open(info)
    sink.write("raw-1", masks_of(range(3, 5) if info.resumed else range(3)))
    sink.close("raw-1", account_of(3))
    assert until(lambda: sink.settled("raw-1"))
    sink.shutdown()
    assert "refuses the API key" in sink.fault()
    assert missing in sink.fault().split("Request had scopes")[0]
    assert "TILED_API_KEY" in sink.fault()
    assert key not in sink.fault()


def test_the_key_is_in_no_file_and_no_log_line_through_an_outage_and_a_refusal(
    options, spool, caplog, monkeypatch
):
    caplog.set_level(logging.DEBUG)
    key = secrets.token_hex(16)
    with EmbeddedTiled() as server, FaultyProxy(server.uri) as proxy:
        monkeypatch.setenv("NODE_KEY", key)
        mine = replace(options, uri=proxy.uri, api_key_env="NODE_KEY")
        sink = TiledSink(mine, spool)
        info = run_info(sample=f"grown with {key}", note={key: [key]})
        sink.open(replace(info, processing={"command": f"--key={key}"}))
        sink.write("raw-1", [mask_of(0, reason=f"key {key}"), *masks_of(range(1, 20))])
        assert until(lambda: "NODE_KEY" in sink.fault())  # 401: the server has another key
        proxy.status = -1
        sink.write("raw-1", masks_of(range(20, 40)))
        sink.open(run_info("raw-2"))
        assert until(lambda: "does not answer" in sink.fault() or "reached" in sink.fault())
        sink.close("raw-1", account_of(40, exit_status="fail", reason=f"{key} is wrong"))
        assert until(lambda: sink.settled("raw-1"))
        sink.shutdown()
        assert any(key in header for header in proxy.keys)
        assert key not in sink.fault()
    files = [path for path in Path(spool.folder).rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"run.json", "stop.json"}
    texts = [path for path in files if path.suffix == ".json"]
    assert [path for path in texts if key in path.read_text()] == []
    assert [r.name for r in caplog.records if key in r.getMessage() + str(r.exc_text)] == []


@pytest.mark.parametrize("status", [401, 403, 404, 409, 413, 429, 500, 503])
def test_whatever_the_server_answers_the_run_is_whole_once_it_answers_well(
    root_server, options, spool, status
):
    with FaultyProxy(root_server.uri) as proxy:
        sink = TiledSink(replace(options, uri=proxy.uri), spool, api_key=root_server.api_key)
        sink.open(run_info())
        sink.write("raw-1", masks_of(range(10)))
        assert sink.drain(30)
        proxy.chosen = lambda method, path: method in ("POST", "PATCH", "PUT")
        proxy.status = status
        sink.write("raw-1", masks_of(range(10, 30)))
        sink.close("raw-1", account_of(30))
        assert until(lambda: sink.settled("raw-1"))
        assert sink.stored("raw-1") == 30
        assert not sink.address("raw-1").startswith("http")
        proxy.mend()
        assert until(lambda: sink.address("raw-1").startswith("http"))
        sink.shutdown()
        run = root_server.client()[options.container][sink.derived_uid("raw-1")]
        table = run["primary"].base["internal"].read()
        assert table.seq_num.tolist() == list(range(1, 31))
        assert run["primary"].base["mask"].shape == (30, 6, 8)
        assert run.stop["exit_status"] == "success"


@pytest.mark.parametrize("fault", ["answers lost", "slow"])
def test_rows_come_once_when_answers_are_lost_or_late(root_server, options, spool, fault):
    with FaultyProxy(root_server.uri) as proxy:
        impatient = replace(options, uri=proxy.uri, timeout=0.4)
        sink = TiledSink(impatient, spool, api_key=root_server.api_key)
        sink.open(run_info())
        sink.write("raw-1", masks_of(range(10)))
        assert sink.drain(30)
        proxy.chosen = lambda method, path: method in ("PATCH", "PUT")
        proxy.after, proxy.delay = (503, 0.0) if fault == "answers lost" else (0, 0.8)
        sink.write("raw-1", [mask_of(10, alarms=(alarm_of(10),)), *masks_of(range(11, 30))])
        sink.close("raw-1", account_of(30))
        assert until(lambda: sink.settled("raw-1"))
        assert until(lambda: sink.fault() != "")
        proxy.mend()
        assert until(lambda: sink.address("raw-1").startswith("http"))
        sink.shutdown()
    run = root_server.client()[options.container][sink.derived_uid("raw-1")]
    assert run["primary"].base["internal"].read().raw_index.tolist() == list(range(30))
    assert run["primary"].base["mask"].shape == (30, 6, 8)
    assert run["alarms"].base["internal"].read().raw_index.tolist() == [10]


@pytest.fixture(scope="module")
def root_server() -> Iterator[EmbeddedTiled]:
    with EmbeddedTiled() as server:
        yield server
