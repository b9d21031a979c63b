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
"""The scan comes first: where cores are few, labelling takes what the scan leaves."""


if __name__ == "__main__":
    os.nice(NICENESS)
    logging.basicConfig(format="ptychoseg: %(message)s", level=logging.WARNING)
    sys.exit(serve(sys.argv[1], build))
