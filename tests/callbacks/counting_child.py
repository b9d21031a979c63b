"""A child process that counts documents: ``python -m counting_child FOLDER_OF_SOCKETS``."""

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from callbacks_support import open_inbox
from callbacks_targets import CountingTarget, HeldByFile
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.workers.main import serve


def build(setup: dict[str, Any]) -> CountingTarget:
    folder = Path(setup["folder"])
    (folder / "pid").write_text(str(os.getpid()))
    return CountingTarget(HeldByFile(folder, setup.get("die_at", -1)), folder)


def open_slowly(setup: dict[str, Any]) -> Inbox:
    """Return an inbox; its journals are so long that they are read while the file exists."""
    inbox = open_inbox(setup)
    recover, hold = inbox.recover, Path(setup["folder"]) / "reading"

    def recover_slowly() -> None:
        while hold.exists():
            time.sleep(0.01)
        recover()

    inbox.recover = recover_slowly  # type: ignore[method-assign]
    return inbox


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(serve(sys.argv[1], build, open_slowly))
