"""The child process of the tests: ``python -m callbacks_child FOLDER_OF_SOCKETS``."""

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from callbacks_support import FileSink, ThresholdLabeller, open_inbox, segmentation
from ptychoseg_callbacks.segmentation import Segmentation
from ptychoseg_callbacks.workers.main import serve


class _HeldLabeller(ThresholdLabeller):
    """Works only while the file `hold` does not exist."""

    def __init__(self, hold: Path) -> None:
        super().__init__()
        self.hold = hold

    def process(self, frames: Any) -> Any:
        while self.hold.exists():
            time.sleep(0.01)
        return super().process(frames)


def build(setup: dict[str, Any]) -> Segmentation:
    if setup.get("broken"):
        raise ValueError("the profile is broken")
    folder = Path(setup["folder"])
    (folder / "pid").write_text(str(os.getpid()))
    return segmentation(_HeldLabeller(folder / "hold"), FileSink(folder))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(serve(sys.argv[1], build, open_inbox))
