"""Against the mock cluster of librdkafka: real sockets, groups, offsets; joining takes 3 to 5 s."""

import logging
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka as kafka
import msgpack
import msgpack_numpy
import numpy as np
import pytest
from ptychoseg_callbacks.documents import Document
from ptychoseg_callbacks.source import Source

from ptychoseg_stream.errors import SourceError
from ptychoseg_stream.sources.kafka.documents import KafkaDocuments
from ptychoseg_stream.sources.kafka.offsets import Offsets
from ptychoseg_stream.sources.kafka.options import KafkaOptions, brokers_and_topic

LIMIT = 40.0  # s until a test gives up waiting
SHORT = {"session.timeout.ms": "6000"}


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + LIMIT
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


class Cluster:
    """A mock cluster, and the producer it lives in."""

    def __init__(self) -> None:
        self.producer = kafka.Producer(
            {"bootstrap.servers": "mock:1", "test.mock.num.brokers": 1},
            logger=logging.getLogger("test"),
        )
        brokers = self.producer.list_topics(timeout=LIMIT).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def url(self, topic: str) -> str:
        return f"kafka://{self.servers}/{topic}"

    def send(self, topic: str, *values: bytes) -> None:
        for value in values:
            self.producer.produce(topic, value, key=b"beamline")
        assert self.producer.flush(LIMIT) == 0

    def publish(self, topic: str, *uids: str) -> None:
        self.send(topic, *(packed("event", {"uid": uid}) for uid in uids))

    def committed(self, topic: str, group: str) -> dict[int, int]:
        """Return what the group will read next, by partition that it has read of."""
        config = {"bootstrap.servers": self.servers, "group.id": group}
        consumer = kafka.Consumer(config, logger=logging.getLogger("test"))
        places = [kafka.TopicPartition(topic, partition) for partition in range(4)]
        found = consumer.committed(places, timeout=LIMIT)
        consumer.close()
        return {place.partition: place.offset for place in found if place.offset > 0}


def packed(name: str, doc: Any) -> bytes:
    """As bluesky-kafka writes, once msgpack is patched by msgpack_numpy."""
    return msgpack.packb((name, doc), default=msgpack_numpy.encode)


class Listener:
    """A source that runs in a thread, and what it fed."""

    def __init__(self, source: KafkaDocuments) -> None:
        self.source = source
        self.fed: list[tuple[str, Document]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=source.run, args=(self.take, self.stopping))
        self.thread.start()

    def take(self, name: str, doc: Document) -> int:
        self.gate.wait(LIMIT)
        self.fed.append((name, doc))
        return len(self.fed)

    @property
    def uids(self) -> list[str]:
        return [str(doc["uid"]) for _, doc in self.fed]

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster()


def earliest(group: str, **config: str) -> KafkaOptions:
    config = {key.replace("_", "."): value for key, value in config.items()}
    return KafkaOptions(group, "earliest", {**SHORT, **config}, settle=0.5)


@pytest.fixture
def listen(cluster: Cluster) -> Iterator[Callable[..., Listener]]:
    listeners: list[Listener] = []

    def start(topic: str, options: KafkaOptions) -> Listener:
        listeners.append(Listener(KafkaDocuments(cluster.url(topic), options)))
        return listeners[-1]

    yield start
    for listener in listeners:
        listener.gate.set()
        listener.stopping.set()
    for listener in listeners:
        listener.stop()


@pytest.fixture(scope="module")
def shared(cluster: Cluster) -> Iterator[Listener]:
    """One listener for the tests that need no other: joining a group takes long."""
    cluster.publish("shared", "first")
    listener = Listener(KafkaDocuments(cluster.url("shared"), earliest("shared")))
    assert eventually(lambda: len(listener.fed) > 0)
    yield listener
    listener.stop()


def test_documents_arrive_in_order_with_their_arrays(cluster: Cluster, shared: Listener) -> None:
    before = len(shared.fed)
    images = [np.full((5, 6), index, np.uint16) for index in range(20)]
    events = [
        {"uid": f"event {index}", "data": {"image": image}, "x": np.float64(index)}
        for index, image in enumerate(images)
    ]
    cluster.send("shared", *(packed("event", event) for event in events))
    assert eventually(lambda: len(shared.fed) == before + 20)
    for event, (name, doc) in zip(events, shared.fed[before:], strict=True):
        assert name == "event"
        assert doc["uid"] == event["uid"]
        assert doc["data"]["image"].dtype == np.uint16
        np.testing.assert_array_equal(doc["data"]["image"], event["data"]["image"])


def test_offsets_are_committed_only_of_what_is_stored(cluster: Cluster, shared: Listener) -> None:
    before = len(shared.fed)
    cluster.publish("shared", "a", "b", "c", "d")
    assert eventually(lambda: len(shared.fed) == before + 4)
    (partition,) = [
        part for part in range(4) if cluster.producer.list_topics("shared") and high(cluster, part)
    ]
    end = high(cluster, partition)
    shared.source.stored(len(shared.fed) - 2)
    assert eventually(lambda: cluster.committed("shared", "shared") == {partition: end - 2})
    assert shared.source.waiting == 2
    shared.source.stored(1)  # an older answer changes nothing
    shared.source.stored(len(shared.fed))
    assert eventually(lambda: cluster.committed("shared", "shared") == {partition: end})


def high(cluster: Cluster, partition: int, topic: str = "shared") -> int:
    consumer = kafka.Consumer({"bootstrap.servers": cluster.servers, "group.id": "looks"})
    place = kafka.TopicPartition(topic, partition)
    end = consumer.get_watermark_offsets(place, timeout=LIMIT)[1]
    consumer.close()
    return end


def test_what_is_no_document_is_left_out_and_given_up_with_those_before_it(
    cluster: Cluster, shared: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    before, unreadable = len(shared.fed), shared.source.unreadable
    poison = [b"", b"\xc1noise" * 1000, packed("event", {})[:-1], pickle.dumps(["event", {}])]
    cluster.publish("shared", "good")
    cluster.send("shared", *poison, packed("halt", {}))
    cluster.publish("shared", "good, too")
    cluster.send("shared", *poison)
    assert eventually(lambda: len(shared.fed) == before + 2)
    assert eventually(lambda: shared.source.unreadable == unreadable + 9)
    ends = [high(cluster, partition) for partition in range(4)]
    shared.source.stored(len(shared.fed))
    assert eventually(lambda: list(cluster.committed("shared", "shared").values()) == [max(ends)])
    assert sum("a pickle:" in line for line in caplog.messages) == 1
    assert all("bluesky-kafka" in line for line in caplog.messages if "left out" in line)


def test_a_probe_tells_whether_a_topic_is_there(cluster: Cluster) -> None:
    cluster.publish("probed", "1")
    assert KafkaDocuments(cluster.url("probed")).probe(LIMIT) == ""
    assert "absent" in KafkaDocuments(cluster.url("absent")).probe(LIMIT)
    assert KafkaDocuments("kafka://127.0.0.1:9/scan").probe(0.5).startswith("127.0.0.1:9: ")


@pytest.mark.slow
def test_after_a_restart_what_was_not_stored_comes_again(cluster: Cluster, listen: Any) -> None:
    topic = "restarted"
    cluster.publish(topic, *"abcdef")
    first = listen(topic, earliest(topic))
    assert eventually(lambda: len(first.fed) == 6)
    first.source.stored(4)
    first.stop()
    cluster.publish(topic, topic)
    second = listen(topic, earliest(topic))
    assert eventually(lambda: len(second.fed) == 3)
    assert second.uids == ["e", "f", topic]
    second.source.stored(3)
    second.stop()
    assert list(cluster.committed(topic, topic).values()) == [7]


@pytest.mark.slow
def test_the_end_waits_until_what_was_handed_on_is_stored(cluster: Cluster, listen: Any) -> None:
    cluster.publish("settled", *"abc")
    options = KafkaOptions("settled", "earliest", SHORT, settle=LIMIT)
    listener = listen("settled", options)
    assert eventually(lambda: len(listener.fed) == 3)
    listener.stopping.set()
    time.sleep(0.5)
    assert listener.thread.is_alive()
    listener.source.stored(3)
    listener.stop()
    assert list(cluster.committed("settled", "settled").values()) == [3]


@pytest.mark.slow
def test_after_a_kill_nothing_is_lost(cluster: Cluster, listen: Any) -> None:
    topic = "killed"
    uids = [str(number) for number in range(30)]
    cluster.publish(topic, *uids)
    child = Path(__file__).with_name("kafka_child.py")
    command = [sys.executable, str(child), cluster.url(topic), topic, "10"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline().strip() for _ in range(30)]
        assert eventually(lambda: list(cluster.committed(topic, topic).values()) == [10])
        process.kill()
    assert seen == uids
    cluster.publish(topic, "30")
    listener = listen(topic, earliest(topic))
    assert eventually(lambda: len(listener.fed) == 21)
    assert listener.uids == [*uids[10:], "30"]


@pytest.mark.slow
def test_a_group_that_was_killed_before_its_first_commit_begins_where_it_began(
    cluster: Cluster, listen: Any
) -> None:
    cluster.publish("young", "old news")
    options = KafkaOptions("young", "latest", SHORT, settle=0.0)
    first = listen("young", options)
    assert eventually(lambda: 1 in cluster.committed("young", "young").values())
    cluster.publish("young", "a", "b")
    assert eventually(lambda: first.uids == ["a", "b"])
    first.stop()  # nothing was reported as stored
    second = listen("young", options)
    assert eventually(lambda: second.uids == ["a", "b"])


@pytest.mark.slow
def test_of_a_topic_that_is_made_later_nothing_is_left_out(
    cluster: Cluster, listen: Any, caplog: pytest.LogCaptureFixture
) -> None:
    listener = listen("later", KafkaOptions("later", "latest", SHORT, settle=0.0))
    assert eventually(lambda: any("waiting until it is made" in line for line in caplog.messages))
    cluster.publish("later", "a", "b")
    assert eventually(lambda: listener.uids == ["a", "b"])


@pytest.mark.slow
def test_a_callback_that_waits_for_long_keeps_the_consumer_in_its_group(
    cluster: Cluster, listen: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    uids = [str(number) for number in range(2500)]
    cluster.publish("waited", *uids[:1500])
    listener = listen("waited", earliest("waited", max_poll_interval_ms="6000"))
    listener.gate.clear()
    assert eventually(lambda: any("listening" in line for line in caplog.messages))
    time.sleep(9)  # longer than Kafka allows between two polls
    cluster.publish("waited", *uids[1500:])
    listener.gate.set()
    assert eventually(lambda: len(listener.fed) == 2500)
    assert listener.uids == uids
    assert sum("listening to partitions" in line for line in caplog.messages) == 1
    assert not any("took this node for dead" in line for line in caplog.messages)


@pytest.mark.slow
def test_a_second_node_of_the_group_is_given_what_the_first_has_not_stored(
    cluster: Cluster, listen: Any
) -> None:
    topic = "rebalanced"

    def publish(first: int, last: int) -> None:  # to several partitions
        for number in range(first, last):
            value = packed("event", {"uid": str(number)})
            cluster.producer.produce(topic, value, key=str(number).encode())
        assert cluster.producer.flush(LIMIT) == 0

    publish(0, 40)
    first = listen(topic, earliest(topic))
    assert eventually(lambda: len(first.fed) == 40)
    first.source.stored(25)
    assert eventually(lambda: sum(cluster.committed(topic, topic).values()) == 25)
    second = listen(topic, earliest(topic))
    assert eventually(lambda: len(first.fed) + len(second.fed) == 40 + 15)
    assert sorted(first.uids[40:] + second.uids) == sorted(first.uids[25:40])
    publish(40, 80)
    assert eventually(lambda: len(first.fed) + len(second.fed) == 40 + 15 + 40)
    assert len(set(second.uids) & {str(number) for number in range(40, 80)}) > 0
    first.source.stored(len(first.fed))
    second.source.stored(len(second.fed))
    assert eventually(lambda: sum(cluster.committed(topic, topic).values()) == 80)


@pytest.mark.slow
def test_brokers_that_do_not_answer_are_reported_and_waited_for(
    listen: Any, caplog: pytest.LogCaptureFixture
) -> None:
    listener = Listener(KafkaDocuments("kafka://127.0.0.1:9/scan", earliest("g")))
    assert eventually(lambda: any("are the brokers running" in line for line in caplog.messages))
    assert listener.thread.is_alive()
    listener.stop()


def test_a_setting_that_librdkafka_does_not_take_is_an_error_without_the_secret() -> None:
    options = KafkaOptions(config={"security.protocol": "env:KIND"})
    source = KafkaDocuments("kafka://localhost/scan", options, {"KIND": "hunter2"})
    with pytest.raises(SourceError, match=r"security\.protocol") as caught:
        source.run(lambda *_: 1, threading.Event())
    assert "hunter2" not in str(caught.value)
    options = KafkaOptions(config={"no.such.setting": "1"})
    with pytest.raises(SourceError, match=r"^config: .*no.such.setting"):
        KafkaDocuments("kafka://localhost/scan", options).run(lambda *_: 1, threading.Event())


def test_a_secret_comes_from_the_environment_only() -> None:
    with pytest.raises(ValueError, match=r"^config: sasl.password is a secret") as caught:
        KafkaOptions(config={"sasl.password": "hunter2"})
    assert "hunter2" not in str(caught.value)
    options = KafkaOptions(config={"sasl.password": "env:WORD", "sasl.username": "node"})
    assert options.resolved({"WORD": "hunter2"}) == (
        {"sasl.password": "hunter2", "sasl.username": "node"},
        ["hunter2"],
    )
    with pytest.raises(SourceError, match=r"set environment variable WORD, used by sasl\.password"):
        KafkaDocuments("kafka://localhost/scan", options, {})


@pytest.mark.parametrize(
    "options",
    [
        {"group": " "},
        {"settle": -1.0},
        {"config": {"group.id": "a"}},
        {"config": {"enable.auto.commit": "true"}},
        {"config": {"ssl.key.pem": "-----BEGIN"}},
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^(group|settle|config): "):
        KafkaOptions(**options)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("kafka://a:9092/scan", ("a:9092", "scan")),
        ("kafka://a,b.example:9,[::1]:7/b.docs", ("a:9092,b.example:9,[::1]:7", "b.docs")),
    ],
)
def test_an_address_names_brokers_and_a_topic(url: str, expected: tuple[str, str]) -> None:
    assert brokers_and_topic(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "kafka://a:9092",
        "kafka://a:9092/",
        "kafka:///scan",
        "kafka://a:9092/two/parts",
        "kafka://a:99999/scan",
        "kafka://a:port/scan",
        "kafka://a,,b/scan",
        "kafka://name:hunter2@a:9092/scan",
        "zmq://a:9092/scan",
        "",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SourceError, match="give kafka://BROKER:9092/TOPIC") as caught:
        KafkaDocuments(url)
    assert "hunter2" not in str(caught.value)


def test_without_the_package_the_error_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['confluent_kafka'] = None\n"
        "from ptychoseg_stream.sources.kafka.documents import KafkaDocuments\n"
        "KafkaDocuments('kafka://localhost/scan')"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "SourceError" in answer.stderr
    assert "pip install 'ptychoseg-stream[kafka]'" in answer.stderr


def test_importing_the_source_patches_nothing() -> None:
    code = (
        "import msgpack; before = msgpack.packb, msgpack.unpackb, msgpack.dumps\n"
        "import ptychoseg_stream.sources.kafka.documents, sys\n"
        "assert (msgpack.packb, msgpack.unpackb, msgpack.dumps) == before\n"
        "print('confluent_kafka' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "False", answer.stderr


def test_a_partition_is_given_up_no_further_than_all_before_is_stored() -> None:
    offsets = Offsets()
    for number, partition, offset in [(1, 0, 10), (2, 1, 70), (3, 0, 11), (4, 1, 71)]:
        offsets.handed_on(number, partition, offset, era=0)
    assert offsets.safe() == {}
    offsets.stored(3)
    assert offsets.safe() == {0: 12, 1: 71}
    assert len(offsets) == 1
    offsets.stored(2)
    offsets.left_out(0, 12, era=0)
    assert offsets.safe() == {0: 12, 1: 71}
    offsets.stored(4)
    assert offsets.safe() == {0: 13, 1: 72}


def test_what_was_fetched_before_partitions_changed_hands_is_not_given_up() -> None:
    offsets = Offsets()
    offsets.handed_on(1, 0, 5, era=0)
    offsets.begin({3: 100})
    offsets.handed_on(2, 0, 6, era=0)
    offsets.stored(2)
    assert offsets.safe() == {3: 100}
    offsets.handed_on(3, 0, 5, era=offsets.era)
    offsets.stored(3)
    assert offsets.safe() == {0: 6, 3: 100}


def test_documents_come_again_over_kafka() -> None:
    source: Source = KafkaDocuments("kafka://localhost:9092/scan")
    assert source.redelivers is True
