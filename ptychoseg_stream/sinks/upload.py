"""Sends what waits in the spool, now, and says what became of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tiled.client.container import Container

from ..errors import StoreError
from ..node.spool import SpoolOptions
from .connection import Unavailable, connect, without_key
from .courier import Courier
from .options import TiledOptions
from .route import Desk, Route
from .spool import leftovers


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What became of one run of the spool.

    Parameters
    ----------
    raw, derived : str
        Uids of the raw and of the derived run.
    path : Path
        Its folder in the spool.
    rows : int
        Rows in Tiled or in the spool, counted from the first frame.
    address : str
        URI of its node; empty if Tiled never answered.
    why : str
        Why it still waits; empty once it is in Tiled.
    """

    raw: str
    derived: str
    path: Path
    rows: int
    address: str
    why: str

    def __str__(self) -> str:
        """Say it in one line."""
        if self.why:
            return f"{self.path} still waits: {self.why}"
        return f"run {self.raw}: {self.rows} rows are in Tiled, {self.address}"


def upload_all(
    options: TiledOptions,
    spool: SpoolOptions,
    api_key: str,
    timeout: float,
    client_factory: Callable[[], Container] | None = None,
) -> list[Uploaded]:
    """Send all that waits, wherever it was to go; folders that a living process owns are left.

    Parameters
    ----------
    options : TiledOptions
        Server and container to send it to.
    spool : SpoolOptions
    api_key : str
        API key of the server.
    timeout : float
        When to stop [s]; a request under way is waited for.
    client_factory : callable, optional
        Returns a client of the server, in place of a connection to ``options.uri``.

    Returns
    -------
    list of Uploaded
        One per run that was found.
    """
    clients: list[Container] = []

    def client() -> Container:
        if client_factory is not None:
            return client_factory()
        if not clients:
            clients.append(connect(options.uri, api_key, options.timeout))
        return clients[0]

    desk = Desk(spool)
    courier = Courier(desk, client, without_key(options.uri), options)
    end = time.monotonic() + timeout
    found: list[Uploaded] = []
    down = ""
    try:
        for folder in leftovers(spool):
            try:
                route = Route.of_folder(folder, api_key)
            except StoreError as error:
                folder.release()
                found.append(Uploaded("", folder.path.name, folder.path, 0, "", str(error)))
                continue
            why, unavailable = ("", False) if not down else (down, True)
            if not down:
                why, unavailable = _send(courier, route, end)
            down = why if unavailable else ""
            found.append(
                Uploaded(
                    route.derived.raw.uid,
                    route.derived.uid,
                    folder.path,
                    route.safe,
                    route.address,
                    route.derived.hide(why),
                )
            )
            if route.ended:
                folder.remove()
            else:
                folder.release()
    finally:
        for root in clients:
            root.context.http_client.close()
    return found


def _send(courier: Courier, route: Route, end: float) -> tuple[str, bool]:
    """Send a run; return why that failed, and whether the server was not there at all."""
    try:
        while not route.ended:
            if time.monotonic() > end:
                return "there was no time left: call it again, or give it more", True
            courier.advance(route)
    except StoreError as error:
        return str(error), isinstance(error, Unavailable)
    return "", False
