"""The sink that writes masks to a Tiled server while the scan runs."""

import atexit
import os
import threading
import time
from collections.abc import Callable, Sequence

import httpx
from tiled.client.container import Container

from ..errors import StoreError
from ..node.ports import Account, Clock, RunInfo
from ..science.frame import Mask
from .arrays import nbytes
from .connection import connect
from .courier import Courier, Route
from .derived import Derived
from .hdf5 import HDF5Sink
from .options import TiledOptions
from .rows import Row
from .worker import Worker

KEPT = 256  # closed runs whose place and size are remembered


class TiledSink:
    """Writes one derived BlueskyRun per raw run; a `node.ports.Sink`.

    Callers only enqueue. A thread batches rows and talks to the server; `tiled_run` draws the
    layout. A run that the server does not take goes, whole, to an HDF5 file in
    ``options.unsent_folder``, and one line in the log says why and where.

    Parameters
    ----------
    options : TiledOptions
        Server, container, batches and limits.
    client_factory : callable, optional
        Returns a Tiled client, in place of a connection to ``options.uri``. Called on the writer's
        thread; the client is not closed by the sink.
    api_key : str
        API key; by default what the environment variable ``options.api_key_env`` holds.
    clock : Clock
        Time of documents and rows.
    """

    def __init__(
        self,
        options: TiledOptions,
        client_factory: Callable[[], Container] | None = None,
        *,
        api_key: str = "",
        clock: Clock = time.time,
    ) -> None:
        self._options = options
        self._clock = clock
        self._secret = api_key or os.environ.get(options.api_key_env, "")
        self._client: Container | None = None
        self._routes: dict[str, Route] = {}
        self._hurry = threading.Event()
        self._unsent = HDF5Sink(options.unsent_folder, arrays=options.arrays, clock=clock)
        self._server = str(httpx.URL(options.uri).copy_with(query=None, userinfo=b""))
        self._courier = Courier(
            client_factory or self._connect,
            self._server,
            options,
            self._unsent,
            clock,
            self._hurry,
        )
        self._worker: Worker[Route] = Worker(self._courier, "ptychoseg-tiled")
        self._courier.busy = lambda: not self._worker.idle

    def open(self, run: RunInfo) -> None:
        """Begin a run: its node appears in Tiled as soon as the server answers."""
        if not self._routes:
            atexit.register(self.shutdown)
        for uid in [uid for uid, old in self._routes.items() if old.account][:-KEPT]:
            del self._routes[uid]
        route = Route(Derived.of(run, self._clock, self._secret))
        self._routes[run.uid] = route
        self._worker.begin(route)

    def write(self, run_uid: str, masks: Sequence[Mask]) -> None:
        """Take the next masks of a run; never waits.

        Raises
        ------
        StoreError
            If the run is not open.
        """
        route = self._route(run_uid)
        now = self._clock()
        rows = [Row(mask, now) for mask in masks]
        size = sum(map(nbytes, masks))
        if not route.why and self._worker.pending_bytes + size > self._options.queue_bytes:
            route.why = (
                f"Tiled at {self._server} is too slow for these frames "
                f"({self._worker.pending_bytes / 1e6:.1f} MB of masks are waiting)"
            )
        if route.why:
            self._unsent.add(route.derived, rows)
        else:
            self._worker.take(route, rows, size)

    def close(self, run_uid: str, account: Account) -> None:
        """End a run.

        Raises
        ------
        StoreError
            If the run is not open.
        """
        route = self._route(run_uid)
        route.account = account
        # Always by way of the writer: whatever it still holds of the run comes before the end.
        self._worker.end(route)

    def stored(self, run_uid: str) -> int:
        """Return how many rows of a run are stored, in Tiled or in its file."""
        route = self._routes.get(run_uid)
        if route is None:
            return 0
        return self._unsent.stored_of(route.derived) if route.why else route.stored

    def address(self, run_uid: str) -> str:
        """Return the URI of a run's node in Tiled, or the path of its file; empty if unknown."""
        route = self._routes.get(run_uid)
        if route is None:
            return ""
        return str(self._unsent.path(route.derived)) if route.why else route.address

    def derived_uid(self, run_uid: str) -> str:
        """Return the uid of the derived run; empty if unknown."""
        route = self._routes.get(run_uid)
        return "" if route is None else route.derived.uid

    def fault(self) -> str:
        """Return the last thing that went wrong; empty if nothing did."""
        return self._unsent.fault() or self._courier.fault

    def drain(self, timeout: float) -> bool:
        """Wait until all that was given is stored; False after `timeout` [s]."""
        end = time.monotonic() + timeout
        # What the writer cannot send it hands to the file: in this order.
        return self._worker.drain(timeout) and self._unsent.drain(end - time.monotonic())

    def shutdown(self) -> None:
        """Store what is left, end the threads, close the connection."""
        self._hurry.set()
        self._worker.stop()
        self._unsent.shutdown()
        if self._client is not None:
            self._client.context.http_client.close()
            self._client = None
        atexit.unregister(self.shutdown)

    def _connect(self) -> Container:
        # Once: runs that are open still use it, and it finds a server that comes back by itself.
        if self._client is None:
            self._client = connect(self._options.uri, self._secret, self._options.timeout)
        return self._client

    def _route(self, run_uid: str) -> Route:
        route = self._routes.get(run_uid)
        if route is None or route.account is not None:
            raise StoreError(f"run {run_uid} is not open: call open() before write() or close()")
        return route
