"""What is subscribed to a RunEngine: it hands each document to a worker, and the scan goes on."""

import atexit
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ptychoseg_stream.node.guard import Guard
from ptychoseg_stream.node.vitals import Vitals

from .documents import Document
from .workers.worker import Worker

log = logging.getLogger(__name__)

_SILENT = 1.0  # s at exit before the user is told what Python waits for


@dataclass(frozen=True, slots=True)
class IngressOptions:
    """How the end is handled.

    Parameters
    ----------
    exit_timeout : float
        Python waits for so long at exit until all masks are stored [s].
    """

    exit_timeout: float = 60.0


class Ingress:
    """A callback that never raises into, blocks or slows the RunEngine: ``RE.subscribe(ingress)``.

    Parameters
    ----------
    worker : Worker
        Where the documents are processed; it is closed with the ingress.
    options : IngressOptions
        How the end is handled.
    monotonic : callable
        Seconds of a clock that never jumps.
    """

    def __init__(
        self,
        worker: Worker,
        options: IngressOptions | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._worker = worker
        self._options = options or IngressOptions()
        self._now = monotonic
        self._guard = Guard(log)
        self._closed = False
        atexit.register(self._at_exit)

    def __call__(self, name: str, doc: Document) -> None:
        """Take one document; never raises."""
        if name == "start":
            self._guard.renew()
        self._guard.call(
            "take a document; its masks are lost", partial(self._worker.submit, name, doc), None
        )

    @property
    def lost(self) -> int:
        """Documents that could not be processed, for whatever reason."""
        return self._worker.lost + self._guard.failures

    def vitals(self) -> Vitals:
        """Return a snapshot of how the node is doing."""
        vitals = self._worker.vitals()
        return replace(vitals, fault=vitals.fault or self._guard.last)

    def wait(self, timeout: float) -> bool:
        """Wait until the masks of all frames so far are stored.

        Parameters
        ----------
        timeout : float
            For so long at most [s].

        Returns
        -------
        bool
            Whether they are.
        """
        return self._worker.drain(timeout)

    def close(self, timeout: float | None = None) -> None:
        """Store what is under way and end the worker; later documents are refused and logged.

        Parameters
        ----------
        timeout : float, optional
            For so long at most [s]; default `IngressOptions.exit_timeout`.
        """
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        self._worker.close(self._options.exit_timeout if timeout is None else timeout)

    def _at_exit(self) -> None:
        silent_until = self._now() + min(_SILENT, self._options.exit_timeout)
        end = self._now() + self._options.exit_timeout
        try:
            if not self.wait(silent_until - self._now()) and self._now() >= silent_until:
                left = max(0.0, end - self._now())
                sys.stderr.write(
                    f"ptychoseg: {self.vitals().backlog} documents and frames are still to be "
                    f"labelled and stored; waiting for {left:.0f} s at most (Ctrl-C leaves now)\n"
                )
                self.wait(left)
            self.close(max(0.0, end - self._now()))
        except KeyboardInterrupt:
            self._closed = True
            self._worker.close(0.0)
