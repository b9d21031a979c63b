"""What becomes of masks when Tiled does not take them, and when the disk does not either."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from sinks_support import (
    account_of,
    alarm_of,
    indices_in,
    mask_of,
    masks_of,
    read_spool,
    run_info,
    until,
)
from tiled.client.container import Container

from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.sinks.connection import Unavailable
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.spool import waiting
from ptychoseg_stream.sinks.tiled import TiledSink
from ptychoseg_stream.sinks.upload import upload_all

DERIVED = "00000000-0000-4000-8000-00000000000d"


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


def in_tiled(sink: TiledSink, uid: str = "raw-1") -> bool:
    return sink.address(uid).startswith("http")


def stored_rows(root: Container, options: TiledOptions, sink: TiledSink, uid: str = "raw-1"):
    run = root[options.container][sink.derived_uid(uid)]
    stream = run["primary"].base
    indices = indices_in(stream["mask"].read())
    assert stream["internal"].read().seq_num.tolist() == list(range(1, len(indices) + 1))
    assert stream["valid_bits"].shape[0] == len(indices)
    return indices


def test_masks_wait_in_the_spool_when_nobody_listens_and_one_line_says_so(
    options, spool, dead_port, caplog, monkeypatch
):
    monkeypatch.setenv("TILED_API_KEY", "secret-" * 5)
    uri = f"http://127.0.0.1:{dead_port}"
    sink = TiledSink(replace(options, uri=uri), spool)
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(20)))
    sink.write("raw-1", masks_of(range(20, 33)))
    sink.close("raw-1", account_of(33))
    assert sink.drain(30)
    assert sink.stored("raw-1") == 33
    assert sink.settled("raw-1")
    path = sink.address("raw-1")
    sink.shutdown()
    content = read_spool(path)
    assert indices_in(content["mask"]) == content["raw_index"] == list(range(33))
    assert content["run"]["raw"] == "raw-1"
    assert content["run"]["start"]["plan_name"] == "grid_scan"
    assert content["stop"]["account"]["received"] == 33
    (line,) = errors(caplog)
    for part in (uri, "cannot be reached", "raw-1", path):
        assert part in line
    assert sink.fault() in line
    assert "secret" not in line + repr(content)
    (run,) = waiting(spool)
    assert (run.raw, run.derived, run.rows, run.closed, run.busy) == (
        "raw-1",
        sink.derived_uid("raw-1"),
        33,
        True,
        False,
    )


def test_each_run_that_fails_has_one_line_and_one_folder(options, spool, dead_port, caplog):
    sink = TiledSink(replace(options, uri=f"http://127.0.0.1:{dead_port}"), spool)
    for uid in ("a", "b"):
        sink.open(run_info(uid))
    for index in range(5):
        for uid in ("a", "b"):
            sink.write(uid, [mask_of(index, uid)])
    for uid in ("a", "b"):
        sink.close(uid, account_of(5))
    sink.shutdown()
    for uid in ("a", "b"):
        assert indices_in(read_spool(sink.address(uid))["mask"]) == list(range(5))
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
    assert not sink.settled("raw-1")
    assert sink.drain(0.05) is False
    released.set()
    assert sink.drain(30)
    assert sink.stored("raw-1") == 40
    assert in_tiled(sink)


def test_what_does_not_fit_the_queue_is_safe_on_disk_while_the_server_hangs(
    root, options, make_sink, released, caplog
):
    def hang() -> Container:
        released.wait(60)
        return root

    sink = make_sink(replace(options, queue_bytes=48 * 10), hang)
    sink.open(run_info())
    for index in range(100):
        sink.write("raw-1", [mask_of(index)])
    sink.close("raw-1", account_of(100))
    assert until(lambda: sink.stored("raw-1") == 100)
    assert until(lambda: sink.settled("raw-1"))
    assert not released.is_set()
    assert "too slow" in errors(caplog)[0]
    released.set()
    assert until(lambda: in_tiled(sink))
    assert stored_rows(root, options, sink) == list(range(100))


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


@pytest.mark.parametrize("when", ["start", "middle", "end"])
def test_a_run_through_an_outage_is_whole_in_tiled_and_leaves_nothing_in_the_spool(
    root, options, spool, make_sink, outage, caplog, when
):
    sink: TiledSink = make_sink(options)
    outage.cut = when == "start"
    sink.open(run_info())
    sink.write("raw-1", [mask_of(0, alarms=(alarm_of(0),)), *masks_of(range(1, 18))])
    assert sink.drain(30)
    outage.cut = when != "end"
    for index in range(18, 30):
        sink.write("raw-1", [mask_of(index, alarms=(alarm_of(index),) if index == 20 else ())])
    assert sink.drain(30)
    assert sink.stored("raw-1") == 30
    outage.cut = outage.cut or when == "end"
    sink.close("raw-1", account_of(30))
    assert sink.drain(30)
    assert sink.settled("raw-1")
    assert not in_tiled(sink)
    outage.cut = False
    assert until(lambda: in_tiled(sink))
    assert stored_rows(root, options, sink) == list(range(30))
    run = root[options.container][sink.derived_uid("raw-1")]
    assert run["alarms"].base["internal"].read().raw_index.tolist() == [0, 20]
    assert run.stop["num_events"] == {"primary": 30, "alarms": 2}
    assert run.stop["exit_status"] == "success"
    assert until(lambda: list(spool.masks.iterdir()) == [])
    assert len(errors(caplog)) == 1


def test_a_run_goes_straight_to_tiled_again_once_it_has_caught_up(
    root, options, spool, make_sink, outage
):
    sink: TiledSink = make_sink(options)
    sink.open(run_info())
    outage.cut = True
    sink.write("raw-1", masks_of(range(20)))
    assert sink.drain(30)
    outage.cut = False
    assert until(lambda: in_tiled(sink))
    assert until(lambda: list(spool.masks.iterdir()) == [])
    sink.write("raw-1", masks_of(range(20, 40)))
    assert sink.drain(30)
    assert list(spool.masks.iterdir()) == []
    assert sink.stored("raw-1") == 40
    sink.close("raw-1", account_of(40))
    assert sink.drain(30)
    assert stored_rows(root, options, sink) == list(range(40))


def test_what_a_dead_process_left_is_uploaded_in_the_background_by_the_next(
    root, options, spool, make_sink, outage
):
    outage.cut = True
    first: TiledSink = make_sink(options)
    for uid in ("a", "b"):
        first.open(run_info(uid))
        first.write(uid, masks_of(range(20), run=uid))
    first.close("a", account_of(20))
    first.shutdown()
    uids = {uid: first.derived_uid(uid) for uid in ("a", "b")}
    outage.cut = False
    second: TiledSink = make_sink(options)
    assert until(lambda: list(spool.masks.iterdir()) == [])
    runs = {uid: root[options.container][derived] for uid, derived in uids.items()}
    for run in runs.values():
        assert indices_in(run["primary"].base["mask"].read()) == list(range(20))
    assert runs["a"].stop["account"]["received"] == 20
    assert "stop" not in runs["b"].metadata  # nobody knows how it ended
    assert second.settled("a")


def test_a_folder_of_a_living_process_is_left_alone(root, options, spool, make_sink, outage):
    outage.cut = True
    first: TiledSink = make_sink(options)
    first.open(run_info())
    first.write("raw-1", masks_of(range(3)))
    assert first.drain(30)
    assert [run.busy for run in waiting(spool)] == [True]
    second: TiledSink = make_sink(options)
    assert second._desk.routes == []
    assert upload_all(options, spool, "", 5.0, lambda: root) == []
    outage.cut = False
    assert until(lambda: first.address("raw-1").startswith("http"))
    assert stored_rows(root, options, first) == [0, 1, 2]


def test_runs_for_another_server_wait_for_somebody_who_says_where_they_go(
    root, options, spool, make_sink, dead_port, caplog
):
    elsewhere = replace(options, container="other/masks", uri=f"http://127.0.0.1:{dead_port}")
    first = TiledSink(elsewhere, spool)
    first.open(run_info())
    first.write("raw-1", masks_of(range(5)))
    first.close("raw-1", account_of(5))
    first.shutdown()
    caplog.clear()
    make_sink(options)
    (line,) = errors(caplog)
    assert "other/masks" in line
    assert "`ptychoseg upload`" in line
    assert upload_all(options, spool, "", 30.0, lambda: root, elsewhere=False) == []
    assert [run.rows for run in waiting(spool)] == [5]
    (sent,) = upload_all(options, spool, "", 30.0, lambda: root)
    assert (sent.raw, sent.rows, sent.why) == ("raw-1", 5, "")
    assert sent.address.endswith(f"{options.container}/{sent.derived}")
    assert stored_rows(root, options, first) == list(range(5))
    assert waiting(spool) == []


def test_upload_says_what_still_waits_and_why(options, spool, dead_port):
    gone = replace(options, uri=f"http://127.0.0.1:{dead_port}")
    sink = TiledSink(gone, spool)
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(5)))
    sink.shutdown()
    (left,) = upload_all(gone, spool, "", 5.0)
    assert "cannot be reached" in left.why
    assert [run.rows for run in waiting(spool)] == [5]
    (left.path / "run.json").write_text("{}")
    (broken,) = upload_all(gone, spool, "", 5.0)
    assert "run.json" in broken.why
    assert waiting(spool) == []


def test_a_damaged_segment_is_named_and_stays(options, spool, dead_port, make_sink, root, caplog):
    sink = TiledSink(replace(options, uri=f"http://127.0.0.1:{dead_port}"), spool)
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(5)))
    sink.shutdown()
    (path,) = Path(sink.address("raw-1")).glob("rows-*.h5")
    path.write_bytes(path.read_bytes()[:1000])
    (left,) = upload_all(options, spool, "", 5.0, lambda: root)
    assert str(path) in left.why
    assert "move it away" in left.why
    assert path.exists()


# --- the disk -------------------------------------------------------------------------------------


def test_a_disk_without_room_is_told_once_and_the_run_goes_on_when_tiled_is_back(
    root, options, make_sink, outage, spool, caplog
):
    full = replace(spool, min_free_bytes=1 << 60)
    sink: TiledSink = make_sink(options, spool=full)
    outage.cut = True
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(40)))
    assert until(lambda: "not safe" in sink.fault())
    assert "masks of run raw-1 are not safe: free space on the disk of" in sink.fault()
    assert sink.drain(0.05) is False
    assert sink.stored("raw-1") == 0
    outage.cut = False
    assert until(lambda: sink.stored("raw-1") == 40)
    sink.close("raw-1", account_of(40))
    assert sink.drain(30)
    assert sink.settled("raw-1")
    assert stored_rows(root, options, sink) == list(range(40))
    assert sum("not safe" in line for line in errors(caplog)) == 1


def test_what_memory_does_not_hold_either_is_dropped_from_a_row_on_and_can_come_again(
    root, options, make_sink, outage, spool, caplog
):
    full = replace(spool, min_free_bytes=1 << 60)
    tight = replace(options, queue_bytes=48 * 10, timeout=0.2)
    sink: TiledSink = make_sink(tight, spool=full)
    outage.cut = True
    sink.open(replace(run_info(), derived=DERIVED))
    for index in range(30):
        sink.write("raw-1", [mask_of(index)])
    sink.close("raw-1", account_of(30))
    assert until(lambda: "not safe" in sink.fault())
    outage.cut = False
    assert until(lambda: sink.stored("raw-1") > 0)
    kept = sink.stored("raw-1")
    assert 0 < kept < 30
    assert until(lambda: in_tiled(sink))
    assert not sink.settled("raw-1")
    stop = root[options.container][DERIVED].stop
    assert stop["exit_status"] == "fail"
    assert f"rows from row {kept} on were dropped" in stop["reason"]
    assert stop["account"]["dropped"] == 30 - kept
    assert any(f"rows from {kept} on are dropped" in line for line in errors(caplog))
    sink.shutdown()
    again: TiledSink = make_sink(options)
    again.open(replace(run_info(), derived=DERIVED, resumed=True))
    again.write("raw-1", masks_of(range(30)))
    again.close("raw-1", account_of(30))
    assert again.drain(30)
    assert stored_rows(root, options, again) == list(range(30))
    assert root[options.container][DERIVED].stop["exit_status"] == "success"
    assert again.settled("raw-1")


def test_a_folder_that_cannot_be_made_is_named(options: TiledOptions, tmp_path: Path, dead_port):
    (tmp_path / "file").write_text("in the way")
    spool = SpoolOptions(str(tmp_path / "file" / "spool"), min_free_bytes=0)
    sink = TiledSink(replace(options, uri=f"http://127.0.0.1:{dead_port}", timeout=0.5), spool)
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(3)))
    assert until(lambda: "not safe" in sink.fault())
    assert str(tmp_path / "file") in sink.fault()
    sink.shutdown()
    assert sink.stored("raw-1") == 0


def test_a_run_that_was_deleted_comes_back_with_the_rows_that_are_left(
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
    assert sink.stored("a") == 6
    for uid in ("a", "b"):
        sink.close(uid, account_of(6))
    assert sink.drain(30)
    assert until(lambda: in_tiled(sink, "a"))
    assert stored_rows(root, options, sink, "a") == [-1, -1, -1, 3, 4, 5]
    assert stored_rows(root, options, sink, "b") == list(range(6))
    assert "has no such node (404)" in errors(caplog)[0]
