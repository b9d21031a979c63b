"""Rows that a dead process sent to a table, and that may still come.

Tiled cannot be told rows of a table twice. While some are on their way, a mark lies on disk for
whoever goes on with the run: it asks how many rows there are only once they have come, or never
will.
"""

import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..node.disk import make_folder
from ..node.spool import SpoolOptions
from .connection import Unanswered
from .options import TiledOptions


class Appends:
    """The appends that are under way, one mark per derived run.

    Parameters
    ----------
    spool : SpoolOptions
        Where the marks are.
    options : TiledOptions
        How long an append may take.

    Attributes
    ----------
    longest : float
        How long rows may come after they were sent, or not answered [s].
    """

    def __init__(self, spool: SpoolOptions, options: TiledOptions) -> None:
        self._folder = spool.appends
        self.longest = max(options.timeout, options.append_timeout)

    @contextmanager
    def under_way(self, derived: str) -> Generator[None]:
        """Mark a run while rows are sent; the mark stays if nobody knows whether they come."""
        mark = self._folder / derived
        self._touch(mark)
        with ExitStack() as done:
            done.callback(self._remove, mark)
            try:
                yield
            except Unanswered:
                done.pop_all()
                self._touch(mark)
                raise

    def patience(self, derived: str) -> float:
        """Return how long rows of a run may still come [s]; 0 if none do."""
        try:
            sent = (self._folder / derived).stat().st_mtime
        except OSError:
            return 0.0
        return min(self.longest, max(0.0, sent + self.longest - time.time()))

    def _touch(self, mark: Path) -> None:
        with suppress(OSError):  # a disk that takes no mark must not keep masks from Tiled
            if not self._folder.is_dir():
                make_folder(self._folder)
            mark.touch(mode=0o600)

    def _remove(self, mark: Path) -> None:
        with suppress(OSError):
            mark.unlink(missing_ok=True)
