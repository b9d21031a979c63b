"""The process of a node: started by `attach`, fed through private sockets."""

import logging
import os
import sys
from typing import Any

from ptychoseg_callbacks.segmentation import Segmentation
from ptychoseg_callbacks.worker_main import serve

from .assemble import build_segmentation
from .profile import profile_from


def build(setup: dict[str, Any]) -> Segmentation:
    """Build the pipeline of the profile that was sent."""
    return build_segmentation(profile_from(setup["profile"], "profile"))


NICENESS = 15


def give_way() -> None:
    """Let the scan come first: low priority, and one core that is never used.

    Priority alone is not enough: a plan goes to sleep and wakes up thousands of times a second, and
    each time it would wait for a moment until one of two busy cores lets it in.
    """
    os.nice(NICENESS)
    if sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[1:] or cores)


if __name__ == "__main__":
    give_way()
    logging.basicConfig(format="ptychoseg: %(message)s", level=logging.WARNING)
    sys.exit(serve(sys.argv[1], build))
