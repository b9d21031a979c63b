"""What is published is heard by who listens, and what is lost is said."""

import logging
from pathlib import Path

import numpy as np
import pytest
import zmq
from feed_support import ACCOUNT, Following, free_port, info_of, send
from test_feed_server import in_order, indices, until

from ptychoseg_stream.errors import FeedError
from ptychoseg_stream.feed import Revision, Start
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.sinks.feed import orders
from ptychoseg_stream.sinks.feed.messages import encode
from ptychoseg_stream.sinks.feed.options import FeedOptions
from ptychoseg_stream.sinks.feed.server import FeedServer


@pytest.fixture
def server(tmp_path: Path, port: int):
    options = FeedOptions(publish=f"tcp://127.0.0.1:{port}")
    server = FeedServer(options, SpoolOptions(str(tmp_path), min_free_bytes=0))
    yield server
    server.shutdown()


def is_heard(server: FeedServer, consumer: Following, caplog: pytest.LogCaptureFixture) -> None:
    """Tell frames of a run that began before, until the consumer hears one."""
    server.open(info_of("before", ""))
    send(server, [0], "before")
    index = 0

    def told() -> bool:
        nonlocal index
        index += 1
        send(server, [index], "before")
        return "began before" in caplog.text or consumer.error is not None

    until(told)


def test_a_run_that_begins_later_is_heard_whole(
    server: FeedServer, port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    consumer = Following(f"pub://127.0.0.1:{port}")
    is_heard(server, consumer, caplog)
    server.open(info_of())
    send(server, range(20))
    send(server, [9999], "before")  # of another run: not ours to follow
    server.close("raw-1", ACCOUNT)
    items = consumer.result()
    assert in_order(items)
    assert indices(items) == list(range(20))
    assert not list(tmp_path.glob("feed/*")), "nobody can ask for it"


def test_a_run_that_is_named_and_began_before_cannot_be_followed(
    server: FeedServer, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = Following(f"pub://127.0.0.1:{port}", "before")
    is_heard(server, consumer, caplog)
    with pytest.raises(FeedError, match="began before anybody listened"):
        consumer.result()


def test_a_hole_is_not_jumped_over() -> None:
    bits = np.zeros((2, 2), np.uint16)
    context = zmq.Context()
    pub = context.socket(zmq.XPUB)
    port = free_port()
    pub.bind(f"tcp://127.0.0.1:{port}")
    consumer = Following(f"pub://127.0.0.1:{port}", "raw")
    pub.recv()  # it listens
    pub.send_multipart(encode(Start(0, "raw", "", (2, 2))))
    pub.send_multipart(encode(Revision(4, "raw", 0, 1, bits, 1)))
    with pytest.raises(FeedError, match="messages 1 to 3 were not heard"):
        consumer.result()
    assert len(consumer.items) == 1
    pub.close(linger=0)
    context.term()


def test_frames_that_were_left_out_are_a_hole_that_is_seen(
    server: FeedServer, port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = Following(f"pub://127.0.0.1:{port}")
    is_heard(server, consumer, caplog)
    server.open(info_of())
    send(server, range(4))
    until(lambda: indices(consumer.items) == list(range(4)))
    with monkeypatch.context() as patch:
        patch.setattr(orders, "MOST_ORDERS", 0)
        send(server, [4])
    send(server, [5])
    with pytest.raises(FeedError, match="were not heard"):
        consumer.result()
    assert indices(consumer.items) == list(range(4))


def test_a_listener_that_takes_nothing_is_not_waited_for(server: FeedServer, port: int) -> None:
    context = zmq.Context()
    idle = context.socket(zmq.SUB)
    idle.rcvhwm = 1
    idle.subscribe(b"")
    idle.connect(f"tcp://127.0.0.1:{port}")
    server.open(info_of())
    send(server, range(500), shape=(64, 64))
    server.close("raw-1", ACCOUNT)
    server.shutdown()  # comes back: nothing waits for the listener
    assert not server._thread.is_alive()
    idle.close(linger=0)
    context.term()
