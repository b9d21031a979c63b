"""The runs of a container that are followed now: each has its turn."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from ptychoseg_callbacks.source import Callback

from ...errors import SourceError
from ...node.guard import Guard
from .address import Path, TiledRefused
from .catalogue import NewRuns
from .client import TiledClient
from .documents import RunDocuments, Wanted
from .layout import StoredRun
from .notices import Notices
from .reading import Reading

log = logging.getLogger(__name__)

_TURN = 2.0  # s that a run is read before the next one has its turn
_MOST_BEHIND = 4  # runs that are caught up with side by side; further ones begin later


class Following:
    """Finds new runs, and delivers what is new in those it knows.

    A run that cannot be read is left alone for a while, longer each time, and others go on. That
    Tiled refuses it is believed after `Wanted.read_wait`.

    Parameters
    ----------
    client : TiledClient
        Asks the server.
    catalogue : NewRuns
        Tells the runs.
    notices : Notices, optional
        Told what to listen to.
    wanted : Wanted
        What is read of each run.
    wall : callable
        Seconds since the epoch.
    clock : callable
        Seconds that only go forward.
    """

    def __init__(
        self,
        client: TiledClient,
        catalogue: NewRuns,
        notices: Notices | None,
        wanted: Wanted,
        wall: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._catalogue = catalogue
        self._notices = notices
        self._wanted = wanted
        self._wall = wall
        self._clock = clock
        self._runs: dict[Path, Reading] = {}
        self._ask_at: dict[Path, float] = {}  # of runs in trouble
        self._guard = Guard(log)  # for what no server should send

    def look(self, callback: Callback, stopping: threading.Event) -> bool:
        """Give each run its turn; return whether there was anything new.

        Raises
        ------
        TiledUnavailable, TiledRefused
            If the container cannot be listed; nothing is missed.
        """
        odd = TiledRefused("what Tiled lists are no runs; who writes to this container?")
        found = self._guard.call("list the runs in Tiled", self._listed, odd)
        if isinstance(found, SourceError):
            for reading in self._runs.values():  # the server itself is in trouble
                reading.trouble.forget()
                reading.run.excuse()
            raise found
        for path in found:
            run = RunDocuments(StoredRun(self._client, path), self._wanted, wall=self._wall)
            self._runs.setdefault(path, Reading(run, self._guard, self._clock))
        delivered = 0
        for path, reading in list(self._runs.items()):
            if stopping.is_set():
                break
            if self._has_turn(path, reading):
                delivered += self._turn(path, reading, callback, stopping)
        return delivered > 0

    def _listed(self) -> Sequence[Path] | SourceError:
        try:
            return self._catalogue.look()
        except SourceError as error:
            return error

    def _has_turn(self, path: Path, reading: Reading) -> bool:
        if self._clock() < self._ask_at.get(path, 0.0):
            return False
        if reading.run.uid:
            return True
        # Runs that have ended, of which there may be many, are not all begun at once.
        begun = [one for one in self._runs.values() if one.run.uid and not one.trouble.failures]
        return sum(one.behind for one in begun) < _MOST_BEHIND

    def _turn(
        self, path: Path, reading: Reading, callback: Callback, stopping: threading.Event
    ) -> int:
        delivered = reading.take(callback, stopping, _TURN)
        if reading.error is None:
            reading.trouble.over()
            self._ask_at.pop(path, None)
        else:
            reading.trouble.note(reading.error, "it is asked again")
            self._ask_at[path] = self._clock() + reading.trouble.pause
            if reading.hopeless:
                log.warning("%s is followed no more: %s", reading.name, reading.error)
                reading.give_up(callback, str(reading.error))
        if reading.run.finished:
            del self._runs[path]
            self._ask_at.pop(path, None)
        self._listen(path, reading.run)
        return delivered

    def _listen(self, path: Path, run: RunDocuments) -> None:
        if self._notices is not None and run.finished:
            self._notices.forget(path)
        elif self._notices is not None:
            self._notices.watch(path, *run.growing)
