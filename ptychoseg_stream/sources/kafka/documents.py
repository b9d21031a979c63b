"""Documents from Kafka, as bluesky-kafka's Publisher writes them; given up only when stored.

The package bluesky_kafka itself is not imported: it patches msgpack for the whole process, commits
on a timer, and works in the thread that polls.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ptychoseg_callbacks.source import Callback

from ...errors import SourceError
from ..messages import Messages
from .feeder import Feeder
from .offsets import Offsets
from .options import KafkaOptions, brokers_and_topic
from .secrets import CarefulLog, Secrets
from .session import Session, kafka

log = logging.getLogger(__name__)

_ADVICE = "is something other than bluesky-kafka's Publisher writing to this topic?"
_PAUSE = 2.0  # s before another session
_PATIENCE = {"reconnect.backoff.ms": 1000, "reconnect.backoff.max.ms": 10000}
"""A broker that is down is tried so often; librdkafka's own choice is many times a second."""


class KafkaDocuments:
    """Feeds the documents of a topic; a `ptychoseg_callbacks.source.Source`.

    Parameters
    ----------
    url : str
        ``kafka://BROKER:9092,BROKER2:9092/TOPIC``.
    options : KafkaOptions
        Group, where it begins, and settings of librdkafka.
    environment : mapping of str to str
        Where values ``env:NAME`` are looked up; default: that of the process.
    monotonic : callable
        Seconds of a clock that never jumps.

    Raises
    ------
    SourceError
        For an address that is none, a variable that is not set, or without confluent-kafka.
    """

    def __init__(
        self,
        url: str,
        options: KafkaOptions | None = None,
        environment: Mapping[str, str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kafka = kafka()
        self._options = options or KafkaOptions()
        self._brokers, self._topic = brokers_and_topic(url)
        extra, hidden = self._options.resolved(os.environ if environment is None else environment)
        self._secrets = Secrets(hidden)
        self._careful = CarefulLog(log, self._secrets)  # of all sessions: it knows what was said
        self._config: dict[str, Any] = {
            **_patience(extra),
            **extra,
            "bootstrap.servers": self._brokers,
            "group.id": self._options.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Only for a position that Kafka has deleted: then the first document that is left.
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "range",
        }
        self._now = monotonic
        self._offsets = Offsets()
        self._messages = Messages(f"topic {self._topic}", _ADVICE, log)
        self._feeder: Feeder | None = None

    @property
    def redelivers(self) -> bool:
        """Yes: what was not stored when a node ended comes again."""
        return True

    @property
    def received(self) -> int:
        """Documents handed on."""
        return 0 if self._feeder is None else self._feeder.received

    @property
    def unreadable(self) -> int:
        """Messages that were left out."""
        return self._messages.unreadable

    @property
    def waiting(self) -> int:
        """Documents handed on that are not stored yet."""
        return len(self._offsets)

    def run(self, callback: Callback, stopping: threading.Event) -> None:
        """Feed documents until `stopping` is set, and commit what is stored.

        After that it waits for `KafkaOptions.settle` seconds at most until the rest is stored, too.

        Raises
        ------
        SourceError
            If librdkafka does not take its settings, or gives up for good.
        """
        feeder = self._feeder = Feeder(callback, self._messages, self._offsets)
        try:
            while not stopping.is_set():
                try:
                    self._session(feeder).run(stopping, self._options.settle)
                except self._kafka.KafkaException as error:
                    text = self._secrets.text_of(error)
                    log.error("topic %s: %s; connecting again", self._topic, text)
                    stopping.wait(_PAUSE)
        finally:
            feeder.end()
        log.info(
            "topic %s: %d documents received, %d messages left out, %d not stored",
            self._topic,
            self.received,
            self.unreadable,
            self.waiting,
        )

    def stored(self, number: int) -> None:
        """Learn that all documents up to `number` are safe; they are committed within a second."""
        self._offsets.stored(number)

    def probe(self, timeout: float) -> str:
        """Return why the topic cannot be read, asking for `timeout` [s]; empty if it can."""
        try:
            consumer = self._kafka.Consumer(self._config, logger=self._careful)
            try:
                found = consumer.list_topics(self._topic, timeout=timeout).topics[self._topic].error
            finally:
                consumer.close()
        except self._kafka.KafkaException as error:
            return f"{self._brokers}: {self._secrets.text_of(error)}"
        return "" if found is None else f"topic {self._topic}: {self._secrets.text_of(found)}"

    def _session(self, feeder: Feeder) -> Session:
        from_end = self._options.offset_reset == "latest" and not self._offsets.era
        try:
            return Session(
                self._topic,
                self._config,
                from_end,
                feeder,
                self._offsets,
                self._careful,
                self._now,
            )
        except self._kafka.KafkaException as error:
            raise SourceError(f"config: librdkafka says: {self._secrets.text_of(error)}") from None


def _patience(config: Mapping[str, str]) -> dict[str, int]:
    """Return when brokers are tried again, unless a profile says anything about it."""
    return {} if _PATIENCE.keys() & config.keys() else dict(_PATIENCE)
