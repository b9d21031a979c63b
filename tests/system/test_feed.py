"""Whoever follows a node that is killed and started again misses nothing."""

import socket
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from doomed_node import doomed, moments
from kills_support import FRAMES, Recorded, assert_same, content, kill_profile, pace, write_profile

from ptychoseg_stream.feed import FrameItem, Item, Start, Stop, follow
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.feed.options import FeedOptions
from ptychoseg_stream.sinks.feed.server import FeedServer

pytestmark = pytest.mark.slow


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Consumer(threading.Thread):
    """Follows the next run."""

    def __init__(self, place: str) -> None:
        super().__init__(daemon=True)
        self.items: list[Item] = []
        self._place = place
        self.start()

    def run(self) -> None:
        for item in follow(f"zmq://{self._place}", timeout=120):
            self.items.append(item)


@pytest.mark.parametrize("seed", range(1))
def test_a_consumer_of_a_node_that_is_killed_gets_every_frame_once(
    recorded: Recorded, tiled: EmbeddedTiled, tmp_path: Path, seed: int
) -> None:
    place = free_endpoint()
    profile = kill_profile(tmp_path, tiled, f"killed/feed{seed}")
    profile = replace(profile, feed=FeedOptions(serve=f"tcp://{place}"))
    path = write_profile(profile, tmp_path / "kills.yml")
    command = ["replay", str(recorded.file), "--pace", pace(recorded), "--profile", path]
    consumer = Consumer(place)
    with doomed(command, profile, tmp_path, tiled.api_key) as node:
        code = node.live_through(moments(40 + seed, 4, recorded.duration), "replaying")
    assert code in (0, -9)
    assert node.kills >= 3
    # The last life may have been too short for it to come back: the next node has what is left.
    server = FeedServer(profile.feed, profile.spool)
    consumer.join(60)
    server.shutdown()
    items = consumer.items
    assert [item.seq for item in items] == list(range(len(items)))
    assert isinstance(items[0], Start)
    assert isinstance(items[-1], Stop)
    frames = [item for item in items if isinstance(item, FrameItem)]
    assert [frame.index for frame in frames] == list(range(FRAMES))
    found = content(tiled, profile.tiled.container, recorded.raw)
    assert_same(found, recorded.expected)
    assert items[0].derived == found.uid
    for frame in frames:
        assert np.array_equal(frame.image, recorded.frames[frame.index])
        assert np.array_equal(frame.classes, found.arrays["mask"][frame.index])
        assert np.array_equal(frame.valid_bits, found.arrays["valid_bits"][frame.index])
    account = found.account.items()
    assert {name: value for name, value in account if name in items[-1].account} == {
        name: value for name, value in items[-1].account.items() if name != "imbalance"
    }
