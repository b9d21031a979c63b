"""Follows the runs that are being written to a Tiled server."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from ptychoseg_callbacks.source import Callback

from ...errors import SourceError
from .address import TiledAddress, TiledRefused
from .catalogue import Limits, NewRuns
from .client import TiledClient
from .documents import Wanted
from .following import Following
from .notices import Notices
from .search import moment
from .trouble import Trouble

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
        their end. Looked at when the source begins to run.
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
        self._trouble = Trouble(f"Tiled at {self._address}")
        self._worked = False

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
            If the server refuses the key, or has no such container, when it is first asked. Later
            it is asked again: keys and proxies are changed while nodes run.
        """
        options = self._options
        with ExitStack() as stack:
            client = stack.enter_context(
                TiledClient(self._address, options.api_key_env, options.timeout)
            )
            notices = stack.enter_context(Notices(client)) if options.websocket else None
            if notices is not None:
                notices.watch(self._address.path)
            catalogue = NewRuns(client, self._address.path, self._limits(), self._also)
            following = Following(client, catalogue, notices, self._wanted, self._wall)
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

    def _look(self, following: Following, callback: Callback, stopping: threading.Event) -> bool:
        """Deliver what is new; return whether there was anything."""
        try:
            delivered = following.look(callback, stopping)
        except SourceError as error:
            if isinstance(error, TiledRefused) and not self._worked:
                raise
            every = f"it is asked again every {self._options.poll_seconds:g} s"
            self._trouble.note(error, every)
            return False
        self._worked = True
        self._trouble.over()
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
