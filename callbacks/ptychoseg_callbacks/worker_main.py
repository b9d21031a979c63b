"""The child process of `ptychoseg_callbacks.worker_process.ProcessWorker`."""

import logging
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import zmq

from ptychoseg_stream.node.vitals import Vitals

from .documents import decode, encode
from .guard import Guard
from .loop import Close, Drain, Loop, Message, Received, Target

log = logging.getLogger(__name__)

DOCUMENTS, REPORTS = "documents", "reports"  # the two sockets in the private folder
_SETUP_TIMEOUT = 30.0  # s
_LINGER = 1000  # ms for the last reports to be taken


def serve(folder: str, build: Callable[[dict[str, Any]], Target]) -> int:
    """Process documents until told to close, or until the process that started this one has died.

    Parameters
    ----------
    folder : str
        Private folder with the sockets; the last argument of the command line.
    build : callable
        Setup (whatever was given to the `ProcessWorker`) -> target.

    Returns
    -------
    int
        Exit code: 0 when told to close, 1 when there was no setup or `build` failed.
    """
    # Ctrl-C in the terminal pauses the RunEngine; it must not end the node.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    port = _SocketPort(folder, os.getppid())
    try:
        setup = port.setup(_SETUP_TIMEOUT)
        if setup is None:
            log.error("no setup came within %.0f s; ending", _SETUP_TIMEOUT)
            return 1
        guard = Guard(log)
        target = guard.call("build the node", partial(build, setup), None)
        if target is None:
            port.failed(guard.last)
            return 1
        Loop(target, port).run()
        return 0
    finally:
        port.close()


class _SocketPort:
    """The loop's end of the two sockets."""

    def __init__(self, folder: str, parent: int) -> None:
        self._folder = folder
        self._parent = parent
        self._guard = Guard(log)
        self._context = zmq.Context()
        self._documents = self._context.socket(zmq.PULL)
        self._documents.rcvhwm = 0
        self._documents.bind(f"ipc://{Path(folder) / DOCUMENTS}")
        self._reports = self._context.socket(zmq.PUSH)
        self._reports.linger = _LINGER
        self._reports.connect(f"ipc://{Path(folder) / REPORTS}")

    def setup(self, timeout: float) -> dict[str, Any] | None:
        """Return the first message."""
        return decode(self._documents.recv()) if self._poll(timeout) else None

    def take(self, timeout: float) -> Message | None:
        if not self._poll(timeout):
            return None
        data = self._documents.recv()
        return self._guard.call("read a document", partial(_message, data), None)

    def alive(self) -> bool:
        return os.getppid() == self._parent

    def report(self, vitals: Vitals, processed: int) -> None:
        # A document that could not be read is done with, too.
        self._send("vitals", vitals.to_dict(), processed + self._guard.failures)

    def drained(self, token: int, complete: bool) -> None:
        self._send("drained", token, complete)

    def failed(self, reason: str) -> None:
        """Tell why there is no node."""
        self._send("failed", reason)

    def close(self) -> None:
        self._documents.close()
        self._reports.close()
        self._context.term()
        if not self.alive():
            shutil.rmtree(self._folder, ignore_errors=True)  # nobody else is left to do it

    def _poll(self, timeout: float) -> bool:
        return bool(self._documents.poll(int(1000 * timeout)))

    def _send(self, *report: Any) -> None:
        try:
            self._reports.send(encode(report), zmq.NOBLOCK)
        except zmq.Again:
            log.debug("nobody reads reports; dropped one")


def _message(data: bytes) -> Message:
    kind, *rest = decode(data)
    return {"document": Received, "drain": Drain, "close": Close}[kind](*rest)
