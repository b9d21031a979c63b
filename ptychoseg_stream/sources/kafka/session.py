"""One consumer of a topic, from its first poll to its last commit."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import SourceError, SourceLost
from .feeder import Feeder, Fetched
from .offsets import Offsets
from .secrets import CarefulLog

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

log = logging.getLogger(__name__)

_TICK = 0.1  # s
_COMMIT_EVERY = 1.0  # s
_ANSWER = 10.0  # s that a broker may take to answer


def kafka() -> Any:
    """Return the package confluent_kafka, which only those need who listen to Kafka.

    Raises
    ------
    SourceError
        If it is not installed.
    """
    try:
        import confluent_kafka
    except ImportError as error:
        raise SourceError(
            "documents over Kafka need the package confluent-kafka: "
            "pip install 'ptychoseg-stream[kafka]'"
        ) from error
    return confluent_kafka


class Session:
    """Polls a topic, and gives up what is stored; used by one thread, which never works or waits.

    Parameters
    ----------
    topic : str
        Where documents are.
    config : mapping
        Of librdkafka, complete.
    from_end : bool
        Where a group begins that has no offsets yet: at the end, or at the beginning.
    feeder : Feeder
        Takes the messages.
    offsets : Offsets
        Knows what is stored.
    careful : CarefulLog
        Takes librdkafka's own lines, and knows what must not be logged.
    monotonic : callable
        Seconds of a clock that never jumps.

    Raises
    ------
    confluent_kafka.KafkaException
        If librdkafka does not take its settings.
    """

    def __init__(
        self,
        topic: str,
        config: Mapping[str, Any],
        from_end: bool,
        feeder: Feeder,
        offsets: Offsets,
        careful: CarefulLog,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kafka = kafka()
        self._topic = topic
        self._from_end = from_end
        self._feeder = feeder
        self._offsets = offsets
        self._secrets = careful.secrets
        self._now = monotonic
        self._paused = False
        self._committed: dict[int, int] = {}
        self._commit_at = monotonic()
        self._fatal = ""
        self._told: set[int] = set()
        ours = {"error_cb": self._problem, "on_commit": self._committed_or_not}
        self._consumer: Consumer = self._kafka.Consumer({**config, **ours}, logger=careful)

    def run(self, stopping: threading.Event, settle: float) -> None:
        """Poll until `stopping` is set, then for `settle` [s] until all is stored.

        Raises
        ------
        confluent_kafka.KafkaException
            When Kafka does not answer while partitions are assigned; begin another session.
        SourceLost
            When librdkafka, or the thread that hands documents on, has given up for good.
        """
        try:
            self._consumer.subscribe(
                [self._topic],
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._lost,
            )
            while not stopping.is_set():
                self._flow()
                self._poll(self._feeder.put)
            self._feeder.end()
            end = self._now() + settle
            while self._now() < end and (self._feeder.busy or len(self._offsets)):
                self._poll(lambda _: None)
            self._commit_now()
        finally:
            self._consumer.close()

    def _flow(self) -> None:
        """Fetch no more than can be handed on, and go on polling all the same."""
        if not self._feeder.busy:
            raise SourceLost(f"topic {self._topic}: documents are not taken any more")
        if not self._paused and self._feeder.full:
            self._consumer.pause(self._consumer.assignment())
            self._paused = True
        elif self._paused and self._feeder.low:
            self._consumer.resume(self._consumer.assignment())
            self._paused = False

    def _poll(self, take: Callable[[Fetched], None]) -> None:
        message = self._consumer.poll(_TICK)
        if self._fatal:
            raise SourceLost(self._fatal)
        if message is not None:
            error = message.error()
            if error is None:
                take(self._fetched(message))
            else:
                self._problem(error)
        if self._now() >= self._commit_at:
            self._commit_at = self._now() + _COMMIT_EVERY
            safe = self._offsets.safe()
            if safe != self._committed:
                self._committed = safe
                self._consumer.commit(offsets=self._places(safe), asynchronous=True)

    def _fetched(self, message: "Message") -> Fetched:
        value = message.value()
        place = message.partition(), message.offset()
        data = value if isinstance(value, bytes) else b""
        return Fetched(data, place[0] or 0, place[1] or 0, self._offsets.era)

    def _commit_now(self) -> None:
        """Commit and wait for the answer; what is not committed comes again, which does no harm."""
        safe = self._offsets.safe()
        if safe:
            try:
                self._consumer.commit(offsets=self._places(safe), asynchronous=False)
            except self._kafka.KafkaException as error:
                self._committed_or_not(error.args[0], [])

    def _places(self, offsets: Mapping[int, int]) -> "list[TopicPartition]":
        place = self._kafka.TopicPartition
        return [place(self._topic, partition, offset) for partition, offset in offsets.items()]

    def _assigned(self, consumer: "Consumer", partitions: "list[TopicPartition]") -> None:
        """Begin where the group left off; a group without offsets learns where it began.

        Else a node that is killed before its first commit would leave out what came before it was
        started again.
        """
        known = consumer.committed(partitions, timeout=_ANSWER)
        new: dict[int, int] = {}
        for place in known:
            if place.error is not None:
                raise self._kafka.KafkaException(place.error)
            if place.offset < 0:
                low, high = consumer.get_watermark_offsets(place, timeout=_ANSWER)
                new[place.partition] = place.offset = high if self._from_end else low
        self._forget(new)
        self._from_end = False  # of a partition that is made later, nothing is left out
        consumer.assign(known)
        self._told.clear()
        where = ", ".join(f"{place.partition} from {place.offset}" for place in known)
        log.info("topic %s: listening to partitions %s", self._topic, where or "(none)")

    def _revoked(self, _: "Consumer", __: "list[TopicPartition]") -> None:
        self._commit_now()
        self._forget({})

    def _lost(self, _: "Consumer", __: "list[TopicPartition]") -> None:
        log.warning(
            "topic %s: Kafka took this node for dead; what was not stored comes again", self._topic
        )
        self._forget({})

    def _forget(self, positions: Mapping[int, int]) -> None:
        self._offsets.begin(positions)
        self._feeder.clear()
        self._committed = {}
        self._paused = False

    def _committed_or_not(self, error: "KafkaError | None", _: "Sequence[TopicPartition]") -> None:
        if error is not None and error.code() != self._kafka.KafkaError._NO_OFFSET:
            self._committed = {}  # try again
            if error.code() not in self._told:
                self._told.add(error.code())
                text = self._secrets.text_of(error)
                log.warning("topic %s: offsets not committed: %s", self._topic, text)

    def _problem(self, error: "KafkaError") -> None:
        """Report an error once; librdkafka goes on trying, unless it says that it is fatal."""
        codes = self._kafka.KafkaError
        code, text = error.code(), self._secrets.text_of(error)
        if error.fatal():
            self._fatal = f"topic {self._topic}: {text}; start the node again"
        if code in (codes.UNKNOWN_TOPIC_OR_PART, codes._UNKNOWN_TOPIC):
            self._from_end = False  # it will be made later, and then all of it is new
        if code == codes._PARTITION_EOF or code in self._told:
            return
        self._told.add(code)
        log.error("topic %s: %s; %s", self._topic, text, self._advice(code))

    def _advice(self, code: int) -> str:
        codes = self._kafka.KafkaError
        if code in (codes.UNKNOWN_TOPIC_OR_PART, codes._UNKNOWN_TOPIC):
            return "waiting until it is made; is its name right?"
        if code in (codes._AUTHENTICATION, codes.SASL_AUTHENTICATION_FAILED):
            return "check security.protocol, sasl.username and sasl.password in config"
        if code == codes._SSL:
            return "check ssl.ca.location, and the other settings ssl.* in config"
        if code in (codes.TOPIC_AUTHORIZATION_FAILED, codes.GROUP_AUTHORIZATION_FAILED):
            return "ask for the right to read the topic and to use the group"
        return "it is tried on and on; are the brokers running, and are their names right?"
