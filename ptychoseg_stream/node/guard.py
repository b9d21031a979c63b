"""Keeps a failure where it happened: the scan, and the next document, must not suffer from it."""

import contextlib
import logging
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_LONGEST = 1000  # characters of an error: NumPy may repeat megabytes of what it was given


class Guard:
    """Runs steps that may fail; counts failures and logs each kind of them once per run.

    Parameters
    ----------
    log : logging.Logger
        Where the one line per kind of failure goes; its traceback goes there at level DEBUG.

    Attributes
    ----------
    failures : int
        How many steps failed so far.
    last : str
        The last failure in one line; empty if there was none.
    """

    def __init__(self, log: logging.Logger) -> None:
        self.failures = 0
        self.last = ""
        self._log = log
        self._told: set[tuple[str, type[Exception]]] = set()

    def call(self, what: str, step: Callable[[], T], otherwise: T) -> T:
        """Return what `step` returns, or `otherwise` when it raises.

        Parameters
        ----------
        what : str
            The step in words, as in "cannot {what}".
        step : callable
            Without arguments.
        otherwise
            The answer of a step that failed.
        """
        try:
            return step()
        # The one broad `except` of the node. A RunEngine kills the scan when a callback raises,
        # and a worker that stops at one odd document loses all the later ones.
        except Exception as error:  # noqa: BLE001
            self.failures += 1
            self.last = f"cannot {what}: {type(error).__name__}: {_text(error)}"
            kind = (what, type(error))
            if kind not in self._told:
                self._told.add(kind)
                self._log.error("%s (further ones of this run are only counted)", self.last)
            self._log.debug("traceback", exc_info=True)
            return otherwise

    def renew(self) -> None:
        """Forget what was logged: a new run begins, and its failures are news again."""
        self._told.clear()


def _text(error: Exception) -> str:
    """Return what an error says; a foreign one may fail even at that."""
    with contextlib.suppress(Exception):
        return str(error)[:_LONGEST]
    return "what it says cannot be read"
