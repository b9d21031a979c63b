"""Waits for what was announced and is not there yet, and gives up in time."""

import time
from collections.abc import Callable, Iterator

_FIRST_PAUSE = 0.001  # [s]


class Patience:
    """Bounded waiting: after a time-out nothing waits again until something came.

    So a missing file costs one time-out, and not one per frame.

    Parameters
    ----------
    timeout : float
        How long to wait in all [s].
    sleep : callable
        Waits for so many seconds.
    """

    def __init__(self, timeout: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self._timeout = timeout
        self._sleep = sleep
        self._patient = True

    def attempts(self) -> Iterator[None]:
        """Yield at once, then after doubling pauses that add up to the time-out."""
        yield
        pause, left = _FIRST_PAUSE, self._timeout if self._patient else 0.0
        while left > 0:
            self._sleep(min(pause, left))
            left -= pause
            pause *= 2
            yield

    def succeeded(self) -> None:
        """Wait again the next time."""
        self._patient = True

    def failed(self) -> None:
        """Do not wait until something succeeded."""
        self._patient = False
