"""A real Tiled server for as long as a program runs: for the demo, tutorials and tests."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import httpx
from tiled.client import from_uri
from tiled.client.container import Container

from ..errors import StoreError

PORT_ATTEMPTS = 3
POLL = 0.05


class EmbeddedTiled:
    """Starts a Tiled server in a process of its own, and ends it.

    SQLite catalogue, DuckDB tables and Zarr arrays in one folder; loopback only; a free port; a
    random API key. The server ends with the process that started it, even if that is killed.

    Parameters
    ----------
    folder : Path or str or None
        Where the server keeps its data; one that exists is used again. None for a temporary one.
    readable : sequence of Path or str
        Folders with detector files that the server may read.
    keep : bool
        Whether a temporary folder outlives the server.
    timeout : float
        How long the server may take to start [s].

    Attributes
    ----------
    uri : str
        Address, without the key; empty while the server is not running.
    api_key : str
        The key.
    folder : Path
        Where the server keeps its data and its log, ``server.log``.

    Examples
    --------
    ::

        with EmbeddedTiled() as server:
            server.client().create_container("a")
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        readable: Sequence[Path | str] = (),
        keep: bool = False,
        timeout: float = 60.0,
    ) -> None:
        self.uri = ""
        self.api_key = secrets.token_hex(32)
        self._temporary = folder is None
        self.folder = Path() if folder is None else Path(folder).expanduser().resolve()
        self._readable = [Path(path).expanduser().resolve() for path in readable]
        self._keep = keep
        self._timeout = timeout
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Container] = []

    def __enter__(self) -> "EmbeddedTiled":
        """Start the server; return when it answers."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the server."""
        self.stop()

    def start(self) -> None:
        """Start the server; return when it answers.

        One that was killed comes back with its address, its key and its data.

        Raises
        ------
        StoreError
            If it does not; with the end of its log.
        """
        self._end_process()
        if self._temporary and self.folder == Path():
            self.folder = Path(tempfile.mkdtemp(prefix="ptychoseg-tiled-"))
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            undo.callback(self.stop)
            for attempt in range(1, PORT_ATTEMPTS + 1):
                port = self._port or _free_port()
                if self._launch(port):
                    self._port = port
                    self.uri = f"http://127.0.0.1:{port}"
                    undo.pop_all()
                    return
                # Somebody else may have taken the port in between.
                if attempt == PORT_ATTEMPTS or "address already in use" not in self._log():
                    raise StoreError(self._failure())
                self._end_process()
                self._port = 0

    def stop(self) -> None:
        """End the server; remove its folder if that was temporary."""
        while self._clients:
            self._clients.pop().context.close()
        self._end_process()
        self.uri, self._port = "", 0
        if self._temporary and not self._keep and self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = Path()

    def kill(self) -> None:
        """End the server at once, as a power cut would; its folder stays until `stop`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int | None:
        """Process id of the server, None while it is not running."""
        return None if self._process is None else self._process.pid

    def client(self) -> Container:
        """Return a client of the root; its connections are closed when the server ends.

        Raises
        ------
        StoreError
            If the server is not running.
        """
        if not self.uri:
            raise StoreError("the embedded Tiled server is not running: call start() first")
        client = from_uri(self.uri, api_key=self.api_key, remember_me=False, trust_env=False)
        self._clients.append(client)
        return client

    def _launch(self, port: int) -> bool:
        config = self.folder / "config.json"  # JSON is YAML
        config.write_text(json.dumps(self._config(port), indent=1))
        program = str(Path(__file__).with_name("serve.py"))
        environment = {**os.environ, "TILED_SINGLE_USER_API_KEY": self.api_key}
        # -P: the folder of the program, which has a module called tiled, must not be searched.
        command = [sys.executable, "-P", program, str(config)]
        with (self.folder / "server.log").open("wb") as log:
            self._process = _spawn(command, environment, log)
        end = time.monotonic() + self._timeout
        while time.monotonic() < end and self._process.poll() is None:
            if _healthy(port):
                return True
            time.sleep(POLL)
        return False

    def _config(self, port: int) -> dict[str, Any]:
        data = self.folder / "data"
        tree = {
            "path": "/",
            "tree": "catalog",
            "args": {
                "uri": f"sqlite:///{self.folder / 'catalog.db'}",
                "writable_storage": [str(data), f"duckdb:///{self.folder / 'tables.duckdb'}"],
                "readable_storage": [str(path) for path in self._readable],
                "init_if_not_exists": True,
            },
        }
        return {
            "authentication": {"allow_anonymous_access": False},
            "uvicorn": {"host": "127.0.0.1", "port": port, "timeout_graceful_shutdown": 2},
            "trees": [tree],
            # What subscribers may still ask for stays in memory; a minute's worth is enough.
            "streaming_cache": {"uri": "memory", "data_ttl": 60},
            "media_types": {
                "BlueskyRun": {
                    "application/json-seq": "bluesky_tiled_plugins.exporters:json_seq_exporter"
                }
            },
        }

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def _failure(self) -> str:
        code = None if self._process is None else self._process.poll()
        why = f"no answer in {self._timeout:g} s" if code is None else f"it ended with code {code}"
        return f"the embedded Tiled server did not start: {why}; its log ends\n{self._log()}"

    def _log(self) -> str:
        path = self.folder / "server.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return text.replace(self.api_key, "***")[-2000:]


def _spawn(command: list[str], env: dict[str, str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
    # A session of its own: Ctrl-C in the terminal is for the program, which then ends the server
    # after the last masks.
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=env,
        start_new_session=True,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _healthy(port: int) -> bool:
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=1.0, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code == HTTPStatus.OK
