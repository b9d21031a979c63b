"""One scan whose frames cannot be mistaken when turned, and what carries its documents."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import confluent_kafka as kafka
import numpy as np
import pandas as pd
from bluesky.run_engine import RunEngine
from numpy.typing import NDArray
from ptychoseg_callbacks.documents import Document, copied
from ptychoseg_callbacks.feeder import Fed, feed
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.source import Source
from tiled.queries import Key
from zmq_proxy import ON_LOOPBACK, running_proxy

from ptychoseg_stream.assemble import build_inbox, build_raw, build_segmentation
from ptychoseg_stream.profile import Profile
from ptychoseg_stream.science.frame import ValidBit
from ptychoseg_stream.sim import GoldBalls, simulate
from ptychoseg_stream.sim.optics import Pupil
from ptychoseg_stream.sinks.embedded import EmbeddedTiled

N, H, W = 24, 90, 104
CENTRE = (33.0, 66.0)  # of the ring, row and column: neither is the other
MARK = ((70, 20), (71, 20), (72, 20), (72, 21))  # an L of pixels without a value
LIMIT = 60.0  # s; only ends a test that fails

Named = tuple[str, Document]


@cache
def marked_frames() -> NDArray[np.int32]:
    """Return ``(N, H, W)`` frames: no turn or flip of them puts ring and mark in their places."""
    pupil = Pupil(center=(CENTRE[0] + 7, CENTRE[1]))
    frames = simulate(GoldBalls(n_frames=N, strong=True, pupil=pupil, drift=(1.0, -1.0))).frames
    cropped = frames[:, 7 : 7 + H].astype(np.int32)
    rows, columns = zip(*MARK, strict=True)
    cropped[:, rows, columns] = -1
    return cropped


def check_orientation(masks: Any, bits: Any) -> None:
    """Assert that ring and mark are where they were drawn."""
    masks, bits = np.asarray(masks), np.asarray(bits)
    assert masks.shape == bits.shape == (N, H, W)
    for mask, bit in zip(masks, bits, strict=True):
        gaps = {(int(y), int(x)) for y, x in np.argwhere(bit & ValidBit.GAP)}
        assert gaps == set(MARK)
        ring = np.argwhere(mask == 1)
        assert np.abs(ring.mean(axis=0) - CENTRE).max() < 2.5


class Recorder:
    """Keeps copies of documents as a RunEngine emits them."""

    def __init__(self) -> None:
        self.documents: list[Named] = []

    def __call__(self, name: str, doc: Any) -> None:
        self.documents.append((name, copied(doc)))

    @property
    def uid(self) -> str:
        return str(self.documents[0][1]["uid"])


def emit(documents: list[Named], *callbacks: Callable[[str, Any], Any]) -> None:
    """Hand documents on as a RunEngine does: to each callback in turn, with copies."""
    for name, doc in documents:
        for callback in callbacks:
            callback(name, copied(doc))


@contextmanager
def run_engine() -> Iterator[RunEngine]:
    engine = RunEngine({}, context_managers=[])
    try:
        yield engine
    finally:
        engine.loop.call_soon_threadsafe(engine.loop.stop)
        engine._th.join(10)
        engine.loop.close()


def eventually(condition: Callable[[], Any], limit: float = LIMIT) -> bool:
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def find_derived(tiled: EmbeddedTiled, profile: Profile, raw_uid: str) -> Any:
    """Return the derived run of a raw run, None as long as there is none."""
    root: Any = tiled.client()
    container = root
    for part in profile.tiled.container.split("/"):
        if part not in container:
            return None
        container = container[part]
    found = list(container.search(Key("start.original_run_uid") == raw_uid).values())
    assert len(found) <= 1
    return found[0] if found else None


@dataclass
class Answer:
    """What a derived run holds."""

    masks: NDArray[Any]
    bits: NDArray[Any]
    rows: pd.DataFrame
    start: Document
    stop: Document


def answer_of(tiled: EmbeddedTiled, profile: Profile, raw_uid: str) -> Answer:
    run = find_derived(tiled, profile, raw_uid)
    base = run["primary"].base
    metadata = run.metadata
    return Answer(
        np.asarray(base["mask"].read()),
        np.asarray(base["valid_bits"].read()),
        base["internal"].read(),
        dict(metadata["start"]),
        dict(metadata["stop"] or {}),
    )


def steady(rows: pd.DataFrame, *but: str) -> pd.DataFrame:
    """Return what must not depend on when and how documents came."""
    left = [c for c in rows.columns if c not in ("time", "latency_ms", *but)]
    kept = [column for column in left if not column.startswith("ts_")]
    return rows[kept].reset_index(drop=True)


def check_same(answer: Answer, expected: Answer, *but: str) -> None:
    """Assert that masks are equal byte by byte, and rows number by number."""
    check_orientation(answer.masks, answer.bits)
    assert answer.masks.tobytes() == expected.masks.tobytes()
    assert answer.bits.tobytes() == expected.bits.tobytes()
    pd.testing.assert_frame_equal(
        steady(answer.rows, *but), steady(expected.rows, *but), check_exact=True
    )
    account = answer.stop["account"]
    assert (account["received"], account["written"], account["lost"]) == (N, N, 0)
    assert account["announced"] == N
    assert "imbalance" not in account


@dataclass
class Node:
    """A node in this process that a source feeds, on a thread of its own."""

    profile: Profile
    api_key: str
    make_source: Callable[[Inbox], Source]
    inbox: Inbox = field(init=False)
    source: Source = field(init=False)
    fed: Fed | None = None

    def __enter__(self) -> "Node":
        raw = build_raw(self.profile)
        self.inbox = build_inbox(self.profile, raw)
        self.source = self.make_source(self.inbox)
        self._stopping = threading.Event()
        self._error: list[BaseException] = []

        def work() -> None:
            try:
                target = build_segmentation(self.profile, self.api_key, raw)
                self.fed = feed(target, self.source, self.inbox, self._stopping)
            except BaseException as error:  # noqa: BLE001
                self._error.append(error)
            finally:
                if raw is not None:
                    raw.close()

        self._thread = threading.Thread(target=work, name="node under test")
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._stopping.set()
        self.join()

    def join(self) -> Fed:
        """Wait for the end of the source."""
        self._thread.join(2 * LIMIT)
        assert not self._thread.is_alive()
        if self._error:
            raise self._error[0]
        assert self.fed is not None
        return self.fed


def label(profile: Profile, api_key: str, source: Source) -> Fed:
    """Feed a source to a node until it ends."""
    with Node(profile, api_key, lambda _: source) as node:
        fed = node.join()
    assert fed.complete
    assert fed.vitals.fault == ""
    return fed


@contextmanager
def zmq_proxy() -> Iterator[tuple[str, str]]:
    """Run bluesky's proxy in a process of its own: (in address, out address)."""
    with running_proxy(*ON_LOOPBACK) as (into, out):
        yield into, out.replace("tcp", "zmq")


class MockKafka:
    """The mock cluster of librdkafka, and the producer it lives in."""

    def __init__(self) -> None:
        config = {"bootstrap.servers": "mock:1", "test.mock.num.brokers": 1}
        self.producer = kafka.Producer(config, logger=logging.getLogger("test"))
        brokers = self.producer.list_topics(timeout=LIMIT).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def send(self, topic: str, value: bytes) -> None:
        self.producer.produce(topic, value, key=b"beamline")
        assert self.producer.flush(LIMIT) == 0
