"""The process of a node: started by `attach`, fed through private sockets."""

import logging
import os
import sys
from typing import Any

from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.segmentation import Segmentation
from ptychoseg_callbacks.workers.main import serve

from .assemble import build_inbox, build_raw, build_segmentation
from .profile import profile_from


def build(setup: dict[str, Any]) -> Segmentation:
    """Build the pipeline of the profile that was sent."""
    profile = profile_from(setup["profile"], "profile")
    return build_segmentation(profile, raw=build_raw(profile))


def open_inbox(setup: dict[str, Any]) -> Inbox:
    """Build the inbox of the profile that was sent."""
    profile = profile_from(setup["profile"], "profile")
    return build_inbox(profile, build_raw(profile), later=True)


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
    logging.getLogger("ptychoseg_callbacks.accounts").setLevel(logging.INFO)
    sys.exit(serve(sys.argv[1], build, open_inbox))
