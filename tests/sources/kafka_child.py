"""Listens to a topic until it is killed; writes the uid of each document (see the tests)."""

import sys
import threading
from typing import Any

from ptychoseg_stream.sources.kafka.documents import KafkaDocuments
from ptychoseg_stream.sources.kafka.options import KafkaOptions


def main(url: str, group: str, stored: int) -> None:
    """Report the first `stored` documents as stored, at once."""
    options = KafkaOptions(group, "earliest", {"session.timeout.ms": "6000"})
    source = KafkaDocuments(url, options)
    numbers = iter(range(1, sys.maxsize))

    def callback(_: str, doc: Any) -> int:
        number = next(numbers)
        sys.stdout.write(f"{doc['uid']}\n")
        sys.stdout.flush()
        source.stored(min(number, stored))
        return number

    source.run(callback, threading.Event())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
