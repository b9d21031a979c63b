"""The writer's side of the Tiled sink: batches, attempts, and what happens when it says no."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tiled.client.container import Container

from ..errors import StoreError
from ..node.ports import Account, Clock
from .connection import Unavailable, open_container, translated
from .derived import Derived
from .hdf5 import HDF5Sink
from .history import History
from .options import TiledOptions
from .rows import Intake, Row
from .side_tables import Journal
from .tiled_run import TiledRun

logger = logging.getLogger("ptychoseg_stream.sinks")


@dataclass(slots=True, eq=False)
class Route:
    """The way of one run; the caller's thread and the writer's share it.

    Parameters
    ----------
    derived : Derived
        The derived run.
    why : str
        Why its masks go to a file; empty while they go to Tiled.
    stored : int
        Rows stored in Tiled.
    address : str
        URI of the run's node, once there is one.
    account : Account or None
        What became of its frames, once the run is closed.
    """

    derived: Derived
    why: str = ""
    stored: int = 0
    address: str = ""
    account: Account | None = None


@dataclass(slots=True, eq=False)
class _Slip:
    """A run in the writer's hands."""

    run: Route
    history: History
    tiled: TiledRun | None = None
    intake: Intake = field(default_factory=Intake)
    journal: Journal = field(default_factory=Journal)
    buffer: list[Row] = field(default_factory=list[Row])
    since: float = 0.0  # when the oldest row of the buffer came [s, monotonic]
    diverted: bool = False


class Courier:
    """Carries rows to Tiled, and to a file when Tiled does not take them; a `worker.Clerk`.

    Parameters
    ----------
    connect : callable
        Returns a client of the server.
    server : str
        Its name in messages, without a key.
    options : TiledOptions
        Batches, attempts, limits.
    unsent : HDF5Sink
        Takes the runs that Tiled does not.
    clock : Clock
        Time of stop documents.
    hurry : threading.Event
        Set when the sink shuts down: no more pauses between attempts.

    Attributes
    ----------
    fault : str
        Last thing that went wrong.
    busy : callable
        Whether more jobs are waiting.
    """

    def __init__(
        self,
        connect: Callable[[], Container],
        server: str,
        options: TiledOptions,
        unsent: HDF5Sink,
        clock: Clock,
        hurry: threading.Event,
    ) -> None:
        self.fault = ""
        self.busy: Callable[[], bool] = lambda: False
        self._connect = connect
        self._server = server
        self._options = options
        self._unsent = unsent
        self._clock = clock
        self._hurry = hurry
        self._parent: Container | None = None
        self._down = False
        self._slips: dict[str, _Slip] = {}

    def begin(self, run: Route) -> None:
        """Create the node of a run."""
        slip = _Slip(run, History(self._options.history_bytes))
        self._slips[run.derived.uid] = slip
        self._attempt(slip, lambda: self._create(slip))
        self._divert_if_told(slip)

    def take(self, run: Route, rows: Sequence[Row]) -> None:
        """Buffer rows; store them when there are enough."""
        slip = self._slips[run.derived.uid]
        for row in rows:
            self._line_up(slip, row)
        # While jobs are waiting, larger batches let the server catch up.
        if len(slip.buffer) >= self._options.batch_rows and not self.busy():
            self._store(slip)
        self._divert_if_told(slip)

    def end(self, run: Route) -> None:
        """Store what is held back and close the run."""
        slip = self._slips[run.derived.uid]
        account = run.account or Account()
        self._store(slip, last=True)
        self._attempt(slip, lambda: self._stop(slip, account))
        if self._divert_if_told(slip):
            self._unsent.end(run.derived, account, slip.journal.copy())
            self._leave_note(slip, account)
        del self._slips[run.derived.uid]

    def flush(self) -> None:
        """Store whatever is held back."""
        for slip in self._slips.values():
            self._store(slip)
            self._divert_if_told(slip)

    def tick(self) -> float | None:
        """Store what has waited long enough; return how long until the next has [s]."""
        waits: list[float] = []
        for slip in self._slips.values():
            if slip.buffer and self._left(slip) <= 0:
                self._store(slip)
                self._divert_if_told(slip)
            if slip.buffer:
                waits.append(max(0.0, self._left(slip)))
        return min(waits, default=None)

    def _left(self, slip: _Slip) -> float:
        return slip.since + self._options.batch_seconds - time.monotonic()

    def _line_up(self, slip: _Slip, row: Row) -> None:
        repeated = slip.intake.repeated
        slip.journal.take([row])  # also of a row that comes again: what it tells may be new
        for ordered in slip.intake.take(row):
            if not slip.buffer:
                slip.since = time.monotonic()
            slip.buffer.append(ordered)
            if len(slip.buffer) >= 4 * self._options.batch_rows:
                self._store(slip)
                self._divert_if_told(slip)
        if slip.intake.repeated > repeated == 0:
            logger.warning(
                "Run %s: frame %d came again; its row stays as it is, and so for any other repeat",
                slip.run.derived.raw.uid,
                row.mask.frame.index,
            )

    def _store(self, slip: _Slip, *, last: bool = False) -> None:
        if slip.buffer and self._attempt(slip, lambda: self._append(slip, last)):
            slip.since = time.monotonic()

    def _create(self, slip: _Slip) -> TiledRun:
        if slip.tiled is None:
            if self._parent is None:
                self._parent = open_container(self._connect(), self._options.container)
            slip.tiled = TiledRun(self._parent, slip.run.derived, self._options)
        slip.tiled.begin()
        slip.run.address = slip.tiled.uri
        return slip.tiled

    def _append(self, slip: _Slip, last: bool) -> None:
        tiled = self._create(slip)
        if tiled.append(slip.buffer, last=last):
            slip.history.add(slip.buffer)
            slip.buffer = []
            slip.run.stored = tiled.rows
            tiled.append_notes(slip.journal.pages)

    def _stop(self, slip: _Slip, account: Account) -> None:
        intake, tiled = slip.intake, self._create(slip)
        tiled.append_notes(slip.journal.pages)
        tiled.end(account, self._clock(), filled=intake.filled, repeated=intake.repeated)

    def _attempt(self, slip: _Slip, action: Callable[[], object]) -> bool:
        """Do something on the server; if that fails for good, the run goes to a file."""
        # A server that was down a moment ago gets one chance per run, not a minute.
        for attempt in range(1 if self._down else self._options.attempts):
            if attempt:
                self._hurry.wait(self._options.retry_wait * 2 ** (attempt - 1))
            if slip.run.why:
                return False
            try:
                with translated(self._server, self._options.api_key_env):
                    action()
            except StoreError as error:
                self.fault = str(error)
                self._down = isinstance(error, Unavailable)
                if not self._down:
                    break
            else:
                self._down = False
                return True
        self._parent = None  # look for the container again: it may be what is gone
        slip.run.why = slip.run.why or self.fault
        return False

    def _divert_if_told(self, slip: _Slip) -> bool:
        """Hand a run to the file once there is a reason to; say so in one line."""
        run = slip.run
        if not run.why:
            return False
        if not slip.diverted:
            slip.diverted = True
            self.fault = run.why
            path = self._unsent.path(run.derived)
            logger.error("%s. Masks of run %s go to %s", run.why, run.derived.raw.uid, path)
            self._unsent.begin(run.derived, elsewhere=slip.history.dropped)
            for rows in slip.history.batches():
                self._unsent.add(run.derived, rows)
                while self._unsent.pending_bytes > self._options.queue_bytes:
                    self._unsent.drain(1.0)  # unpacked rows take ten times the memory
        if slip.buffer:
            self._unsent.add(run.derived, slip.buffer)
            slip.buffer = []
        return True

    def _leave_note(self, slip: _Slip, account: Account) -> None:
        """Close what there is of a run in Tiled, if the server is back; one attempt."""
        tiled = slip.tiled
        if tiled is None or not tiled.uri or (self._down and self._hurry.is_set()):
            return
        path = self._unsent.path(slip.run.derived)
        told = replace(account, exit_status="fail", reason=f"rows from {tiled.rows} on: see {path}")
        try:
            with translated(self._server, self._options.api_key_env):
                tiled.end(told, self._clock(), filled=slip.intake.filled)
        except StoreError as error:
            logger.debug("Run %s stays without a stop document: %s", tiled.uri, error)
