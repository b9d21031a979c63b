"""Notices which runs begin in a container of Tiled."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .address import Path
from .client import Item, TiledClient
from .layout import has_spec, metadata_of
from .search import RUN, began, key_of_uid

log = logging.getLogger(__name__)

_PAGE = 20
_MOST_PAGES = 50
_MOST_KNOWN = 10_000
_SKEW = 3600.0  # s by which the clock of a scan may be behind ours


@dataclass(frozen=True, slots=True)
class Limits:
    """Which of the runs that are there already are taken.

    Parameters
    ----------
    since : float
        Runs that began later, even if they have ended [s since the epoch].
    open_since : float
        Runs that began later and have not ended [s since the epoch].
    """

    since: float
    open_since: float


class NewRuns:
    """Tells the runs of a container once each, in the order in which they came.

    Runs that were made of other runs, as masks are, are left out: a node must not follow its own.

    Parameters
    ----------
    client : TiledClient
        Asks the server.
    path : tuple of str
        The container.
    limits : Limits
        Which runs count.
    also : sequence of str
        Uids of runs that count in any case.
    """

    def __init__(
        self, client: TiledClient, path: Path, limits: Limits, also: Sequence[str] = ()
    ) -> None:
        """Take the container; nothing is asked yet."""
        self._client = client
        self._path = path
        self._limits = limits
        self._also = list(also)
        self._known: dict[str, None] = {}  # keys of the container, the newest last
        self._first = True

    def look(self) -> list[Path]:
        """Return the runs that were not told before.

        Raises
        ------
        SourceError
            If the server cannot be asked; nothing is missed.
        """
        named = [key_of_uid(self._client, self._path, uid) for uid in self._also]
        fresh = self._fresh()
        self._also.clear()
        found = [path for path in named if path is not None]
        for node in reversed(fresh):
            key = str(node["id"])
            self._known[key] = None
            if self._counts(node) and (*self._path, key) not in found:
                found.append((*self._path, key))
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._first = False
        return found

    def _fresh(self) -> list[Item]:
        """Return the nodes that were not seen before, the newest first."""
        fresh: dict[str, Item] = {}
        oldest = min(self._limits.since, self._limits.open_since)
        for page in range(_MOST_PAGES):
            offset = page * _PAGE
            nodes = self._client.children(self._path, offset=offset, limit=_PAGE, sort="-")
            fresh |= {str(node["id"]): node for node in nodes if node["id"] not in self._known}
            # What is older than a node that is known, or older than all limits, is of no interest.
            known = any(node["id"] in self._known for node in nodes)
            past = self._first and any(0 < began(node) < oldest for node in nodes)
            if known or past or len(nodes) < _PAGE:
                break
        return list(fresh.values())

    def _counts(self, node: Item) -> bool:
        if not has_spec(node, RUN, "3"):
            return False
        metadata = metadata_of(node)
        start, ended = metadata.get("start"), "stop" in metadata
        if not isinstance(start, Mapping) or "original_run_uid" in start:
            log.info("%s: not a raw run, left out", node["id"])
            return False
        limits, time = self._limits, began(node)
        if time >= limits.since or (not ended and time >= limits.open_since):
            return True
        # It came while we were looking: the clock of the scan is behind ours.
        return not self._first and time >= limits.since - _SKEW
