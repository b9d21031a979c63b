"""The store of raw runs tells the truth about runs of real writers, and nothing when it cannot."""

import http.server
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from tiled_support import (
    H,
    W,
    container_of,
    engine,
    file_detector,
    frames_of,
    inline_detector,
    points,
    writer,
)

from ptychoseg_stream.errors import SourceError
from ptychoseg_stream.node.ports import RawStore
from ptychoseg_stream.sources.tiled.raw import RawOptions, TiledRaw

pytestmark = pytest.mark.usefixtures("api_key")


@pytest.fixture
def raw(tiled_server, container) -> Iterator[TiledRaw]:
    store = TiledRaw(RawOptions(tiled_server.uri.replace("http", "tiled", 1), path=container))
    yield store
    store.close()


def all_frames(raw: RawStore, run: str, key: str) -> np.ndarray:
    """Read a key from its first frame until there are no more, as a reader does."""
    found: list[np.ndarray] = []
    while (block := raw.read(run, "primary", key, sum(map(len, found)), 10_000)) is not None:
        found.append(block)
    return np.concatenate(found)


@pytest.mark.parametrize("batch_size", [1, 4, 10_000])
@pytest.mark.parametrize("dtype", ["<u2", "<f4"])
def test_frames_of_events_are_read_as_they_were_written(
    tiled_server, container, raw, dtype, batch_size
):
    frames = frames_of(7, dtype)
    scan = engine(writer(tiled_server, container, batch_size=batch_size))
    (uid,) = scan(points(inline_detector(frames), 7))
    assert raw.count(uid, "primary", "det_image") == 7
    np.testing.assert_array_equal(all_frames(raw, uid, "det_image"), frames)
    np.testing.assert_array_equal(raw.read(uid, "primary", "det_image", 2, 5), frames[2:5])
    assert raw.read(uid, "primary", "det_image", 2, 5).dtype == frames.dtype
    assert raw.read(uid, "primary", "det_image", 7, 9) is None


def test_frames_of_files_are_read_as_they_were_written(
    tiled_server, container, raw, detector_files
):
    frames = frames_of(6, seed=3)
    detector = file_detector(frames, detector_files, "raw-store")
    (uid,) = engine(writer(tiled_server, container))(points(detector, 6))
    assert raw.count(uid, "primary", "cam") == 6
    np.testing.assert_array_equal(all_frames(raw, uid, "cam"), frames)
    notes = raw.notes_of(uid)
    assert [name for name, _ in notes] == ["descriptor", "stream_resource"]
    assert notes[0][1]["data_keys"]["cam"]["external"] == "STREAM:"
    assert notes[1][1]["uri"].endswith("raw-store.h5")
    assert notes[1][1]["data_key"] == "cam"


@pytest.mark.parametrize("shape", [(5, 3, H, W), (15, H, W)], ids=["4-D", "3-D"])
def test_several_frames_per_event_are_counted_one_by_one(tiled_server, container, raw, shape):
    frames = frames_of(15, seed=4)
    run = container_of(tiled_server, container).create_container("run-1")
    keys = {"cam": {"dtype": "array", "shape": [3, H, W], "external": "STREAM:", "source": "x"}}
    stream = run.create_container("primary", metadata={"uid": "d", "time": 1, "data_keys": keys})
    stream.write_array(frames.reshape(shape), key="cam")
    assert raw.count("run-1", "primary", "cam") == 15
    np.testing.assert_array_equal(all_frames(raw, "run-1", "cam"), frames)
    for first, last in [(0, 1), (1, 2), (4, 11), (14, 20)]:
        got = raw.read("run-1", "primary", "cam", first, last)
        np.testing.assert_array_equal(got, frames[first:last])


def test_rows_that_tiled_adds_to_fill_its_chunks_are_not_counted(tiled_server, container, raw):
    frames = frames_of(3)
    (uid,) = engine(writer(tiled_server, container))(points(inline_detector(frames), 3))
    array = container_of(tiled_server, container)[uid]["primary"].base["det_image"]
    array.patch(np.zeros((2, H, W), "<u2"), offset=(3,), extend=True)
    assert raw.count(uid, "primary", "det_image") == 3


def test_documents_of_a_run_are_found_by_its_uid_and_that_of_a_descriptor(
    tiled_server, container, raw
):
    documents = {}
    scan = engine(writer(tiled_server, container), lambda name, doc: documents.update({name: doc}))
    for _ in range(2):
        (uid,) = scan(points(inline_detector(frames_of(1)), 1, md={"sample": "gold"}))
    assert raw.start_of(uid)["sample"] == "gold"
    assert raw.start_of(documents["descriptor"]["uid"])["uid"] == uid
    assert raw.stop_of(uid)["exit_status"] == "success"
    ((name, descriptor),) = raw.notes_of(uid)
    assert name == "descriptor"
    assert descriptor["uid"] == documents["descriptor"]["uid"]
    assert descriptor["run_start"] == uid
    assert descriptor["name"] == "primary"


def test_what_is_not_there_is_nothing_and_no_error(tiled_server, container, raw, caplog):
    (uid,) = engine(writer(tiled_server, container))(points(inline_detector(frames_of(1)), 1))
    with caplog.at_level(logging.WARNING):
        assert raw.start_of("nowhere") is None
        assert raw.stop_of("nowhere") is None
        assert list(raw.notes_of("nowhere")) == []
        assert raw.read("nowhere", "primary", "det_image", 0, 1) is None
        assert raw.read(uid, "dark", "det_image", 0, 1) is None
        assert raw.read(uid, "primary", "other", 0, 1) is None
        assert raw.read(uid, "primary", "det_image", 5, 2) is None
        assert raw.count(uid, "primary", "other") == -1
        assert raw.count("../..", "primary", "other") == -1
    assert caplog.text == ""


def test_two_threads_may_read_at_once(tiled_server, container, raw):
    frames = frames_of(8)
    scan = engine(writer(tiled_server, container, batch_size=8))
    (uid,) = scan(points(inline_detector(frames), 8))

    def read(index: int) -> np.ndarray | None:
        return raw.read(uid, "primary", "det_image", index % 8, index % 8 + 1)

    with ThreadPoolExecutor(4) as pool:
        for index, got in enumerate(pool.map(read, range(32))):
            np.testing.assert_array_equal(got, frames[index % 8 : index % 8 + 1])


class Odd(http.server.BaseHTTPRequestHandler):
    """A server that answers, and not as Tiled does."""

    status, body, headers_to_send = 200, b"<html>hello</html>", ()
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(self.status)
        for name, value in self.headers_to_send:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args: object) -> None:
        """Be quiet."""


@contextmanager
def odd_server(**settings: object) -> Iterator[tuple[str, list[str]]]:
    handler = type("Handler", (Odd,), {**settings, "asked": []})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"tiled://127.0.0.1:{server.server_port}", handler.asked
        finally:
            server.shutdown()
            thread.join()


def check_knows_nothing(raw: TiledRaw) -> None:
    assert raw.start_of("run") is None
    assert raw.stop_of("run") is None
    assert list(raw.notes_of("run")) == []
    assert raw.read("run", "primary", "cam", 0, 4) is None
    assert raw.count("run", "primary", "cam") == -1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"body": b"[1, 2, 3]"},
        {"body": b'{"data": {"id": "a", "attributes": 3}}'},
        {"body": b'{"data": [{"attributes": {}}]}'},
        {"body": b'{"data": {"attributes": {"metadata": {"start": 3, "stop": []}}}}'},
        {"body": b"\xff\xfe"},
        {"status": 302, "headers_to_send": (("Location", "/"),)},
        {"status": 401},
        {"status": 418},
        {"body": b"\x1f\x8bnot gzip", "headers_to_send": (("Content-Encoding", "gzip"),)},
    ],
    ids=str,
)
def test_a_server_that_is_no_tiled_is_nothing_and_no_error(settings):
    with odd_server(**settings) as (uri, _):
        raw = TiledRaw(RawOptions(uri, timeout=2.0, retry_after=0.0))
        check_knows_nothing(raw)
        raw.close()


def test_a_server_with_too_much_to_do_is_asked_twice_and_then_left_alone_for_a_while(caplog):
    now = [100.0]
    with odd_server(status=429) as (uri, asked), caplog.at_level(logging.WARNING):
        raw = TiledRaw(RawOptions(uri, retry_after=15.0), clock=lambda: now[0])
        assert raw.count("run", "primary", "cam") == -1
        assert len(asked) == 2
        check_knows_nothing(raw)
        assert len(asked) == 2
        now[0] += 15.0
        assert raw.start_of("run") is None
        assert len(asked) == 4
        raw.close()
    assert "(429)" in caplog.text


@pytest.mark.parametrize("status", [500, 503])
def test_a_node_in_trouble_is_asked_twice_and_others_still_are_asked(status):
    with odd_server(status=status) as (uri, asked):
        raw = TiledRaw(RawOptions(uri))
        check_knows_nothing(raw)
        assert len(asked) == 10
        raw.close()


def test_a_server_that_is_gone_is_nothing_and_said_once(caplog, monkeypatch):
    monkeypatch.setenv("TILED_API_KEY", "5ecret")
    with odd_server() as (uri, _):
        pass
    with caplog.at_level(logging.DEBUG):
        raw = TiledRaw(RawOptions(uri, timeout=1.0, retry_after=60.0))
        check_knows_nothing(raw)
        raw.close()
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "does not answer" in caplog.text
    assert "5ecret" not in caplog.text


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"^timeout: "):
        RawOptions(timeout=0)
    with pytest.raises(ValueError, match=r"^retry_after: "):
        RawOptions(retry_after=-1)
    with pytest.raises(SourceError, match="tiled://host:port/path"):
        TiledRaw(RawOptions("8000"))
