"""Go on with the eventful run from a checkpoint in a file: run as a process of its own."""

import hashlib
import sys
from pathlib import Path

from eventful import EVENTFUL, eventful_frames
from node_support import contents, node_of

from ptychoseg_stream.assemble import single_threaded


def digest_of(masks) -> str:
    return hashlib.sha256(repr(contents(masks)).encode()).hexdigest()


if __name__ == "__main__":
    single_threaded()
    first = int(sys.argv[2])
    node = node_of(EVENTFUL)
    node.open("run", Path(sys.argv[1]).read_bytes())
    sys.stdout.write(digest_of(node.process(eventful_frames()[first:])))
