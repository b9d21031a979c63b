"""Replays runs that are in Tiled."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from ptychoseg_callbacks.documents import Document
from ptychoseg_callbacks.source import Callback

from ...errors import SourceError
from ...node.guard import Guard
from .address import Path, TiledAddress, TiledMissing, TiledRefused, TiledUnavailable
from .client import Item, TiledClient
from .documents import Named, RunDocuments, Wanted
from .layout import StoredRun, has_spec, metadata_of
from .patient import Patient
from .reading import Reading
from .search import RUN, Selection, began, run_of_uid, runs_of

log = logging.getLogger(__name__)

_RUNNING_HOURS = 24.0
EXPORT = "application/json-seq"


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

    Attributes
    ----------
    left_out : list of str
        Why runs could not be replayed, or not to their end; a line for each of them.

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
    left_out: list[str] = field(default_factory=list[str], init=False)
    _address: TiledAddress = field(init=False)
    _guard: Guard = field(default_factory=lambda: Guard(log), init=False)

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
        """Deliver the runs, the oldest first; what is wrong with one run ends only that.

        Raises
        ------
        SourceError
            If the server refuses when it is first asked, or has no such run.
        SourceLost
            If it does not answer any more.
        """
        options = self.options
        with TiledClient(self._address, options.api_key_env, options.timeout) as client:
            patient = Patient(client, options.attempts, options.retry_wait, stopping)
            try:
                self._replay(patient, callback, stopping)
            except SourceError:
                if not stopping.is_set():  # else it was broken off
                    raise

    def _replay(self, patient: Patient, callback: Callback, stopping: threading.Event) -> None:
        count = 0
        for path, node in self._runs(patient):
            count += 1
            if has_spec(node, RUN, "3"):
                self._read(patient, path, callback, stopping)
            else:
                self._export(patient, path, callback, stopping)
            if stopping.is_set():
                return
        if not count:
            raise SourceError(
                f"no run in Tiled at {self._address} is meant: see since, until and where"
            )

    def _runs(self, patient: Patient) -> Iterator[tuple[Path, Item]]:
        path = self._address.path
        last = path[-1] if path else ""
        try:
            node = patient.item(path)
        except TiledMissing:
            if not last:
                raise
            # All of them first: what was mistyped is told before hours were spent.
            named = [self._named(patient, path[:-1], uid) for uid in last.split(",")]
            yield from named
            return
        if has_spec(node, RUN):
            yield path, node
            return
        for found, one in runs_of(patient, path, self.selection, self.wall()):
            if self._still_runs(one):
                log.warning("run %s is left out: it has not ended; follow it live", found[-1])
            else:
                yield found, one

    def _named(self, patient: Patient, container: Path, uid: str) -> tuple[Path, Item]:
        found = run_of_uid(patient, container, uid)
        if found is None:
            where = TiledAddress(self._address.base, container)
            raise SourceError(f"Tiled at {where} has no run {uid}, nor a container of that name")
        return found

    def _still_runs(self, node: Item) -> bool:
        young = self.wall() - began(node) < 3600.0 * _RUNNING_HOURS
        return "stop" not in metadata_of(node) and young

    def _read(
        self, patient: Patient, path: Path, callback: Callback, stopping: threading.Event
    ) -> None:
        run = RunDocuments(StoredRun(patient.client, path), self.wanted, wall=self.wall)
        reading, wait = Reading(run, self._guard), self.options.retry_wait
        while not run.finished and not stopping.is_set():
            delivered = reading.take(callback, stopping, final=True)
            if reading.error is None or delivered:
                reading.trouble.over()
            if reading.error is None:
                # Images that cannot be read are tried again.
                stopping.wait(0.0 if delivered else min(wait, 0.2))
                continue
            reading.trouble.note(reading.error, f"asked again in {wait:g} s")
            if reading.hopeless or self._given_up(reading, patient):
                self._leave_out(path, reading.error)
                reading.give_up(callback, str(reading.error))
            else:
                stopping.wait(max(wait, 0.01))

    def _given_up(self, reading: Reading, patient: Patient) -> bool:
        """Return whether it is this run, and not the server, that does not answer.

        Raises
        ------
        SourceLost
            If it is the server.
        """
        # of refusals, `Reading` says when they are believed
        outage = isinstance(reading.error, TiledUnavailable)
        if not outage or reading.trouble.failures < self.options.attempts:
            return False
        patient.item(())
        return True

    def _export(
        self, patient: Patient, path: Path, callback: Callback, stopping: threading.Event
    ) -> None:
        def export() -> SourceError | None:
            try:
                text = patient.ask(lambda: patient.client.text(path, EXPORT))
                for name, doc in exported(text, path):
                    callback(name, doc)
                    if stopping.is_set():
                        break
            except SourceError as error:
                return error
            return None

        odd = TiledRefused("what Tiled exports is no run")
        fault = self._guard.call(f"read run {path[-1]}", export, odd)
        if fault is not None:
            patient.item(())  # it is this run, and not the server
            self._leave_out(path, fault)

    def _leave_out(self, path: Path, why: SourceError) -> None:
        self.left_out.append(f"run {path[-1]}: {why}")
        log.error("run %s cannot be replayed: %s", path[-1], why)


def exported(text: str, path: Path) -> Iterator[Named]:
    """Yield the documents of a run as the server itself writes them, in format `EXPORT`.

    For runs that older writers laid out otherwise. Those of TiledWriter are read by their layout:
    the server holds an exported run in memory, and tells points that were taken again only once.

    Raises
    ------
    SourceError
        If it holds something else.
    """
    keys: dict[str, dict[str, Any]] = {}  # data keys by uid of the descriptor
    for each in text.split("\n"):
        line = each.lstrip("\x1e").strip()
        if not line:
            continue
        try:
            record = cast(Mapping[str, Any], json.loads(line))
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
