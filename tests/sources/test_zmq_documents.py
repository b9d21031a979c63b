import logging
import pickle
import random
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest
import zmq
import zmq.auth
from bluesky.callbacks.zmq import ClientCurve, Publisher
from bluesky.plan_stubs import close_run, create, open_run, read, save
from bluesky.run_engine import RunEngine
from ophyd.sim import SynSignal
from ptychoseg_callbacks.documents import Document, encode
from ptychoseg_callbacks.source import Source
from zmq_proxy import ON_LOOPBACK, running_proxy

from ptychoseg_stream.errors import SourceError
from ptychoseg_stream.node.curve import on_this_machine
from ptychoseg_stream.sources.zmq.curve import load_keys
from ptychoseg_stream.sources.zmq.documents import ZmqDocuments
from ptychoseg_stream.sources.zmq.options import ZmqOptions, endpoint_of

LIMIT = 20.0  # s until a test gives up waiting
MODULE = "ptychoseg_stream.sources"


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + LIMIT
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.fixture(scope="module")
def proxy() -> Iterator[tuple[str, str]]:
    with running_proxy(*ON_LOOPBACK) as addresses:
        yield addresses


class Listener:
    """A source that runs in a thread, and what it fed."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.fed: list[tuple[str, Document]] = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=source.run, args=(self.take, self.stopping))
        self.thread.start()

    def take(self, name: str, doc: Document) -> int:
        self.fed.append((name, doc))
        return len(self.fed)

    def names(self) -> list[str]:
        return [name for name, doc in self.fed if doc.get("uid") != "hello"]

    def docs(self) -> list[Document]:
        return [doc for _, doc in self.fed if doc.get("uid") != "hello"]

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    listeners: list[Listener] = []

    def start(address: str, options: ZmqOptions | None = None) -> Listener:
        listener = Listener(ZmqDocuments(address.replace("tcp", "zmq"), options))
        listeners.append(listener)
        return listener

    yield start
    for listener in listeners:
        listener.stop()


@pytest.fixture
def publish() -> Iterator[Callable[..., Publisher]]:
    publishers: list[Publisher] = []

    def start(address: str, **options: Any) -> Publisher:
        publishers.append(Publisher(address, **{"serializer": encode, **options}))
        return publishers[-1]

    yield start
    for publisher in publishers:
        publisher.close()


def check_heard(publisher: Publisher, listener: Listener) -> None:
    """0MQ joins slowly: say hello until it is heard."""
    before = len(listener.fed)

    def heard() -> bool:
        publisher("start", {"uid": "hello"})
        return len(listener.fed) > before

    assert eventually(heard)


@pytest.fixture
def RE() -> Iterator[RunEngine]:
    engine = RunEngine({}, context_managers=[])
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(5)
    engine.loop.close()


SERIALIZERS = {
    "ours": encode,
    "msgpack_numpy": partial(msgpack.packb, default=msgpack_numpy.encode),
}


@pytest.mark.parametrize("serializer", SERIALIZERS.values(), ids=SERIALIZERS.keys())
def test_documents_of_a_run_engine_arrive_in_order_with_their_arrays(
    RE: RunEngine, proxy: Any, listen: Any, publish: Any, serializer: Any
) -> None:
    listener = listen(proxy[1])
    publisher = publish(proxy[0], serializer=serializer)
    check_heard(publisher, listener)
    images = [np.full((5, 6), index, np.uint16) for index in range(20)]
    waiting = chain(images[:1], images)  # one is asked for while the device is made
    camera = SynSignal(lambda: next(waiting), name="camera")
    sent: list[tuple[str, Document]] = []

    def plan() -> Any:
        yield from open_run(md={"sample": "gold balls"})
        for _ in images:
            camera.trigger()
            yield from create()
            yield from read(camera)
            yield from save()
        yield from close_run()

    RE.subscribe(publisher)
    RE.subscribe(lambda name, doc: sent.append((name, doc)))
    RE(plan())
    assert eventually(lambda: len(listener.names()) == 23)
    assert listener.names() == [name for name, _ in sent]
    assert [doc["uid"] for doc in listener.docs()] == [doc["uid"] for _, doc in sent]
    for image, event in zip(images, listener.docs()[2:-1], strict=True):
        assert event["data"]["camera"].dtype == np.uint16
        np.testing.assert_array_equal(event["data"]["camera"], image)


def test_what_is_no_document_is_left_out_and_the_next_good_one_goes_through(
    proxy: Any, listen: Any, publish: Any, caplog: pytest.LogCaptureFixture
) -> None:
    listener = listen(proxy[1])
    good = publish(proxy[0])
    check_heard(good, listener)
    pickling = publish(proxy[0], serializer=pickle.dumps)
    check_other = publish(proxy[0], serializer=lambda _: random.Random(1).randbytes(3_000_000))
    assert eventually(lambda: pickling("event", {"n": 1}) or listener.source.unreadable > 0)
    before = listener.source.unreadable
    assert eventually(lambda: check_other("event", {}) or listener.source.unreadable > before)
    good("stop", {"uid": "last"})
    assert eventually(lambda: listener.names() == ["stop"])
    assert sum("is a pickle" in line or "a pickle:" in line for line in caplog.messages) == 1
    assert all("serializer=encode" in line for line in caplog.messages if "left out" in line)


def test_only_publishers_with_the_prefix_are_heard(proxy: Any, listen: Any, publish: Any) -> None:
    listener = listen(proxy[1], ZmqOptions(prefix="raw"))
    raw = publish(proxy[0], prefix=b"raw")
    others = [publish(proxy[0], prefix=prefix) for prefix in (b"", b"an", b"rawer")]
    everything = listen(proxy[1])
    check_heard(raw, listener)
    for other in others:
        check_heard(other, everything)
        other("stop", {"uid": "not for us"})
    raw("stop", {"uid": "for us"})
    assert eventually(lambda: len(listener.names()) > 0)
    assert [doc["uid"] for doc in listener.docs()] == ["for us"]
    assert eventually(lambda: len(everything.names()) == 4)


def test_a_proxy_that_comes_back_is_connected_again(
    listen: Any, publish: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with running_proxy(*ON_LOOPBACK) as addresses:
        listener = listen(addresses[1])
        publisher = publish(addresses[0])
        check_heard(publisher, listener)
    assert eventually(lambda: not listener.source.connected)
    assert any("the connection is lost" in line for line in caplog.messages)
    with running_proxy("--in-address", addresses[0], "--out-address", addresses[1]):
        check_heard(publisher, listener)
        assert listener.source.connected


def test_a_message_above_the_limit_breaks_the_connection_for_a_moment_only(
    proxy: Any, listen: Any, publish: Any
) -> None:
    listener = listen(proxy[1], ZmqOptions(max_message=1 << 20))
    publisher = publish(proxy[0])
    check_heard(publisher, listener)
    publisher("event", {"data": {"image": np.zeros((2000, 2000), np.uint16)}})
    assert eventually(lambda: not listener.source.connected)
    check_heard(publisher, listener)
    assert listener.names() == []


@pytest.mark.slow
def test_a_flood_beyond_the_high_water_mark_leaves_the_source_alive(
    proxy: Any, publish: Any
) -> None:
    gate = threading.Event()
    fed: list[Document] = []

    def slow(_: str, doc: Document) -> int:
        fed.append(doc)
        gate.wait(LIMIT)
        return len(fed)

    source = ZmqDocuments(proxy[1], ZmqOptions(high_water=1))
    stopping = threading.Event()
    thread = threading.Thread(target=source.run, args=(slow, stopping))
    thread.start()
    publisher = publish(proxy[0])
    assert eventually(lambda: publisher("start", {"uid": "hello"}) or len(fed) > 0)
    for number in range(3000):
        publisher("event", {"seq_num": number, "data": {"image": np.zeros((64, 64))}})
    gate.set()
    assert eventually(lambda: publisher("stop", {"uid": "last"}) or fed[-1].get("uid") == "last")
    stopping.set()
    thread.join(LIMIT)
    numbers = [doc["seq_num"] for doc in fed if "seq_num" in doc]
    assert numbers == sorted(set(numbers))
    assert source.received == len(fed)


def faults(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if "no connection" in line]


IMPATIENT = ZmqOptions(patience=0.6)


def test_a_port_where_nobody_answers_is_reported_once(
    listen: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
    listen(f"tcp://127.0.0.1:{port}", IMPATIENT)
    assert eventually(lambda: len(faults(caplog)) > 0)
    time.sleep(0.3)
    (line,) = faults(caplog)
    assert f"127.0.0.1:{port}" in line
    assert "nobody answers: is the proxy running" in line


def test_the_in_port_of_a_proxy_is_found_out(
    proxy: Any, listen: Any, caplog: pytest.LogCaptureFixture
) -> None:
    listen(proxy[0], IMPATIENT)
    assert eventually(lambda: len(faults(caplog)) > 0)
    assert "is this the out port of a bluesky-0MQ-proxy" in faults(caplog)[0]


def test_a_probe_tells_whether_a_proxy_is_there(proxy: Any) -> None:
    assert ZmqDocuments(proxy[1]).probe(LIMIT) == ""
    assert "out port" in ZmqDocuments(proxy[0]).probe(0.5)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("proxy", "node", "stranger"):
        zmq.auth.create_certificates(folder, name)
        (folder / f"{name}.key_secret").chmod(0o600)
    (folder / "clients").mkdir()
    shutil.copy(folder / "node.key", folder / "clients")
    return folder


@pytest.fixture(scope="module")
def locked(keys: Path) -> Iterator[tuple[str, str]]:
    """A proxy that only those in the folder of clients may listen to."""
    secret, clients = str(keys / "proxy.key_secret"), str(keys / "clients")
    guards = ("--out-curve-secret", secret, "--out-curve-client-keys", clients)
    with running_proxy(*ON_LOOPBACK, *guards) as addresses:
        yield addresses


def with_keys(keys: Path, own: str, server: str) -> ZmqOptions:
    return ZmqOptions(
        curve_secret=str(keys / f"{own}.key_secret"),
        curve_server=str(keys / f"{server}.key"),
        patience=0.6,
    )


def test_documents_arrive_encrypted(
    keys: Path, locked: Any, listen: Any, publish: Any, caplog: pytest.LogCaptureFixture
) -> None:
    listener = listen(locked[1], with_keys(keys, "node", "proxy"))
    check_heard(publish(locked[0]), listener)
    assert [line for line in caplog.messages if "connected" not in line] == []


@pytest.mark.slow
def test_a_publisher_can_be_encrypted_as_well(keys: Path, listen: Any, publish: Any) -> None:
    secret = str(keys / "proxy.key_secret")
    with running_proxy(*ON_LOOPBACK, "--in-curve-secret", secret) as (into, out):
        listener = listen(out)
        curve = ClientCurve(keys / "node.key_secret", keys / "proxy.key")
        check_heard(publish(into, curve_config=curve), listener)


@pytest.mark.parametrize(
    ("own", "server", "said"),
    [
        ("stranger", "proxy", "the proxy refuses our key: put the public part"),
        ("node", "stranger", "stranger.key the public key of this proxy"),
        ("", "", "one side uses CURVE and the other does not"),
    ],
)
def test_keys_that_do_not_fit_are_reported_without_the_secret(
    keys: Path, locked: Any, listen: Any, caplog: pytest.LogCaptureFixture, own: Any, server: Any,
    said: str,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    options = with_keys(keys, own, server) if own else IMPATIENT
    listener = listen(locked[1], options)
    assert eventually(lambda: any(said in line for line in faults(caplog))), faults(caplog)
    assert len(faults(caplog)) <= 2  # a guess may have come before the reason
    assert not listener.source.connected
    for name in ("proxy", "node", "stranger"):
        _, secret = zmq.auth.load_certificate(keys / f"{name}.key_secret")
        assert secret is not None
        assert secret.decode() not in caplog.text


def test_a_reason_that_is_known_after_a_guess_is_reported_too(
    listen: Any, caplog: pytest.LogCaptureFixture
) -> None:
    curve = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        listen(f"tcp://127.0.0.1:{server.getsockname()[1]}", IMPATIENT)
        greeted: list[socket.socket] = []
        end = time.monotonic() + LIMIT
        while len(faults(caplog)) < 2 and time.monotonic() < end:
            with suppress(TimeoutError):
                connection = server.accept()[0]
                if faults(caplog):
                    connection.sendall(curve)
                    greeted.append(connection)
                else:
                    connection.close()
        for connection in greeted:
            connection.close()
    guess, reason = faults(caplog)
    assert "it hangs up at once" in guess
    assert "one side uses CURVE and the other does not" in reason


@pytest.mark.slow
def test_a_key_that_is_let_in_later_connects_without_a_restart(
    keys: Path, tmp_path: Path, listen: Any, publish: Any, caplog: pytest.LogCaptureFixture
) -> None:
    clients = tmp_path / "clients"
    clients.mkdir()
    secret = str(keys / "proxy.key_secret")
    guards = ("--out-curve-secret", secret, "--out-curve-client-keys", str(clients))
    with running_proxy(*ON_LOOPBACK, *guards) as addresses:
        listener = listen(addresses[1], with_keys(keys, "node", "proxy"))
        assert eventually(lambda: len(faults(caplog)) > 0)
    shutil.copy(keys / "node.key", clients)
    fixed = ("--in-address", addresses[0], "--out-address", addresses[1])
    with running_proxy(*fixed, *guards):
        check_heard(publish(addresses[0]), listener)
    assert listener.fed


def test_a_secret_is_neither_shown_nor_left_open_to_others(
    keys: Path, tmp_path: Path, listen: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pair = load_keys(str(keys / "node.key_secret"), str(keys / "proxy.key"))
    assert pair.secret.decode() not in repr(pair)
    shared = tmp_path / "shared.key_secret"
    shutil.copy(keys / "node.key_secret", shared)
    shared.chmod(0o644)
    options = ZmqOptions(curve_secret=str(shared), curve_server=str(keys / "proxy.key"))
    listen("tcp://127.0.0.1:9", options)
    assert eventually(lambda: any("chmod 600" in line for line in caplog.messages))


@pytest.mark.parametrize(
    ("own", "server", "said"),
    [
        ("missing.key_secret", "proxy.key", "curve_secret: .*missing.key_secret is not there"),
        ("node.key_secret", "missing.key", "curve_server: .*missing.key is not there"),
        ("node.key", "proxy.key", "curve_secret: .*node.key holds no secret key"),
        ("odd", "proxy.key", "curve_secret: .*odd is no CURVE certificate"),
        ("short", "proxy.key", "curve_secret: .*short is no CURVE certificate"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_named(
    keys: Path, own: str, server: str, said: str
) -> None:
    (keys / "odd").write_text("public-key\n")
    (keys / "short").write_text('public-key = "abc"\nsecret-key = "hidden"\n')
    options = ZmqOptions(curve_secret=str(keys / own), curve_server=str(keys / server))
    with pytest.raises(SourceError, match=said) as caught:
        ZmqDocuments("zmq://localhost:5578", options)
    assert "hidden" not in str(caught.value)


def test_an_unencrypted_address_on_the_network_is_warned_about_once(
    listen: Any, caplog: pytest.LogCaptureFixture
) -> None:
    listen("tcp://192.0.2.1:5578")  # of a network that exists in books only
    assert eventually(lambda: len(caplog.messages) > 0)
    assert sum("unencrypted" in line for line in caplog.messages) == 1


@pytest.mark.parametrize(
    ("url", "endpoint", "local"),
    [
        ("zmq://localhost:5578", "tcp://localhost:5578", True),
        ("tcp://127.0.0.1:5578/", "tcp://127.0.0.1:5578", True),
        ("zmq://[::1]:5578", "tcp://[::1]:5578", True),
        ("zmq://beamline.example:5578", "tcp://beamline.example:5578", False),
        ("zmq://10.0.0.1:5578", "tcp://10.0.0.1:5578", False),
        ("ipc:///run/documents", "ipc:///run/documents", True),
    ],
)
def test_an_address_is_taken_as_bluesky_writes_it(url: str, endpoint: str, local: bool) -> None:
    assert endpoint_of(url) == endpoint
    assert on_this_machine(endpoint) is local


@pytest.mark.parametrize(
    "url",
    [
        "zmq://localhost",
        "zmq://:5578",
        "zmq://*:5578",
        "zmq://localhost:port",
        "zmq://localhost:99999",
        "zmq://localhost:5578/topic",
        "zmq://name:hunter2@localhost:5578",
        "http://localhost:5578",
        "localhost:5578",
        "ipc://",
        "ipc:///" + "long/" * 30,
        "",
    ],
)
def test_an_address_that_cannot_be_connected_to_is_refused(url: str) -> None:
    with pytest.raises(SourceError) as caught:
        ZmqDocuments(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": "a b"},
        {"prefix": "é"},
        {"curve_server": "a", "curve_secret": ""},
        {"curve_secret": "a"},
        {"high_water": 0},
        {"max_message": 10},
        {"patience": 0},
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^(prefix|curve_\w+|high_water|max_message|patience): "):
        ZmqOptions(**options)


def test_what_is_stored_is_no_concern_of_0mq(proxy: Any) -> None:
    source: Source = ZmqDocuments(proxy[1])
    source.stored(5)
    assert source.redelivers is False
