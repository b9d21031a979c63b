"""Hears over websockets that something changed in Tiled.

A notice says only *that* there is something new. What it is, is asked for afterwards: Tiled sends
notices before it stores, sends some for what it refuses, and forgets those of a slow listener.
"""

import asyncio
import logging
import ssl
import threading
from contextlib import suppress
from types import TracebackType
from urllib.parse import quote

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from .address import Path
from .client import TiledClient

log = logging.getLogger(__name__)

_MOST_BYTES = 1 << 24  # of one notice
_MOST_CONNECTIONS = 64


class Notices:
    """Listens to nodes of a server on one thread of its own; a context manager.

    A listener that cannot connect tries again for ever, and says so once: who waits here has to
    look by itself now and then, anyway.

    Parameters
    ----------
    client : TiledClient
        Names the server, and how to authenticate.
    again : float
        Pause between two attempts to connect [s].
    """

    def __init__(self, client: TiledClient, again: float = 5.0) -> None:
        """Take the server; nothing is connected yet."""
        base = client.address.base
        self._base = "ws" + base.removeprefix("http") + "/api/v1/stream/single"
        self._headers = client.headers
        self._local = client.address.local
        self._timeout = client.timeout
        self._again = again
        self._heard = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[Path, asyncio.Task[None]] = {}
        self._told = False
        self._thread = threading.Thread(target=self._live, name="ptychoseg-notices", daemon=True)

    def __enter__(self) -> "Notices":
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections and end the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def watch(self, *paths: Path) -> None:
        """Listen to nodes, too."""
        for path in paths:
            if path not in self._tasks and len(self._tasks) < _MOST_CONNECTIONS:
                self._loop.call_soon_threadsafe(self._begin, path)

    def forget(self, path: Path) -> None:
        """Listen no more to a node and to what is in it."""
        self._loop.call_soon_threadsafe(self._end, path)

    def wait(self, timeout: float) -> bool:
        """Wait for a notice; return whether there was one since the last call."""
        heard = self._heard.wait(timeout)
        self._heard.clear()
        return heard

    def _begin(self, path: Path) -> None:
        if path not in self._tasks:
            self._tasks[path] = self._loop.create_task(self._listen(path))

    def _end(self, path: Path) -> None:
        for known in [one for one in self._tasks if one[: len(path)] == path]:
            self._tasks.pop(known).cancel()

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.close()

    async def _listen(self, path: Path) -> None:
        while True:
            try:
                await self._hear(path)
            except (OSError, TimeoutError, ssl.SSLError, WebSocketException) as error:
                self._tell(error)
            # Whatever ended it: something may have changed that nobody heard.
            self._heard.set()
            await asyncio.sleep(self._again)

    async def _hear(self, path: Path) -> None:
        uri = "/".join((self._base, *(quote(key, safe="") for key in path)))
        connection = connect(
            f"{uri}?envelope_format=msgpack",
            additional_headers=self._headers,
            max_size=_MOST_BYTES,
            open_timeout=self._timeout,
            close_timeout=1.0,
            proxy=None if self._local else True,
        )
        async with connection as socket:
            with suppress(ConnectionClosed):
                while True:
                    self._heard.set()
                    await socket.recv()

    def _tell(self, error: Exception) -> None:
        if self._told:
            return
        self._told = True
        why = type(error).__name__
        if isinstance(error, InvalidStatus):
            why = f"{error.response.status_code}"
        log.warning(
            "Tiled at %s sends no notices (%s): new frames are looked for now and then instead",
            self._base,
            why,
        )
