"""A node that dies of one image: ``python dying_node.py FOLDER [first]``."""

import json
import logging
import os
import resource
import sys
from collections.abc import Generator
from typing import Any

from callbacks_targets import CountingTarget, ListSource, documents, mark_of
from ptychoseg_callbacks.feeder import feed
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_callbacks.loop import Received
from ptychoseg_callbacks.queueing.inbox import Inbox

from ptychoseg_stream.node.spool import SpoolOptions

DEADLY = 13


class DyingTarget(CountingTarget):
    """Ends the process as a library does that is given a damaged file."""

    def steps(self, received: Received) -> Generator[None]:
        if received.name == "event" and mark_of(received.doc) == DEADLY:
            os.abort()
        yield from super().steps(received)


def first_documents() -> list[tuple[str, Any]]:
    """Return those of a harmless run, and of one that is deadly; none of them stops."""
    return [*documents("harmless", 3)[:-1], *documents("deadly", 2, first=DEADLY - 1)[:-1]]


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    target = DyingTarget()
    docs = first_documents() if sys.argv[2:] else []
    inbox = Inbox(Journals(SpoolOptions(sys.argv[1], min_free_bytes=0)))
    feed(target, ListSource(docs), inbox)
    sys.stdout.write(json.dumps({run.raw: run.marks for run in target.runs}))
