"""Which images of a run are looked at, and how far documents are believed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..assets.options import ReaderOptions

UNITS = {
    **dict.fromkeys(("m", "meter", "metre"), 1.0),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e-3),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "microns", "micrometer"), 1e-6),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-9),
}
"""What a unit of length is in metres."""


@dataclass(frozen=True, slots=True)
class PositionOptions:
    """Which data keys tell where the probe is on the sample.

    Parameters
    ----------
    y, x : str
        Data keys; empty: those that the start document names as dimensions (or motors), told apart
        by their last letter, else the first is y.
    unit : str
        m, mm, um or nm; empty: as the descriptor says, else the start document under
        ``positions_unit`` (a unit, or one for each key).
    y_factor, x_factor : float
        Probe on the sample = factor times what the key reads: -1 where a motor moves the sample,
        and the probe stands still.
    stream : str
        Event stream of these keys; empty: that of the images.
    """

    y: str = ""
    x: str = ""
    unit: str = ""
    y_factor: float = 1.0
    x_factor: float = 1.0
    stream: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if bool(self.y) != bool(self.x):
            raise ValueError("y: name both keys, y and x, or none")
        if self.unit and self.unit not in UNITS:
            raise ValueError(f"unit: {self.unit!r} is none of {', '.join(UNITS)}")
        for name in ("y_factor", "x_factor"):
            if not math.isfinite(getattr(self, name)) or getattr(self, name) == 0:
                raise ValueError(f"{name}: {getattr(self, name)} must be a number other than 0")


@dataclass(frozen=True, slots=True)
class FinderOptions:
    """Which images of a run are looked at, and how files are read.

    Parameters
    ----------
    streams : tuple of str
        Event streams to look in; empty: all.
    data_keys : tuple of str
        Keys that hold images, the most wanted first; empty: the first that looks like an image.
    root_map : mapping of str to str
        Folder as the detector names it -> the same folder as it is mounted here.
    read_timeout : float
        How long to wait for frames that are announced but not in the file yet [s].
    locking : bool, optional
        False reads HDF5 without file locks, for file systems that have none.
    block : int
        At most so many frames are read from a file at once.
    roots : tuple of str
        Folders that files must lie in; empty: anywhere.
    max_pixels : int
        Largest image that is taken [px].
    max_read_bytes : int
        Most that is read of a file at once [bytes]; a larger chunk is refused.
    max_gap : int
        Most frames that may be missing at once; a document that jumps further is malformed.
    refill_timeout : float
        How long to wait for frames that were lost on the way to appear in the store of raw
        runs [s]. After it ran out once, nothing waits until a frame was had from there.
    positions : PositionOptions
        Which data keys tell where the probe is.
    """

    streams: tuple[str, ...] = ("primary",)
    data_keys: tuple[str, ...] = ()
    root_map: Mapping[str, str] = field(default_factory=dict[str, str])
    read_timeout: float = 2.0
    locking: bool | None = None
    block: int = 16
    roots: tuple[str, ...] = ()
    max_pixels: int = 1 << 26
    max_read_bytes: int = 1 << 28
    max_gap: int = 100_000
    refill_timeout: float = 2.0
    positions: PositionOptions = field(default_factory=PositionOptions)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in ("block", "max_gap"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} must be 1 or more")
        if not 0 <= self.refill_timeout <= 3600:
            raise ValueError(f"refill_timeout: {self.refill_timeout} s is not within 0 and 3600")
        self.reader()

    def reader(self) -> ReaderOptions:
        """Return what concerns the files."""
        return ReaderOptions(
            root_map=self.root_map,
            roots=self.roots,
            read_timeout=self.read_timeout,
            locking=self.locking,
            max_pixels=self.max_pixels,
            max_read_bytes=self.max_read_bytes,
        )
