"""A real HTTP server in front of Tiled that fails the way networks and servers do."""

import http.client
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class FaultyProxy:
    """Passes requests on to a server, unless told otherwise.

    Attributes
    ----------
    status : int
        What requests are answered instead, from now on; 0: they are passed on; -1: the connection
        is closed without an answer.
    after : int
        The same, but when the server has done what was asked.
    chosen : callable
        (method, path) -> whether a request is affected.
    delay : float
        How long each request affected is held back [s].
    prefix : str
        The server is only to be found below this path, as in "/tiled".
    requests : list of str
        Method and path of each request.
    keys : list of str
        Authorization header of each request.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.status = self.after = 0
        self.delay = 0.0
        self.prefix = ""
        self.chosen: Callable[[str, str], bool] = lambda method, path: True
        self.requests: list[str] = []
        self.keys: list[str] = []
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def mend(self) -> None:
        self.status = self.after = 0
        self.delay = 0.0


class _Server(ThreadingHTTPServer):
    """Says nothing of clients that went away: commands under test share its stderr."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _ask(
    address: str, asked: BaseHTTPRequestHandler, body: bytes
) -> tuple[int, list[tuple[str, str]], bytes] | None:
    """Ask the server behind the proxy; None if it does not answer."""
    target = urlsplit(address)
    connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
    headers = {k: v for k, v in asked.headers.items() if k.lower() not in HOP}
    try:
        connection.request(asked.command, asked.path, body, headers)
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read()
    except OSError:
        return None
    finally:
        connection.close()


def _handler(proxy: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def pass_on(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length)
            proxy.requests.append(f"{self.command} {self.path}")
            proxy.keys.append(self.headers.get("authorization", ""))
            affected = proxy.chosen(self.command, self.path)
            status, after = (proxy.status, proxy.after) if affected else (0, 0)
            if affected and proxy.delay:
                time.sleep(proxy.delay)
            if not self.path.startswith(proxy.prefix):
                self.fail(404)
                return
            self.path = self.path.removeprefix(proxy.prefix)
            if status:
                self.fail(status)
                return
            answer = _ask(proxy.target, self, body)
            if answer is None:
                self.fail(-1)
            elif after:
                self.fail(after)
            else:
                self.answer(*answer)

        def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in HOP:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                self.close_connection = True

        def fail(self, status: int) -> None:
            if status < 0:
                self.close_connection = True
                self.connection.close()
                return
            self.answer(status, [("content-type", "application/json")], b'{"detail": "no"}')

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = pass_on

    return Handler
