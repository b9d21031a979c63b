"""One child process of a `ProcessWorker`, and the sockets to it."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import zmq

from ptychoseg_stream.errors import PtychosegError

from ..documents import decode
from .main import DOCUMENTS, REPORTS

_MAX_PATH = 100  # bytes; operating systems allow 104 to 108 in the path of a socket
_POLL = 200  # ms between two looks at whether the child still runs


class Child:
    """A child process that can be sent to before it is there.

    Parameters
    ----------
    command : sequence of str
        Starts it; the folder of the sockets is appended.
    env : mapping of str to str
        Added to the environment.

    Raises
    ------
    OSError
        When the command cannot be run.
    PtychosegError
        When the temporary folder cannot hold a socket.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
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
            self.release()
            raise
        self.pid = self._process.pid

    def send(self, message: bytes) -> None:
        """Leave a message to ZMQ; the caller sees to it that one thread sends at a time."""
        self._documents.send(message, zmq.NOBLOCK, copy=False)

    def watch(self, heard: Callable[..., None]) -> int:
        """Call `heard` with each report until the child has ended; return its exit code."""
        running = True
        while running:
            running = self._process.poll() is None
            while self._reports.poll(_POLL if running else 0):
                heard(*decode(self._reports.recv()))
        return self._process.returncode

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it."""
        self._process.kill()

    def release(self) -> None:
        """Free the sockets, once nobody sends any more."""
        self._context.destroy(linger=0)
        shutil.rmtree(self._folder, ignore_errors=True)


def exit_text(code: int) -> str:
    """Say an exit code in words."""
    names = {number.value: number.name for number in signal.Signals}
    return f"signal {names.get(-code, -code)}" if code < 0 else f"exit code {code}"


def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="ptychoseg-"))  # mode 0700
    if len(os.fsencode(folder / DOCUMENTS)) > _MAX_PATH:
        folder.rmdir()
        raise PtychosegError(
            f"the path of the temporary folder {folder} is too long for a socket: "
            "set the environment variable TMPDIR to a shorter one"
        )
    return folder
