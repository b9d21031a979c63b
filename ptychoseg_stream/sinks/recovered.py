"""What earlier processes left in the spool of masks, and who may go on with it."""

import logging

from ..errors import StoreError
from ..node.spool import SpoolOptions
from .connection import is_for, without_key
from .derived import Derived
from .options import TiledOptions
from .route import Route
from .spool import RUN, SpoolFolder, leftovers

logger = logging.getLogger("ptychoseg_stream.sinks")


def left_behind(spool: SpoolOptions, options: TiledOptions, secret: str) -> list[Route]:
    """Return the runs that dead processes left, as far as they were to go to a server.

    Runs that a node goes on with are left to it: if it is this one, they are `reopened` then.

    Parameters
    ----------
    spool : SpoolOptions
    options : TiledOptions
        Where this node writes to.
    secret : str
        Text that must not appear in any document.
    """
    found: list[Route] = []
    for folder in leftovers(spool):
        try:
            route, (server, container) = Route.of_folder(folder, secret), folder.target()
        except StoreError as error:
            logger.error("%s", error)
            folder.release()
            continue
        if is_for(options, server, container):
            found.append(route)
            continue
        folder.release()
        logger.warning(
            "%s waits for %s at %s, and this node writes to %s: `ptychoseg upload` sends it",
            folder.path,
            container,
            server,
            without_key(options.uri),
        )
    return found


def reopened(spool: SpoolOptions, derived: Derived, secret: str) -> Route | None:
    """Return the way of a run that this process goes on with; None if nothing of it can be read.

    Raises
    ------
    StoreError
        If another process has its folder: two writers would double its rows.
    """
    path = spool.masks / derived.uid
    if not (path / RUN).is_file():
        return None
    try:
        folder = SpoolFolder(path)
    except BlockingIOError as error:
        raise StoreError(
            f"run {derived.raw.uid} is not gone on with: {error}: end that (another node, or "
            "`ptychoseg upload`), and start this node again"
        ) from error
    except OSError as error:
        logger.error("Run %s: what waits in %s stays there: %s", derived.raw.uid, path, error)
        return None
    try:
        return Route.of_folder(folder, secret)
    except StoreError as error:
        logger.error("Run %s: %s", derived.raw.uid, error)
        folder.release()
        return None
