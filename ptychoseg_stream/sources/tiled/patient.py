"""A client that asks again: for what is read while nobody waits."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from ...errors import SourceError, SourceLost
from .address import Path, TiledRefused
from .client import Item, TiledClient
from .trouble import Trouble

T = TypeVar("T")


class Patient:
    """Asks a server several times before it is given up.

    Until it has answered once, a refusal is believed at once: it is the address or the key.

    Parameters
    ----------
    client : TiledClient
        Asks once.
    attempts : int
        How often is asked.
    wait : float
        Pause between two attempts [s].
    stopping : threading.Event
        Ends the pauses; the last failure is raised then.
    """

    def __init__(
        self, client: TiledClient, attempts: int, wait: float, stopping: threading.Event
    ) -> None:
        self.client = client
        self._attempts = attempts
        self._wait = wait
        self._stopping = stopping
        self._worked = False
        self._trouble = Trouble(f"Tiled at {client.address}")

    def ask(self, step: Callable[[], T]) -> T:
        """Return what a step returns that asks the server.

        Raises
        ------
        TiledRefused, TiledUnavailable
            If it has never answered anything else.
        SourceLost
            If it has, and fails so many times now.
        """
        while True:
            try:
                answer = step()
            except SourceError as error:
                if isinstance(error, TiledRefused) and not self._worked:
                    raise
                self._trouble.note(error, f"asked again in {self._wait:g} s")
                if self._stopping.is_set() or self._trouble.failures >= self._attempts:
                    if not self._worked:
                        raise
                    raise SourceLost(str(error)) from error
                self._stopping.wait(self._wait)
            else:
                self._worked = True
                self._trouble.over()
                return answer

    def item(self, path: Path) -> Item:
        """Return what is known of a node, see `TiledClient.item`."""
        return self.ask(lambda: self.client.item(path))

    def children(
        self,
        path: Path,
        *,
        offset: int = 0,
        limit: int = 100,
        sort: str = "",
        filters: Sequence[tuple[str, str]] = (),
    ) -> list[Item]:
        """Return the nodes in a container, see `TiledClient.children`."""
        return self.ask(
            lambda: self.client.children(
                path, offset=offset, limit=limit, sort=sort, filters=filters
            )
        )
