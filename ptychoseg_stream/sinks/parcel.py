"""A batch of rows on its way to Tiled."""

from dataclasses import dataclass
from pathlib import Path

from .batch import Batch


@dataclass(slots=True, eq=False)
class Parcel:
    """A batch on its way: in memory, or in a segment on disk.

    Parameters
    ----------
    first, last : int
        Its rows, [first, last).
    batch : Batch or None
        While it is in memory.
    path : Path or None
        Its segment, once there is one.
    on_way : bool
        Whether it was given to Tiled, which may have it.
    done : bool
        Whether Tiled has it.
    """

    first: int
    last: int
    batch: Batch | None = None
    path: Path | None = None
    on_way: bool = False
    done: bool = False

    @property
    def nbytes(self) -> int:
        """Memory it takes [bytes]."""
        return self.batch.nbytes if self.batch is not None else 0
