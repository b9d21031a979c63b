"""Bluesky's 0MQ proxy in a process of its own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ON_LOOPBACK = ("--in-address", "127.0.0.1", "--out-address", "127.0.0.1")


@contextmanager
def running_proxy(*arguments: str) -> Iterator[tuple[str, str]]:
    """A real proxy: (in address, out address)."""
    command = [sys.executable, "-u", "-m", "bluesky.commandline.zmq_proxy", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            text = ""
            while "Ctrl+C" not in text and process.poll() is None:
                text += process.stdout.readline()
            into, out = re.findall(r"tcp://127.0.0.1:\d+", text)
            yield into, out
        finally:
            process.kill()
