"""Replays runs that are in Tiled."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from ptychoseg_callbacks.documents import Document
from ptychoseg_callbacks.source import Callback

from ..errors import SourceError
from .tiled_address import Path, TiledAddress, TiledMissing, TiledUnavailable
from .tiled_client import Item, TiledClient
from .tiled_documents import Named, RunDocuments, Wanted
from .tiled_layout import StoredRun, has_spec, metadata_of
from .tiled_search import RUN, Selection, began, key_of_uid, runs_of

log = logging.getLogger(__name__)

_RUNNING_HOURS = 24.0
_EXPORT = "application/json-seq"


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How runs are read from Tiled.

    Parameters
    ----------
    api_key_env : str
        Environment variable with the API key (scopes read:metadata and read:data).
    timeout : float
        How long one answer may take [s].
    attempts : int
        How often a server that does not answer is asked.
    retry_wait : float
        Pause between two attempts [s].
    """

    api_key_env: str = "TILED_API_KEY"
    timeout: float = 30.0
    attempts: int = 5
    retry_wait: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not self.timeout > 0:
            raise ValueError(f"timeout: {self.timeout} must be more than 0 seconds")
        if self.attempts < 1:
            raise ValueError(f"attempts: {self.attempts} must be 1 or more")
        if not self.retry_wait >= 0:
            raise ValueError(f"retry_wait: {self.retry_wait} must be 0 or more seconds")


@dataclass(slots=True)
class TiledReplay:
    """A `Source`: documents of recorded runs, images included, read in blocks.

    Parameters
    ----------
    uri : str
        ``tiled://host:port/raw`` for runs of a container, ``tiled://host:port/raw/<uid>`` for one
        run, ``.../<uid>,<uid>`` for several.
    selection : Selection
        Which runs of a container.
    options : ReplayOptions
        How they are read.
    wanted : Wanted
        What is read of each.
    wall : callable
        Seconds since the epoch.

    Raises
    ------
    SourceError
        If `uri` is no address.
    """

    uri: str
    selection: Selection = field(default_factory=Selection)
    options: ReplayOptions = field(default_factory=ReplayOptions)
    wanted: Wanted = field(default_factory=Wanted)
    wall: Callable[[], float] = time.time
    _address: TiledAddress = field(init=False)

    def __post_init__(self) -> None:
        """Read the address; nothing is asked yet."""
        self._address = TiledAddress.parse(self.uri)

    @property
    def redelivers(self) -> bool:
        """A replay is not gone on with."""
        return False

    def stored(self, number: int) -> None:
        """Nothing: Tiled keeps the runs."""

    def run(self, callback: Callback, stopping: threading.Event) -> None:
        """Deliver the runs, the oldest first.

        Raises
        ------
        SourceError
            If the server does not answer, refuses the key, or has no such run.
        """
        with ExitStack() as stack:
            client = TiledClient(self._address, self.options.api_key_env, self.options.timeout)
            stack.callback(client.close)
            count = 0
            for path, node in self._runs(client):
                count += 1
                for name, doc in self._documents(client, path, node, stopping):
                    callback(name, doc)
                    if stopping.is_set():
                        return
            if not count:
                raise SourceError(
                    f"no run in Tiled at {self._address} is meant: see since, until and where"
                )

    def _runs(self, client: TiledClient) -> Iterator[tuple[Path, Item]]:
        path = self._address.path
        last = path[-1] if path else ""
        try:
            node = client.item(path)
        except TiledMissing:
            if not last:
                raise
            for uid in last.split(","):
                found = self._named(client, path[:-1], uid)
                yield found, client.item(found)
            return
        if has_spec(node, RUN):
            yield path, node
            return
        for found, one in runs_of(client, path, self.selection, self.wall()):
            if self._still_runs(one):
                log.warning("run %s is left out: it has not ended; follow it live", found[-1])
            else:
                yield found, one

    def _named(self, client: TiledClient, container: Path, uid: str) -> Path:
        found = key_of_uid(client, container, uid)
        if found is None:
            where = TiledAddress(self._address.base, container)
            raise SourceError(f"Tiled at {where} has no run {uid}, nor a container of that name")
        return found

    def _still_runs(self, node: Item) -> bool:
        young = self.wall() - began(node) < 3600.0 * _RUNNING_HOURS
        return "stop" not in metadata_of(node) and young

    def _documents(
        self, client: TiledClient, path: Path, node: Item, stopping: threading.Event
    ) -> Iterator[Named]:
        if not has_spec(node, RUN, "3"):
            yield from exported(client, path)
            return
        run, failures = RunDocuments(StoredRun(client, path), self.wanted, wall=self.wall), 0
        while not run.finished and not stopping.is_set():
            before = run.delivered
            try:
                yield from run.advance(final=True)
                failures = failures if run.delivered == before else 0
            except TiledUnavailable as error:
                failures = 1 if run.delivered > before else failures + 1
                if failures >= self.options.attempts:
                    raise
                log.warning("%s; asked again in %g s", error, self.options.retry_wait)
                stopping.wait(self.options.retry_wait)
            else:
                if run.delivered == before:  # images that cannot be read are tried again
                    stopping.wait(min(self.options.retry_wait, 0.2))


def exported(client: TiledClient, path: Path) -> Iterator[Named]:
    """Yield the documents of a run as the server itself writes them.

    For runs that older writers laid out otherwise. Those of TiledWriter are read by their layout:
    the server holds an exported run in memory, and tells points that were taken again only once.

    Raises
    ------
    SourceError
        If it does not write any.
    """
    keys: dict[str, dict[str, Any]] = {}  # data keys by uid of the descriptor
    for line in client.text(path, _EXPORT).split("\n"):
        text = line.lstrip("\x1e").strip()
        if not text:
            continue
        try:
            record = cast(Mapping[str, Any], json.loads(text))
            name, doc = str(record["name"]), cast(Document, record["doc"])
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"run {path[-1]}: what Tiled exports is no document") from error
        if name == "descriptor":
            keys[doc["uid"]] = dict(doc["data_keys"])
        if name == "event":
            doc = {**doc, "data": _arrays(doc["data"], keys.get(doc["descriptor"], {}))}
        yield name, doc


def _arrays(data: Document, specs: Mapping[str, Any]) -> Document:
    """Return the data of an event with arrays in the place of nested lists."""
    out = dict(data)
    for key, value in data.items():
        dtype = specs.get(key, {}).get("dtype_numpy")
        if isinstance(value, list) and isinstance(dtype, str):
            out[key] = np.asarray(value, np.dtype(dtype).newbyteorder("="))
    return out
