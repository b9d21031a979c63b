"""The child process of `ptychoseg_callbacks.workers.process.ProcessWorker`.

One thread empties the socket into the inbox, which writes documents down, and says so; the main
thread takes them from there. So nothing waits in the RunEngine's process while a frame is labelled.
"""

import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import zmq

from ptychoseg_stream.node.guard import Guard
from ptychoseg_stream.node.vitals import Vitals

from ..documents import decode, encode
from ..loop import Close, Drain, Loop, Message, Suspend, Target
from ..queueing.inbox import Inbox

log = logging.getLogger(__name__)

DOCUMENTS, REPORTS = "documents", "reports"  # the two sockets in the private folder
_SETUP_TIMEOUT = 30.0  # s
_POLL = 100  # ms between two looks at whether the receiver is to end
_ACK_EVERY = 64  # documents
_LINGER = 1000  # ms for the last reports to be taken


def serve(
    folder: str,
    build: Callable[[dict[str, Any]], Target],
    open_inbox: Callable[[dict[str, Any]], Inbox] = lambda setup: Inbox(),
) -> int:
    """Process documents until told to close, or until the process that started this one has died.

    Parameters
    ----------
    folder : str
        Private folder with the sockets; the last argument of the command line.
    build : callable
        Setup (whatever was given to the `ProcessWorker`) -> target.
    open_inbox : callable, optional
        Setup -> inbox; one that reads earlier runs `later` lets nobody wait meanwhile.
        Default: one without journals.

    Returns
    -------
    int
        Exit code: 0 when told to close, 1 when there was no setup or `build` failed.
    """
    # Ctrl-C in the terminal pauses the RunEngine; it must not end the node.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    port = _SocketPort(folder, os.getppid())
    try:
        first = port.setup(_SETUP_TIMEOUT)
        if first is None:
            log.error("no setup came within %.0f s; ending", _SETUP_TIMEOUT)
            return 1
        setup, again = first
        guard = Guard(log)
        inbox = guard.call("open the journals", partial(open_inbox, setup), None)
        if inbox is None:
            port.failed(guard.last)
            return 1
        port.receive_into(inbox, again)  # the socket first: it must never fill up
        inbox.recover()
        target = guard.call("build the node", partial(build, setup), None)
        if target is None:
            port.failed(guard.last)
            return 1
        Loop(target, port).run()
        return 0
    finally:
        port.close()


class _SocketPort:
    """The loop's end of the two sockets, and the thread that empties one of them."""

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
        self._sending = threading.Lock()  # two threads report
        self._inbox = Inbox()
        self._again = 0
        self._unacknowledged = 0
        self._ending = threading.Event()
        self._receiver = threading.Thread(target=self._receive, name="ptychoseg-receiver")

    def setup(self, timeout: float) -> tuple[dict[str, Any], int] | None:
        """Return the first message: the setup, and how many documents may come again."""
        if not self._documents.poll(int(1000 * timeout)):
            return None
        setup, again = decode(self._documents.recv())
        return setup, again

    def receive_into(self, inbox: Inbox, again: int) -> None:
        """Have a thread empty the socket from now on."""
        self._inbox = inbox
        self._again = again
        self._receiver.start()

    def take(self, timeout: float) -> Message | None:
        return self._inbox.take(timeout)

    def ending(self) -> Suspend | None:
        return None  # whoever closes it waits for all that was sent

    def alive(self) -> bool:
        return os.getppid() == self._parent

    def waiting(self) -> int:
        return self._inbox.waiting

    def report(self, vitals: Vitals) -> None:
        self._send("vitals", vitals.to_dict())
        self._acknowledge()

    def stored(self, number: int) -> None:
        """Nobody asks: the RunEngine does not deliver again."""

    def drained(self, token: int, complete: bool) -> None:
        self._send("drained", token, complete)

    def failed(self, reason: str) -> None:
        """Tell why there is no node."""
        self._send("failed", reason)

    def close(self) -> None:
        """End the thread, leave unfinished journals to the next process, and free the sockets."""
        self._ending.set()
        self._inbox.close()
        if self._receiver.is_alive():
            self._receiver.join()
        self._documents.close()
        self._reports.close()
        self._context.term()
        if not self.alive():
            shutil.rmtree(self._folder, ignore_errors=True)  # nobody else is left to do it

    def _receive(self) -> None:
        while not self._ending.is_set():
            if not self._documents.poll(_POLL):
                continue
            while not self._ending.is_set() and self._documents.poll(0):
                data = self._documents.recv()
                self._guard.call("read a document", partial(self._accept, data), None)
                if self._unacknowledged >= _ACK_EVERY:
                    self._acknowledge()
            self._acknowledge()

    def _accept(self, data: bytes) -> None:
        kind, *rest = decode(data)
        if kind == "document":
            name, doc, arrived, sender = rest
            self._inbox.put(name, doc, arrived, sender, redelivered=sender <= self._again)
            self._unacknowledged += 1
            return
        # First what came before: who waits for the answer looks at the backlog next.
        self._acknowledge()
        self._inbox.tell({"drain": Drain, "close": Close}[kind](*rest))

    def _acknowledge(self) -> None:
        inbox = self._inbox
        self._unacknowledged = 0
        with self._sending:  # computed and sent at once: the last one is right
            self._send_now("taken", inbox.safe, inbox.last_sender, inbox.waiting)

    def _send(self, *report: Any) -> None:
        with self._sending:
            self._send_now(*report)

    def _send_now(self, *report: Any) -> None:
        try:
            self._reports.send(encode(report), zmq.NOBLOCK)
        except zmq.Again:
            log.debug("nobody reads reports; dropped one")
