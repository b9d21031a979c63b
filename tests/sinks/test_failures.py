"""What becomes of masks when Tiled does not take them; nothing here needs a server."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from sinks_support import account_of, indices_in, mask_of, masks_of, read_file, run_info, until
from tiled.client.container import Container

from ptychoseg_stream.sinks.connection import Unavailable
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.tiled import TiledSink


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("ptychoseg_stream")]


@pytest.fixture
def dead_port() -> Iterator[int]:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """The server answers once this is set; it is, at the latest, when the test ends."""
    event = threading.Event()
    yield event
    event.set()


def test_masks_go_to_a_file_when_nobody_listens_and_one_line_says_so(
    options, dead_port, caplog, monkeypatch
):
    monkeypatch.setenv("TILED_API_KEY", "secret")
    uri = f"http://127.0.0.1:{dead_port}"
    sink = TiledSink(replace(options, uri=uri))
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(20)))
    sink.write("raw-1", masks_of(range(20, 33)))
    sink.close("raw-1", account_of(33))
    assert sink.drain(30)
    sink.shutdown()
    path = sink.address("raw-1")
    content = read_file(path)
    assert indices_in(content["mask"]) == list(range(33))
    assert content["raw_index"] == list(range(33))
    assert json.loads(content["start"])["original_run_uid"] == "raw-1"
    assert json.loads(content["stop"])["account"]["received"] == 33
    (line,) = errors(caplog)
    assert uri in line
    assert "cannot be reached" in line
    assert "raw-1" in line
    assert path in line
    assert "secret" not in line
    assert sink.fault() in line
    assert sink.stored("raw-1") == 33


def test_each_run_that_fails_has_one_line_and_one_file(options, dead_port, caplog):
    sink = TiledSink(replace(options, uri=f"http://127.0.0.1:{dead_port}"))
    for uid in ("a", "b"):
        sink.open(run_info(uid))
    for index in range(5):
        for uid in ("a", "b"):
            sink.write(uid, [mask_of(index, uid)])
    for uid in ("a", "b"):
        sink.close(uid, account_of(5))
    sink.shutdown()
    for uid in ("a", "b"):
        assert indices_in(read_file(sink.address(uid))["mask"]) == list(range(5))
    assert len(errors(caplog)) == 2


def test_the_caller_does_not_wait_for_a_server_that_hangs(root, options, make_sink, released):
    def hang() -> Container:
        released.wait(60)
        return root

    sink = make_sink(options, hang)
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(40)))
    sink.close("raw-1", account_of(40))
    assert not released.is_set()  # all three came back before the server did
    assert sink.stored("raw-1") == 0
    assert sink.drain(0.05) is False
    released.set()
    assert sink.drain(30)
    assert sink.stored("raw-1") == 40


def test_what_does_not_fit_the_queue_goes_to_a_file_with_all_that_came_before(
    root, options, make_sink, released, caplog
):
    def hang() -> Container:
        released.wait(60)
        return root

    sink = make_sink(replace(options, queue_bytes=48 * 10), hang)
    sink.open(run_info())
    for index in range(100):
        sink.write("raw-1", [mask_of(index)])
    # The ninety that did not fit reach the disk while the server still hangs.
    assert until(lambda: sink.stored("raw-1") >= 64)
    assert not released.is_set()
    sink.close("raw-1", account_of(100))
    released.set()
    assert sink.drain(30)
    assert indices_in(read_file(sink.address("raw-1"))["mask"]) == list(range(100))
    (line,) = errors(caplog)
    assert "too slow" in line


class Outage:
    """A network that can be cut: requests of the in-process client fail while it is."""

    def __init__(self, client: httpx.Client) -> None:
        self.cut = False
        self.client, self.send = client, client.send
        client.send = self._send

    def _send(self, request: httpx.Request, **kwargs) -> httpx.Response:
        if self.cut:
            raise Unavailable("connection refused")
        return self.send(request, **kwargs)

    def mend(self) -> None:
        self.client.send = self.send


@pytest.fixture
def outage(root: Container) -> Iterator[Outage]:
    outage = Outage(root.context.http_client)
    yield outage
    outage.mend()


@pytest.mark.parametrize("history", [1 << 20, 0], ids=["remembered", "forgotten"])
def test_the_file_of_a_run_that_fails_half_way_has_what_tiled_had(
    root, options, make_sink, outage, caplog, history
):
    sink: TiledSink = make_sink(replace(options, history_bytes=history))
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(18)))
    assert sink.drain(30)
    outage.cut = True
    for index in range(18, 30):
        sink.write("raw-1", [mask_of(index)])
    sink.write("raw-1", [mask_of(31)])
    sink.close("raw-1", account_of(31))
    assert sink.drain(30)
    content = read_file(sink.address("raw-1"))
    before = list(range(18)) if history else [-1] * 18
    assert indices_in(content["mask"]) == [*before, *range(18, 30), -1, 31]
    assert content["status"] == (["ok"] if history else ["lost"]) * 18 + ["ok"] * 12 + [
        "lost",
        "ok",
    ]
    reason = "" if history else "in Tiled, not in this file"
    assert content["reason"] == [reason] * 18 + [""] * 12 + ["frame was never announced", ""]
    assert content["seq_num"] == list(range(1, 33))
    assert len(errors(caplog)) == 1


def test_the_next_run_goes_to_tiled_again_when_the_server_is_back(
    root, options, make_sink, outage, caplog
):
    sink: TiledSink = make_sink(options)
    sink.open(run_info("a"))
    sink.write("a", [mask_of(0, "a")])
    assert sink.drain(30)
    outage.cut = True
    sink.write("a", [mask_of(1, "a")])
    assert sink.drain(30)
    outage.cut = False
    sink.close("a", account_of(2))
    sink.open(run_info("b"))
    sink.write("b", [mask_of(0, "b")])
    sink.close("b", account_of(1))
    assert sink.drain(30)
    assert sink.address("b").startswith("http")
    assert sink.stored("b") == 1
    stop = root[options.container][sink.derived_uid("a")].stop
    assert stop["exit_status"] == "fail"
    assert stop["num_events"] == {"primary": 1}
    assert sink.address("a") in stop["reason"]
    assert len(errors(caplog)) == 1


def test_a_short_outage_is_not_noticed(root, options, make_sink, outage, caplog):
    sink: TiledSink = make_sink(replace(options, attempts=50, retry_wait=0.01))
    sink.open(run_info())
    assert sink.drain(30)
    outage.cut = True
    sink.write("raw-1", masks_of(range(16)))
    assert until(lambda: sink.fault() != "")
    outage.cut = False
    sink.close("raw-1", account_of(16))
    assert sink.drain(30)
    run = root[options.container][sink.derived_uid("raw-1")]
    assert indices_in(run["primary"].base["mask"].read()) == list(range(16))
    assert errors(caplog) == []


def test_a_disk_that_takes_nothing_is_told_in_one_line(
    options: TiledOptions, tmp_path: Path, dead_port, caplog
):
    (tmp_path / "file").write_text("in the way")
    folder = str(tmp_path / "file" / "unsent")
    sink = TiledSink(replace(options, uri=f"http://127.0.0.1:{dead_port}", unsent_folder=folder))
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(3)))
    sink.close("raw-1", account_of(3))
    sink.shutdown()
    assert len(errors(caplog)) == 2
    assert folder in errors(caplog)[1]
    assert folder in sink.fault()


def test_a_run_that_was_deleted_goes_to_a_file_and_the_others_go_on(
    root, options, make_sink, caplog
):
    sink: TiledSink = make_sink(options)
    for uid in ("a", "b"):
        sink.open(run_info(uid))
        sink.write(uid, masks_of(range(3), run=uid))
    assert sink.drain(30)
    root[options.container][sink.derived_uid("a")].delete(recursive=True, external_only=False)
    for uid in ("a", "b"):
        sink.write(uid, masks_of(range(3, 6), run=uid))
        assert sink.drain(30)
    sink.open(run_info("c"))
    for uid in ("a", "b", "c"):
        sink.close(uid, account_of(6))
    assert sink.drain(30)
    assert indices_in(read_file(sink.address("a"))["mask"]) == list(range(6))
    assert [sink.stored(uid) for uid in ("a", "b", "c")] == [6, 6, 0]
    assert sink.address("b").startswith("http")
    assert sink.address("c").startswith("http")
    (line,) = errors(caplog)
    assert "has no such node (404)" in line
