"""Program: run ``tiled serve config FILE`` for as long as the process that started it lives.

`embedded` starts it by path, with a pipe on stdin that nobody writes to. The pipe closes when the
parent ends, however it ends, and the server follows. It imports nothing of this package.
"""

import os
import runpy
import signal
import sys
import threading
import time
from functools import cached_property

from sqlalchemy.pool import QueuePool
from tiled.storage import SQLStorage

GRACE = 5.0
NICENESS = 10  # it shares its machine with a scan


def main() -> None:
    """Serve the configuration named on the command line."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    _give_way()
    _one_table_at_a_time()
    # The key comes by environment. Handed on as an argument, which no other process can see here,
    # it is not printed to the log by Tiled.
    key = os.environ.pop("TILED_SINGLE_USER_API_KEY")
    sys.argv = ["tiled", "serve", "config", sys.argv[1], "--api-key", key]
    runpy.run_module("tiled", run_name="__main__")


def _give_way() -> None:
    """Leave one core to the scan, which shares this machine: see the node's process."""
    os.nice(NICENESS)
    if sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[1:] or cores)


def _one_table_at_a_time() -> None:
    """Have requests that use tables wait for each other.

    Tiled 0.2.20 gives all threads the same DuckDB connection: two clients that append at the same
    moment, such as a writer of raw runs and a node, end the server with a segmentation fault.
    """

    def pool(storage: SQLStorage) -> QueuePool:
        connect = storage._adbc_connection.adbc_clone  # pyright: ignore[reportPrivateUsage]
        return QueuePool(connect, pool_size=1, max_overflow=0)

    waiting = cached_property(pool)
    waiting.__set_name__(SQLStorage, "_connection_pool")
    SQLStorage._connection_pool = waiting  # pyright: ignore[reportPrivateUsage]


def _follow_parent() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


if __name__ == "__main__":
    main()
