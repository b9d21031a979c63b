"""Follows the runs that are being written to a Tiled server."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from ptychoseg_callbacks.guard import Guard
from ptychoseg_callbacks.source import Callback

from ..errors import SourceError
from .tiled_address import Path, TiledAddress, TiledRefused, TiledUnavailable
from .tiled_catalogue import Limits, NewRuns
from .tiled_client import TiledClient
from .tiled_documents import RunDocuments, Wanted
from .tiled_layout import StoredRun
from .tiled_notices import Notices
from .tiled_search import moment

log = logging.getLogger(__name__)

_SETTLE = 1.0  # s that is looked again and again after a notice: it comes before the data
_STEP = 0.05  # s


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How runs in Tiled are followed.

    Parameters
    ----------
    api_key_env : str
        Environment variable with the API key (scopes read:metadata and read:data).
    timeout : float
        How long one answer may take [s].
    poll_seconds : float
        How often is looked for something new where no notice came [s].
    websocket : bool
        Whether to listen for notices at all.
    since : str
        Runs that began since then are taken even if they have ended: a date or how long ago, as
        ``2026-11-01`` or ``2h``. Empty: only runs that are open or begin later.
    open_hours : float
        A run without a stop document that began longer ago than this is taken for dead [h].
    """

    api_key_env: str = "TILED_API_KEY"
    timeout: float = 5.0
    poll_seconds: float = 2.0
    websocket: bool = True
    since: str = ""
    open_hours: float = 24.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in ("timeout", "poll_seconds", "open_hours"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)} must be more than 0")
        try:
            moment(self.since, 0.0)
        except ValueError as error:
            raise ValueError(f"since: {error}") from error


class TiledLive:
    """A `Source`: documents of new runs in a container, images included, as they are stored.

    Runs that are open already are delivered from their first frame. After a restart, open runs come
    again from the start: their events have the same uids.

    Parameters
    ----------
    uri : str
        Container of the raw runs: ``tiled://host:port/raw``.
    options : LiveOptions
        How.
    wanted : Wanted
        What is read of each run.
    also : sequence of str
        Uids of runs that are delivered although they ended: a node that was killed has not seen
        their end.
    wall : callable
        Seconds since the epoch.

    Raises
    ------
    SourceError
        If `uri` is no address.
    """

    def __init__(
        self,
        uri: str,
        options: LiveOptions | None = None,
        wanted: Wanted | None = None,
        also: Sequence[str] = (),
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take the address; nothing is asked yet."""
        self._address = TiledAddress.parse(uri)
        self._options = options or LiveOptions()
        self._wanted = wanted or Wanted()
        self._also = also
        self._wall = wall
        self._fault = ""

    @property
    def redelivers(self) -> bool:
        """Open runs come again after a restart."""
        return True

    def stored(self, number: int) -> None:
        """Nothing: Tiled keeps the runs."""

    def run(self, callback: Callback, stopping: threading.Event) -> None:
        """Follow the container until `stopping` is set.

        Raises
        ------
        SourceError
            If the server refuses the key, or has no such container.
        """
        with ExitStack() as stack:
            client = TiledClient(self._address, self._options.api_key_env, self._options.timeout)
            stack.callback(client.close)
            notices = stack.enter_context(Notices(client)) if self._options.websocket else None
            if notices is not None:
                notices.watch(self._address.path)
            catalogue = NewRuns(client, self._address.path, self._limits(), self._also)
            following = _Following(client, catalogue, notices, self._wanted, self._wall)
            settled = 0.0
            while not stopping.is_set():
                began = time.monotonic()
                if self._look(following, callback, stopping):
                    settled = time.monotonic() + _SETTLE
                # At most half of the time: a big catalogue must not keep the server busy.
                stopping.wait(min(max(time.monotonic() - began, _STEP), 1.0))
                if time.monotonic() >= settled and self._pause(notices, stopping):
                    settled = time.monotonic() + _SETTLE

    def _limits(self) -> Limits:
        now = self._wall()
        since = moment(self._options.since, now)
        hours = self._options.open_hours
        return Limits(now if since is None else since, now - 3600.0 * hours)

    def _look(self, following: "_Following", callback: Callback, stopping: threading.Event) -> bool:
        """Deliver what is new; return whether there was anything."""
        try:
            delivered = following.look(callback, stopping)
        except TiledUnavailable as error:
            if not self._fault:
                log.warning("%s; it is asked again every %g s", error, self._options.poll_seconds)
            self._fault = str(error)
            return False
        if self._fault:
            self._fault = ""
            log.warning("Tiled at %s answers again", self._address)
        return delivered

    def _pause(self, notices: Notices | None, stopping: threading.Event) -> bool:
        """Wait for a notice, for the next poll, or for the end; return whether a notice came."""
        end = time.monotonic() + self._options.poll_seconds
        while not stopping.is_set() and (left := end - time.monotonic()) > 0:
            if notices is None:
                stopping.wait(left)
            elif notices.wait(min(left, 0.2)):
                return True
        return False


class _Following:
    """The runs that are followed now."""

    def __init__(
        self,
        client: TiledClient,
        catalogue: NewRuns,
        notices: Notices | None,
        wanted: Wanted,
        wall: Callable[[], float],
    ) -> None:
        self._client = client
        self._catalogue = catalogue
        self._notices = notices
        self._wanted = wanted
        self._wall = wall
        self._runs: dict[Path, RunDocuments] = {}
        self._guard = Guard(log)  # for what no server should send

    def look(self, callback: Callback, stopping: threading.Event) -> bool:
        """Deliver what is new in all runs; return whether there was anything."""
        for path in self._catalogue.look():
            run = StoredRun(self._client, path)
            self._runs.setdefault(path, RunDocuments(run, self._wanted, wall=self._wall))
        delivered = 0
        for path, run in list(self._runs.items()):
            what = f"follow run {path[-1]}"
            step = partial(_deliver, run, callback, stopping)
            outcome = self._guard.call(what, step, TiledRefused("Tiled sent what is no run"))
            if isinstance(outcome, TiledUnavailable):
                raise outcome
            if isinstance(outcome, SourceError):
                log.warning("run %s is followed no more: %s", path[-1], outcome)
                for name, doc in run.abandon(str(outcome)):
                    callback(name, doc)
            else:
                delivered += outcome
            if run.finished:
                del self._runs[path]
            if self._notices is not None:
                self._listen(self._notices, path, run)
        return delivered > 0

    def _listen(self, notices: Notices, path: Path, run: RunDocuments) -> None:
        if run.finished:
            notices.forget(path)
        else:
            notices.watch(path, *run.growing)


def _deliver(run: RunDocuments, callback: Callback, stopping: threading.Event) -> int | SourceError:
    """Deliver what is new in a run; return how many documents, or why there are none."""
    count = 0
    try:
        for name, doc in run.advance():
            callback(name, doc)
            count += 1
            if stopping.is_set():
                break
    except SourceError as error:
        return error
    return count
