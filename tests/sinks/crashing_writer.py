"""Program: writes a run through a `TiledSink`, slowly, until it is killed or done.

Arguments: URI, spool folder, container, derived uid, first row, rows, whether it is resumed. The
key comes by environment. Prints each count of rows that are safe.
"""

import sys
import time
from dataclasses import replace

from sinks_support import account_of, alarm_of, mask_of, run_info, stage_of

from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.tiled import TiledSink


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(uri: str, folder: str, container: str, uid: str, first: int, rows: int, resumed: bool):
    options = TiledOptions(
        uri=uri, container=container, batch_rows=4, batch_seconds=0.02, retry_wait=0.1, timeout=5.0
    )
    sink = TiledSink(options, SpoolOptions(folder, min_free_bytes=0))
    sink.open(replace(run_info(), derived=uid, began=5.0, resumed=resumed))
    safe = 0
    for index in range(first, rows):
        alarms = (alarm_of(index),) if index % 5 == 0 else ()
        stages = (stage_of(index // 10),) if index % 10 == 0 else ()
        sink.write("raw-1", [mask_of(index, alarms=alarms, stages=stages)])
        time.sleep(0.01)
        if sink.stored("raw-1") > safe:
            safe = sink.stored("raw-1")
            say(str(safe))
    sink.close("raw-1", account_of(rows))
    say("settled" if sink.drain(60) and sink.settled("raw-1") else sink.fault())
    while not sink.address("raw-1").startswith("http"):
        time.sleep(0.05)
    sink.shutdown()
    say("sent")


if __name__ == "__main__":
    main(*sys.argv[1:5], int(sys.argv[5]), int(sys.argv[6]), sys.argv[7] == "resumed")
