"""Sends what waits in the spool, now, and says what became of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tiled.client.container import Container

from ..errors import StoreError
from ..node.spool import SpoolOptions
from .connection import Unavailable, connect, is_for, without_key
from .courier import Courier
from .options import TiledOptions
from .route import Desk, Route
from .spool import leftovers, waiting

RESUMABLE = "the run has not ended: start its node again, which goes on with it and sends them"


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
    *,
    elsewhere: bool = True,
) -> list[Uploaded]:
    """Send all that waits; folders that a living process owns are left.

    So are those of runs that have a journal: the node that goes on with such a run sends what is
    here before what it labels. Without one (`SpoolOptions.journal`), or once it was removed, nobody
    goes on, and the rows are sent without an end.

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
    elsewhere : bool
        Whether what was to go to another server or container is sent, too.

    Returns
    -------
    list of Uploaded
        One per run that was found.
    """
    with ExitStack() as stack:
        courier = Courier(
            Desk(spool),
            client_factory or partial(_connected, stack, options, api_key),
            without_key(options.uri),
            options,
        )
        only = None if elsewhere else options
        return list(_sent(courier, spool, api_key, time.monotonic() + timeout, only))


def _connected(stack: ExitStack, options: TiledOptions, api_key: str) -> Container:
    client = connect(options.uri, api_key, options.timeout, options.append_timeout)
    stack.callback(client.context.http_client.close)
    return client


def _sent(
    courier: Courier, spool: SpoolOptions, api_key: str, end: float, only: TiledOptions | None
) -> Iterator[Uploaded]:
    """Send one run after the other; once the server is gone, say so of the rest."""
    down = ""
    for folder in leftovers(spool):
        try:
            if only is not None and not is_for(only, *folder.target()):
                folder.release()
                continue
            route = Route.of_folder(folder, api_key)
        except StoreError as error:
            folder.release()
            yield Uploaded("", folder.path.name, folder.path, 0, "", str(error))
            continue
        why, unavailable = (down, True) if down else _send(courier, route, end)
        down = why if unavailable else ""
        raw, derived = route.derived.raw.uid, route.derived.uid
        hidden = route.derived.hide(why)
        yield Uploaded(raw, derived, folder.path, route.safe, route.address, hidden)
        if route.ended:
            folder.remove()
        else:
            folder.release()
    for run in waiting(spool):
        if run.resumable and not run.busy:
            yield Uploaded(run.raw, run.derived, run.path, run.rows, "", RESUMABLE)


def _send(courier: Courier, route: Route, end: float) -> tuple[str, bool]:
    """Send a run; return why that failed, and whether the server was not there at all."""
    try:
        while not route.ended:
            now = time.monotonic()
            if now > end:
                return "there was no time left: call it again, or give it more", True
            if now < route.quiet_until:
                time.sleep(min(route.quiet_until, end) - now + 1e-3)
                continue
            courier.advance(route)
    except StoreError as error:
        return str(error), isinstance(error, Unavailable)
    return "", False
