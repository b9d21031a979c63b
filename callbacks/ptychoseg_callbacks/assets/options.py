"""How files that documents name are read, and what is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    """How files are read, and how large, late and far away they may be.

    Parameters
    ----------
    root_map : mapping of str to str
        Folder as the detector names it -> the same folder as it is mounted here; the longest wins.
        Keys may be POSIX paths, Windows paths (``X:/data``) or ``//host/share``.
    roots : tuple of str
        Folders that files must lie in, symbolic links resolved; empty: files may lie anywhere, but
        a file may lead only to files beside or below itself.
    read_timeout : float
        How long to wait for frames that are announced but not in the file yet [s].
    locking : bool, optional
        False reads HDF5 without file locks, for file systems that have none.
    max_pixels : int
        Largest image that is read [px].
    max_read_bytes : int
        Most that one read, one chunk or one frame may take in memory [bytes].
    """

    root_map: Mapping[str, str] = field(default_factory=dict[str, str])
    roots: tuple[str, ...] = ()
    read_timeout: float = 2.0
    locking: bool | None = None
    max_pixels: int = 2**26
    max_read_bytes: int = 2**28

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        for root in self.roots:
            if not root.startswith("/"):
                raise ValueError(f"roots: {root!r} is not an absolute path")
        if not 0 <= self.read_timeout <= 3600:
            raise ValueError(f"read_timeout: {self.read_timeout} s is not within 0 and 3600")
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels: {self.max_pixels} is less than 1")
        if self.max_read_bytes < 2**16:
            raise ValueError(f"max_read_bytes: {self.max_read_bytes} is less than 65536")
