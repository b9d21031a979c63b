"""A child process that counts documents: ``python -m counting_child FOLDER_OF_SOCKETS``."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from callbacks_targets import CountingTarget, HeldByFile
from ptychoseg_callbacks.worker_main import serve


def build(setup: dict[str, Any]) -> CountingTarget:
    folder = Path(setup["folder"])
    (folder / "pid").write_text(str(os.getpid()))
    return CountingTarget(HeldByFile(folder, setup.get("die_at", -1)), folder)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(serve(sys.argv[1], build))
