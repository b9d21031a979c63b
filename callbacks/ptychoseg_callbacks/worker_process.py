"""A worker in a process of its own: what labelling costs, or breaks, does not touch the RunEngine.

The parent sends documents, the child sends reports, both as msgpack through ZMQ sockets in a folder
that only this user can enter. ZMQ sends from a thread of its own that needs no GIL.
`multiprocessing` is not used: it would run a user's script again when `attach` is at its top level.
"""

import logging
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import zmq

from ptychoseg_stream.errors import PtychosegError
from ptychoseg_stream.node.ports import Clock
from ptychoseg_stream.node.vitals import Vitals

from .documents import Document, decode, encode
from .worker import Backlog, Tickets, WorkerOptions
from .worker_main import DOCUMENTS, REPORTS

log = logging.getLogger(__name__)

_MAX_PATH = 100  # bytes; operating systems allow 104 to 108 in the path of a socket
_POLL = 200  # ms between two looks at whether the child still runs
_KILL_AFTER = 2.0  # s


class ProcessWorker:
    """Sends copies of documents to a child process, and starts a new child when one has died.

    Parameters
    ----------
    command : sequence of str
        Starts a child, as in ``[sys.executable, "-m", "package.module"]``; the folder of the
        sockets is appended, and the module gives it to `ptychoseg_callbacks.worker_main.serve`.
    setup : mapping
        Plain data that the child gets first.
    env : mapping of str to str
        Added to the environment of the child.
    options : WorkerOptions
        What it may use.
    clock : callable
        Seconds since the epoch: when a document arrived.

    Raises
    ------
    OSError
        When the command cannot be run.
    """

    def __init__(
        self,
        command: Sequence[str],
        setup: Mapping[str, Any],
        env: Mapping[str, str] | None = None,
        options: WorkerOptions | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._command = list(command)
        self._setup = dict(setup)
        self._env = dict(env or {})
        self._clock = clock
        self._backlog = Backlog((options or WorkerOptions()).max_bytes)
        self._tickets = Tickets()
        self._vitals = Vitals()
        self._fault = ""
        self._lost = 0
        self._closed = False
        self._lock = threading.Lock()  # guards the sending socket, and which child there is
        with self._lock:
            self._child = self._start()

    @property
    def lost(self) -> int:
        """Documents that went down with a child, or came before there was a new one."""
        return self._lost

    @property
    def pid(self) -> int | None:
        """Process id of the child; None when there is none."""
        return None if self._child.gone else self._child.pid

    def submit(self, name: str, doc: Document) -> None:
        """Send a copy of a document; a start document also starts a child if there is none.

        Raises
        ------
        PtychosegError
            After `close`.
        """
        if self._closed:
            raise PtychosegError("the node was closed: attach a new one to the RunEngine")
        with self._lock:
            if self._child.gone and name == "start":
                self._child = self._start()
            if self._child.gone:
                self._lost += 1
                return
            fitting, size = self._backlog.fit(name, doc)
            message = encode(["document", name, fitting, self._clock()])
            self._backlog.add(size)
            self._child.send(message)

    def vitals(self) -> Vitals:
        """Return the last report of the child, at most 0.1 s old unless a batch takes longer."""
        vitals = self._vitals
        backlog = vitals.backlog + len(self._backlog)
        return replace(vitals, backlog=backlog, fault=self._fault or vitals.fault)

    def drain(self, timeout: float) -> bool:
        """Wait until all is processed and stored; False if that took longer than `timeout` [s]."""
        token = self._tickets.issue()
        with self._lock:
            if self._child.gone:
                self._tickets.answer(token, False)
            else:
                self._child.send(encode(["drain", token, timeout]))
        return self._tickets.wait(token, timeout)

    def close(self, timeout: float) -> None:
        """Have the child process and store what it has, for `timeout` [s] at most, and end."""
        with self._lock:
            self._closed = True
            if not self._child.gone:
                self._child.send(encode(["close", timeout]))
        self._child.end(timeout)

    def _start(self) -> "_Child":
        self._fault = ""
        child = _Child(self._command, self._env, self._heard, self._died)
        child.send(encode(self._setup))
        return child

    def _heard(self, kind: str, *report: Any) -> None:
        """Take a report of the child; on the thread that watches it."""
        if kind == "vitals":
            self._vitals = Vitals.from_dict(report[0])
            self._backlog.done(report[1])
        elif kind == "drained":
            self._tickets.answer(*report)
        elif kind == "failed":
            self._fault = report[0]

    def _died(self, child: "_Child", code: int) -> None:
        """Note that a child has ended; on the thread that watches it."""
        with self._lock:
            child.gone = True
            given_up = self._backlog.clear()
            self._lost += given_up
            if not self._closed or code != 0:
                why = f": {self._fault}" if self._fault else ""
                self._fault = (
                    f"worker process {child.pid} ended with {_exit_text(code)}{why}; the "
                    f"rest of the open runs is lost ({given_up} documents so far); the scan goes "
                    "on, and the next run starts a new worker process"
                )
                log.error("%s", self._fault)
        self._tickets.answer_all()


class _Child:
    """One child process, the socket to it, and the thread that reads its reports.

    Parameters
    ----------
    command, env
        See `ProcessWorker`.
    heard : callable
        Called with each report.
    died : callable
        Called once with this object and the exit code, after the last report.

    Attributes
    ----------
    gone : bool
        Whether it has ended; read and written under the worker's lock.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        heard: Callable[..., None],
        died: Callable[["_Child", int], None],
    ) -> None:
        self.gone = False
        self._heard = heard
        self._died = died
        self._folder = _private_folder()
        self._context = zmq.Context()
        # The child binds: then this end may send before the child is there, and never has to wait.
        self._documents = self._context.socket(zmq.PUSH)
        self._documents.sndhwm = 0
        self._documents.connect(f"ipc://{self._folder / DOCUMENTS}")
        self._reports = self._context.socket(zmq.PULL)
        self._reports.bind(f"ipc://{self._folder / REPORTS}")
        try:
            self._process = subprocess.Popen(
                [*command, str(self._folder)],
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal is for the RunEngine
            )
        except OSError:
            self._release()
            raise
        self.pid = self._process.pid
        self._watcher = threading.Thread(target=self._watch, name="ptychoseg-watcher", daemon=True)
        self._watcher.start()

    def send(self, message: bytes) -> None:
        """Leave a message to ZMQ; the caller holds the worker's lock and knows it is not gone."""
        self._documents.send(message, zmq.NOBLOCK, copy=False)

    def end(self, timeout: float) -> None:
        """Wait for the child, which was told to close, for `timeout` [s]; then kill it."""
        self._watcher.join(timeout)
        if self._watcher.is_alive():
            log.error("worker process %d did not end within %.0f s; killing it", self.pid, timeout)
            self._process.terminate()
            self._watcher.join(_KILL_AFTER)
        if self._watcher.is_alive():
            self._process.kill()
            self._watcher.join()

    def _watch(self) -> None:
        running = True
        while running:
            running = self._process.poll() is None
            while self._reports.poll(_POLL if running else 0):
                self._heard(*decode(self._reports.recv()))
        self._died(self, self._process.returncode)
        self._release()

    def _release(self) -> None:
        self._context.destroy(linger=0)
        shutil.rmtree(self._folder, ignore_errors=True)


def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="ptychoseg-"))  # mode 0700
    if len(os.fsencode(folder / DOCUMENTS)) > _MAX_PATH:
        folder.rmdir()
        raise PtychosegError(
            f"the path of the temporary folder {folder} is too long for a socket: "
            "set the environment variable TMPDIR to a shorter one"
        )
    return folder


def _exit_text(code: int) -> str:
    names = {number.value: number.name for number in signal.Signals}
    return f"signal {names.get(-code, -code)}" if code < 0 else f"exit code {code}"
