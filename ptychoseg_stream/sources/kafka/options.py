"""Settings and addresses of documents over Kafka."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ...errors import SourceError
from ..shown import shown

_PORT = 9092
_FORM = "give kafka://BROKER:9092/TOPIC, several brokers separated by commas"
_ENV = "env:"
_OURS = {
    "bootstrap.servers": "it is in the address of the source",
    "group.id": "set group",
    "auto.offset.reset": "set offset_reset",
    "enable.auto.commit": "offsets are committed when rows are stored",
    "enable.auto.offset.store": "offsets are committed when rows are stored",
    "partition.assignment.strategy": "partitions are taken and given back together",
    "group.protocol": "partitions are taken and given back together",
}


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How documents are taken from a topic.

    Parameters
    ----------
    group : str
        Consumer group: Kafka remembers by this name what is stored. One node per group.
    offset_reset : {"latest", "earliest"}
        Where a group that Kafka does not know yet begins: with documents to come, or with the first
        that is kept.
    config : mapping of str to str
        Further settings of librdkafka, such as ``security.protocol``. A value ``env:NAME`` is read
        from environment variable NAME; passwords must be given so.
    settle : float
        How long the end waits until what was handed on is stored [s]; the rest comes again.

    Raises
    ------
    ValueError
        If a value makes no sense; its text begins with the name of the field.
    """

    group: str = "ptychoseg"
    offset_reset: Literal["latest", "earliest"] = "latest"
    config: Mapping[str, str] = field(default_factory=dict[str, str])
    settle: float = 3.0

    def __post_init__(self) -> None:
        """Refuse what cannot work; a secret is never repeated."""
        if not self.group.strip():
            raise ValueError("group: it is empty; Kafka remembers by this name what is stored")
        if self.settle < 0:
            raise ValueError(f"settle: {self.settle} must not be below 0 s")
        for key, value in self.config.items():
            if key in _OURS:
                raise ValueError(f"config: leave out {key}; {_OURS[key]}")
            if _is_secret(key) and not value.startswith(_ENV):
                raise ValueError(
                    f"config: {key} is a secret; put it into an environment variable NAME and "
                    f"write {_ENV}NAME"
                )

    def resolved(self, environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
        """Return `config` with the values of environment variables, and a list of those values.

        Raises
        ------
        SourceError
            If a variable is not set.
        """
        config, hidden = dict(self.config), list[str]()
        for key, value in self.config.items():
            if value.startswith(_ENV):
                name = value.removeprefix(_ENV)
                if not environment.get(name):
                    raise SourceError(f"config: set environment variable {name}, used by {key}")
                config[key] = environment[name]
                hidden.append(environment[name])
        return config, hidden


def brokers_and_topic(url: str) -> tuple[str, str]:
    """Return what librdkafka calls bootstrap.servers, and the topic.

    Raises
    ------
    SourceError
        If one of them is missing or malformed.
    """
    scheme, _, rest = url.partition("://")
    servers, _, topic = rest.partition("/")
    if "@" in rest:
        raise SourceError(
            f"an address of Kafka has neither user nor password: put sasl.username into config; "
            f"{_FORM}"
        )
    if scheme != "kafka" or not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", topic):
        raise SourceError(f"{shown(url)}: not a topic to listen to; {_FORM}")
    brokers = [_with_port(server.strip(), url) for server in servers.split(",")]
    return ",".join(brokers), topic


def _with_port(server: str, url: str) -> str:
    match = re.fullmatch(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?", server)
    if match is None or not 0 < int(match[2] or _PORT) < 1 << 16:
        raise SourceError(f"{url}: {server!r} is no broker; {_FORM}")
    return f"{match[1]}:{match[2] or _PORT}"


def _is_secret(key: str) -> bool:
    return "password" in key or "secret" in key or key == "ssl.key.pem"
