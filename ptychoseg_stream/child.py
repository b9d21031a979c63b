"""The process of a node: started by `attach`, fed through private sockets."""

import logging
import sys
from typing import Any

from ptychoseg_callbacks.segmentation import Segmentation
from ptychoseg_callbacks.worker_main import serve

from .assemble import build_segmentation
from .profile import profile_from


def build(setup: dict[str, Any]) -> Segmentation:
    """Build the pipeline of the profile that was sent."""
    return build_segmentation(profile_from(setup["profile"], "profile"))


if __name__ == "__main__":
    logging.basicConfig(format="ptychoseg: %(message)s", level=logging.WARNING)
    sys.exit(serve(sys.argv[1], build))
