"""How much of an array is asked for at once, and how long the answer may take."""

BLOCK_BYTES = 1 << 25
"""Images are asked for in blocks of at most so many bytes (or a single row)."""

_LEAST = 1 << 6  # bytes
_QUICK = 0.25  # of the time limit: then twice as much will be in time, too


class Blocks:
    """Halves the blocks after an answer that came too late, doubles them after quick ones.

    What is larger than a block and cannot be divided, as a single frame, gets more time instead:
    over a slow line, or from a server with slow disks, images come late, and still come.

    Parameters
    ----------
    timeout : float
        How long the answer to a block may take [s].
    patience : float
        What cannot be divided gets so many times longer at most.
    """

    def __init__(self, timeout: float, patience: float = 8.0) -> None:
        """Begin with the largest blocks."""
        self.bytes = BLOCK_BYTES
        self._timeout = timeout
        self._patience = patience

    def rows(self, row_bytes: int, needed: int) -> int:
        """Return how many rows are asked for: what fits, and at least those that are needed."""
        return max(needed, self.bytes // max(1, row_bytes))

    def seconds(self, size: int) -> float:
        """Return how long the answer of `size` bytes may take [s]."""
        return self._timeout * min(self._patience, max(1.0, size / self.bytes))

    def came(self, size: int, seconds: float) -> None:
        """Learn that `size` bytes came within so many seconds."""
        if size >= self.bytes // 2 and seconds < _QUICK * self._timeout:
            self.bytes = min(BLOCK_BYTES, 2 * self.bytes)

    def late(self, size: int) -> None:
        """Learn that `size` bytes did not come in time."""
        self.bytes = max(_LEAST, min(self.bytes, size) // 2)
