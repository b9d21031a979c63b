"""A node's feed and its consumers over real sockets: nothing is missed, nobody waits."""

import json
import pickle
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zmq
from feed_support import (
    ACCOUNT,
    DERIVED,
    SHAPE,
    TILED,
    Following,
    frame_of,
    info_of,
    mask_of,
    products_of,
    send,
    serving,
)

from ptychoseg_stream.errors import FeedError, FeedGone
from ptychoseg_stream.feed import (
    FrameItem,
    Item,
    PositionsItem,
    ProductsItem,
    Revision,
    Start,
    Stop,
    follow,
)
from ptychoseg_stream.science.experiment import Experiment
from ptychoseg_stream.sinks.feed import orders


def until(condition: Callable[[], object]) -> None:
    """Wait for another thread; the limit only ends a test that fails."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def indices(items: list[Item]) -> list[int]:
    return [item.index for item in items if isinstance(item, FrameItem)]


def kinds(items: list[Item]) -> list[str]:
    return [type(item).__name__ for item in items if not isinstance(item, FrameItem)]


def in_order(items: list[Item]) -> bool:
    return [item.seq for item in items] == list(range(len(items)))


def test_a_consumer_gets_the_whole_run_while_it_grows(tmp_path: Path, port: int) -> None:
    with serving(tmp_path, port) as server:
        consumer = Following(f"zmq://127.0.0.1:{port}")
        server.open(info_of(experiment=Experiment(energy=800.0)))
        send(server, range(150))
        until(lambda: len(consumer.items) > 100)
        send(server, range(150, 160))
        server.close("raw-1", ACCOUNT)
        items = consumer.result()
    assert in_order(items)
    assert indices(items) == list(range(160))
    start, stop = items[0], items[-1]
    assert isinstance(start, Start)
    assert (start.run, start.derived, start.shape, start.num_points) == (
        "raw-1",
        DERIVED,
        SHAPE,
        40,
    )
    assert start.experiment.energy == 800.0
    assert start.start == {"scan_id": 7, "plan_name": "grid", "time": 1.0, "num_points": 40}
    assert start.tiled == f"{TILED}/{DERIVED}"
    assert start.classes["1"] == "ring"
    assert start.bits["8"] == "hot"
    assert isinstance(stop, Stop)
    assert (stop.exit_status, stop.account["received"]) == ("success", 2)


def test_a_frame_is_what_the_detector_and_the_node_said(tmp_path: Path, port: int) -> None:
    frame = frame_of(4, attempt=1)
    with serving(tmp_path, port) as server:
        server.open(info_of())
        server.send("raw-1", [frame], [mask_of(frame)])
        server.close("raw-1", ACCOUNT)
        item = next(i for i in follow(f"zmq://127.0.0.1:{port}", DERIVED) if i.seq == 1)
    assert isinstance(item, FrameItem)
    assert item.image is not None
    assert item.image.dtype == np.uint16
    assert (item.image == 4).all()
    assert (item.index, item.seq_num, item.attempt, item.time) == (4, 5, 1, 104.0)
    assert (item.status, item.verdict, item.revision) == ("ok", "annulus", 0)
    assert np.flatnonzero(item.valid_bits).tolist() == [4]
    assert (item.classes == 1).all()


def test_an_image_that_is_overwritten_afterwards_was_copied(tmp_path: Path, port: int) -> None:
    frame = frame_of(3)
    assert frame.image is not None
    with serving(tmp_path, port) as server:
        server.open(info_of())
        server.send("raw-1", [frame], [mask_of(frame)])
        frame.image[:] = 99
        server.close("raw-1", ACCOUNT)
        item = list(follow(f"zmq://127.0.0.1:{port}", "raw-1"))[1]
    assert isinstance(item, FrameItem)
    assert item.image is not None
    assert (item.image == 3).all()


def test_frames_without_image_or_mask_are_told_as_such(tmp_path: Path, port: int) -> None:
    lost = replace(frame_of(1), image=None, fault="gone")
    empty = replace(mask_of(lost, valid_bits=None), status="lost")
    other = frame_of(2, shape=(3, 3))
    with serving(tmp_path, port) as server:
        server.open(info_of())
        send(server, [0])
        server.send("raw-1", [lost, other], [empty, mask_of(other)])
        server.close("raw-1", ACCOUNT)
        _, _, first, second, _ = follow(f"zmq://127.0.0.1:{port}", "raw-1")
    assert isinstance(first, FrameItem)
    assert isinstance(second, FrameItem)
    assert first.image is None
    assert (first.valid_bits == 1).all()
    assert (first.status, second.status) == ("lost", "refused")
    assert second.classes.shape == SHAPE
    assert (second.classes == 255).all()


def test_pixels_found_late_revise_the_frames_before(tmp_path: Path, port: int) -> None:
    with serving(tmp_path, port) as server:
        server.open(info_of())
        send(server, [0, 1])
        server.publish("raw-1", products_of(2, [(1, 1)], 1))
        send(server, [2])
        server.publish("raw-1", products_of(3, [(1, 1)], 1))
        server.publish("raw-1", products_of(3, [(1, 1), (2, 3)], 3))
        server.close("raw-1", ACCOUNT)
        items = list(follow(f"zmq://127.0.0.1:{port}", "raw-1"))
    assert in_order(items)
    told = ["Revision", "PositionsItem", "ProductsItem"]
    assert kinds(items) == ["Start", *told, "ProductsItem", *told, "Stop"]
    first, second = (item for item in items if isinstance(item, Revision))
    assert (first.first, first.last, first.revision) == (0, 2, 1)
    assert np.argwhere(first.bits).tolist() == [[1, 1]]
    assert (second.first, second.last, second.revision) == (0, 3, 2)
    assert np.argwhere(second.bits).tolist() == [[2, 3]]
    assert [item.revision for item in items if isinstance(item, FrameItem)] == [0, 0, 1]
    one, two = (item for item in items if isinstance(item, PositionsItem))
    assert (one.first, one.positions.tolist()) == (0, [[0.0, 1.0]])
    assert (two.first, two.positions.tolist()) == (1, [[2.0, 3.0], [4.0, 5.0]])
    last = [item for item in items if isinstance(item, ProductsItem)][-1].products
    assert last.of_frames.frames == 3
    assert np.isnan(last.of_frames.outer)
    assert last.experiment.energy == 800.0


def test_a_consumer_that_comes_back_misses_nothing(tmp_path: Path, port: int) -> None:
    address = f"zmq://127.0.0.1:{port}"
    consumer = Following(address)
    with serving(tmp_path, port) as server:
        server.open(info_of())
        send(server, range(20))
        until(lambda: len(consumer.items) == 21)
    # The node is gone, and its run goes on: some frames are labelled again.
    with serving(tmp_path, port) as server:
        server.open(info_of(resumed=True))
        send(server, range(12, 30))
        server.publish("raw-1", products_of(30, [(0, 0)], 4))
        server.close("raw-1", ACCOUNT)
        items = consumer.result()
    assert in_order(items)
    assert indices(items) == list(range(30))


def test_what_was_told_of_bits_and_positions_is_not_told_twice(tmp_path: Path, port: int) -> None:
    with serving(tmp_path, port) as server:
        server.open(info_of())
        send(server, range(4))
        server.publish("raw-1", products_of(4, [(0, 0)], 2))
    with serving(tmp_path, port) as server:
        server.open(info_of(resumed=True))
        send(server, [3, 4])
        server.publish("raw-1", products_of(5, [(0, 0)], 3))
        server.close("raw-1", ACCOUNT)
        items = list(follow(f"zmq://127.0.0.1:{port}", "raw-1"))
    assert in_order(items)
    told = ["Revision", "PositionsItem", "ProductsItem", "PositionsItem", "ProductsItem"]
    assert kinds(items) == ["Start", *told, "Stop"]
    assert [item.first for item in items if isinstance(item, PositionsItem)] == [0, 2]
    assert [item.revision for item in items if isinstance(item, FrameItem)][-1] == 1


def test_a_torn_log_goes_on_behind_its_last_whole_message(tmp_path: Path, port: int) -> None:
    with serving(tmp_path, port) as server:
        server.open(info_of())
        send(server, range(5))
    (log,) = tmp_path.glob("feed/*.log")
    log.write_bytes(log.read_bytes()[:-7])
    with serving(tmp_path, port) as server:
        server.open(info_of(resumed=True))
        send(server, range(3, 8))
        server.close("raw-1", ACCOUNT)
        items = list(follow(f"zmq://127.0.0.1:{port}", "raw-1"))
    assert in_order(items)
    assert indices(items) == list(range(8))


def test_a_hole_that_a_killed_node_left_is_said_and_not_jumped_over(
    tmp_path: Path, port: int
) -> None:
    with serving(tmp_path, port) as server:
        server.open(info_of())
        send(server, range(3))
    with serving(tmp_path, port) as server:
        server.open(info_of(resumed=True))
        send(server, [5, 6])
        with pytest.raises(FeedGone, match="frames 3 to 4") as caught:
            list(follow(f"zmq://127.0.0.1:{port}"))
        assert caught.value.address == f"{TILED}/{DERIVED}"
        server.close("raw-1", ACCOUNT)


def test_a_run_that_is_labelled_anew_is_another_one(tmp_path: Path, port: int) -> None:
    consumer = Following(f"zmq://127.0.0.1:{port}")
    with serving(tmp_path, port) as server:
        server.open(info_of())
        send(server, range(3))
        until(lambda: len(consumer.items) == 4)
    other = DERIVED.replace("1", "2")
    with serving(tmp_path, port) as server:
        server.open(info_of(derived=other))
        send(server, range(6))
        with pytest.raises(FeedGone):
            consumer.result()
        server.close("raw-1", ACCOUNT)
        items = list(follow(f"zmq://127.0.0.1:{port}", "raw-1"))
    assert isinstance(items[0], Start)
    assert items[0].derived == other


def test_several_runs_are_told_apart(tmp_path: Path, port: int) -> None:
    other = DERIVED.replace("1", "9")
    with serving(tmp_path, port) as server:
        server.open(info_of())
        server.open(info_of("raw-2", other))
        for index in range(5):
            send(server, [index])
            send(server, [index, index], "raw-2")  # a frame that comes twice is told once
        server.close("raw-1", ACCOUNT)
        server.close("raw-2", ACCOUNT)
        for uid in ("raw-1", "raw-2", other):
            items = list(follow(f"zmq://127.0.0.1:{port}", uid))
            assert in_order(items)
            assert indices(items) == list(range(5))
            assert {item.run for item in items} == {"raw-2" if uid == other else uid}


def test_a_run_without_frames_begins_and_ends(tmp_path: Path, port: int) -> None:
    with serving(tmp_path, port) as server:
        server.open(info_of())
        server.close("raw-1", ACCOUNT)
        items = list(follow(f"zmq://127.0.0.1:{port}", "raw-1"))
    assert kinds(items) == ["Start", "Stop"]


def test_an_unknown_run_is_not_waited_for(tmp_path: Path, port: int) -> None:
    with serving(tmp_path, port), pytest.raises(FeedGone, match="keeps no such run"):
        list(follow(f"zmq://127.0.0.1:{port}", "nobody"))


def test_a_node_that_is_not_there_is_given_up(port: int) -> None:
    with pytest.raises(FeedError, match="nothing heard"):
        list(follow(f"zmq://127.0.0.1:{port}", timeout=0.2))


def test_the_oldest_runs_go_when_there_is_no_room(tmp_path: Path, port: int) -> None:
    big = {"shape": (256, 256)}
    with serving(tmp_path, port, keep_bytes=2 << 20) as server:
        for number in range(3):
            server.open(info_of(f"raw-{number}", DERIVED.replace("5", str(number))))
            send(server, range(8), f"raw-{number}", **big)
            server.close(f"raw-{number}", ACCOUNT)
        items = list(follow(f"zmq://127.0.0.1:{port}", "raw-2"))
        assert len(indices(items)) == 8
        with pytest.raises(FeedGone):
            list(follow(f"zmq://127.0.0.1:{port}", "raw-0"))
    assert sum(path.stat().st_size for path in tmp_path.glob("feed/*")) <= 3 << 20


def test_a_run_that_is_too_large_ends_in_the_feed_and_is_in_tiled(
    tmp_path: Path, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path, port, keep_bytes=1 << 20) as server:
        consumer = Following(f"zmq://127.0.0.1:{port}")
        server.open(info_of())
        send(server, range(40), shape=(256, 256))
        with pytest.raises(FeedGone, match="keep_bytes"):
            consumer.result()
        assert 0 < len(consumer.items) < 40
        assert in_order(consumer.items)
        server.close("raw-1", ACCOUNT)
    assert [r.message for r in caplog.records if "the feed ends here" in r.message] != []
    assert not list(tmp_path.glob("feed/*.log"))


def test_frames_that_come_faster_than_the_disk_end_the_feed_and_nothing_else(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "MOST_BYTES", 1000)
    with serving(tmp_path, port) as server:
        server.open(info_of())
        for first in range(0, 1000, 100):  # a batch is always taken where nothing else waits
            frames = [frame_of(index) for index in range(first, first + 100)]
            server.send("raw-1", frames, [mask_of(frame) for frame in frames])
        with pytest.raises(FeedGone, match="faster"):
            list(follow(f"zmq://127.0.0.1:{port}", "raw-1"))
        server.close("raw-1", ACCOUNT)


@pytest.fixture
def dealer(port: int):
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(f"tcp://127.0.0.1:{port}")
    yield socket
    socket.close(linger=0)
    context.term()


def request(**more: object) -> bytes:
    return json.dumps({"version": 1, "want": "", "next": 0, "credit": 4, **more}).encode()


def received(socket: "zmq.Socket[bytes]") -> list[list[bytes]]:
    """Return all messages until nothing comes for a moment."""
    messages: list[list[bytes]] = []
    while socket.poll(500):
        messages.append(socket.recv_multipart())
    return messages


def test_who_asks_for_four_gets_four_until_it_asks_again(
    tmp_path: Path, port: int, dealer: "zmq.Socket[bytes]"
) -> None:
    with serving(tmp_path, port, 0.1) as server:
        server.open(info_of())
        send(server, range(50))
        dealer.send(request(want="raw-1"))
        assert [m[0] for m in received(dealer)] == [b"granted", b"start", *[b"frame"] * 3]
        for _ in range(3):  # what is on its way is not sent again
            dealer.send(request(want="raw-1"))
        assert [m[0] for m in received(dealer)] == [b"granted"] * 3
        dealer.send(request(want="raw-1", next=4))
        assert [m[0] for m in received(dealer)] == [b"granted", *[b"frame"] * 4]


def test_nobody_gets_more_than_a_window_however_much_is_asked_for(
    tmp_path: Path, port: int, dealer: "zmq.Socket[bytes]"
) -> None:
    with serving(tmp_path, port, 0.1) as server:
        server.open(info_of())
        send(server, range(300))
        dealer.send(request(want="raw-1", credit=1 << 30))
        assert len(received(dealer)) == 1 + 64


GARBAGE = {
    "nothing": [b""],
    "noise": [b"\x00\xff" * 50],
    "a pickle": [pickle.dumps({"version": 1, "want": "", "next": 0, "credit": 1})],
    "many parts": [b"{}"] * 50,
    "another version": [request(version=2)],
    "a number for a text": [request(want=7)],
    "below zero": [request(next=-1)],
    "very much": [request(credit=1 << 70)],
    "truth": [request(next=True)],
    "deep": [b"[" * 5000],
    "a path": [request(want="../../../etc/passwd")],
    "halves of surrogates": [b'{"version": 1, "want": "\\ud800", "next": 0, "credit": 1}'],
}


@pytest.mark.parametrize("parts", GARBAGE.values(), ids=GARBAGE)
def test_after_garbage_the_next_good_consumer_is_served(
    tmp_path: Path, port: int, dealer: "zmq.Socket[bytes]", parts: list[bytes]
) -> None:
    with serving(tmp_path, port, 0.1) as server:
        server.open(info_of())
        send(server, range(3))
        dealer.send_multipart(parts)
        (answer, *_) = received(dealer)
        assert answer[0] in (b"refused", b"gone")
        server.close("raw-1", ACCOUNT)
        assert indices(list(follow(f"zmq://127.0.0.1:{port}", "raw-1"))) == [0, 1, 2]


def test_a_request_that_is_too_long_ends_the_connection(
    tmp_path: Path, port: int, dealer: "zmq.Socket[bytes]"
) -> None:
    with serving(tmp_path, port, 0.1) as server:
        dealer.send(b"x" * (1 << 20))
        assert received(dealer) == []
        server.open(info_of())
        server.close("raw-1", ACCOUNT)
        assert len(list(follow(f"zmq://127.0.0.1:{port}", "raw-1"))) == 2


def test_a_port_that_is_taken_is_said_once_and_tried_again(
    tmp_path: Path, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path / "one", port), serving(tmp_path / "two", port) as server:
        until(lambda: "cannot listen there" in caplog.text)
        server.open(info_of())
        send(server, [0])
        server.close("raw-1", ACCOUNT)
    assert caplog.text.count("cannot listen there") == 1
