"""What a consumer of the feed gets: one class per kind of message."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

from ...node.ports import Products
from ...science.experiment import Experiment, Positions
from ...science.frame import BitMap, ClassMap


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A run begins: what is known before its first frame.

    Parameters
    ----------
    seq : int
        Number of this message in its run: 0, 1, 2, ... without holes, as in all the other classes.
    run : str
        Uid of the raw run.
    derived : str
        Uid of the derived run; empty if it is not known.
    shape : tuple of int
        ``(H, W)`` of its frames.
    num_points : int
        Frames that are planned; 0: not known.
    experiment : Experiment
        Energy and geometry, as far as they are known by now; a `ProductsItem` may know more.
    positions : ndarray of float64 or None
        ``(n, 2)`` planned, y and x [m]; None if they are not known.
    classes : mapping of str to str
        Names of the class codes: ``{"0": "background", ...}``.
    bits : mapping of str to str
        Names of the bits of validity: ``{"1": "gap", ...}``.
    start : mapping
        What the raw run's start document says of sample, plan and the like.
    tiled : str
        Address of the derived run in Tiled; empty if it is not known.
    """

    seq: int
    run: str
    derived: str
    shape: tuple[int, int]
    num_points: int = 0
    experiment: Experiment = field(default_factory=Experiment)
    positions: Positions | None = None
    classes: Mapping[str, str] = field(default_factory=dict[str, str])
    bits: Mapping[str, str] = field(default_factory=dict[str, str])
    start: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tiled: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class FrameItem:
    """A frame and its mask.

    Parameters
    ----------
    index : int
        Row of the frame in the raw array; rises.
    time : float
        When it was taken [s since the epoch].
    seq_num : int
        Number of its Event, from 1; repeats after a rewind.
    attempt : int
        How often the same point was taken before.
    image : ndarray or None
        ``(H, W)`` as the detector gave it; None if it could not be read.
    classes : ndarray of uint8
        ``(H, W)`` of `ptychoseg_stream.science.frame.ClassCode`; all 255 if `status` is not "ok".
    valid_bits : ndarray of uint16
        ``(H, W)`` of `ptychoseg_stream.science.frame.ValidBit`; 0: this pixel may be used.
    revision : int
        Number of the last `Revision` before it; 0 before the first.
    status : {"ok", "refused", "lost"}
        Whether there is a mask.
    verdict : {"annulus", "disc", "none", "no beam"}
        What the frame shows.
    """

    seq: int
    run: str
    index: int
    time: float
    seq_num: int
    attempt: int
    image: NDArray[Any] | None
    classes: ClassMap
    valid_bits: BitMap
    revision: int
    status: str
    verdict: str


@dataclass(frozen=True, slots=True, eq=False)
class Revision:
    """Pixels that must not be used in earlier frames, either: ``valid_bits[first:last] |= bits``.

    Parameters
    ----------
    first, last : int
        Frames [first, last).
    bits : ndarray of uint16
        ``(H, W)`` only what is new.
    revision : int
        1, 2, 3, ... in a run.
    """

    seq: int
    run: str
    first: int
    last: int
    bits: BitMap
    revision: int


@dataclass(frozen=True, slots=True, eq=False)
class PositionsItem:
    """Where the probe was: what has become known since the last one.

    Parameters
    ----------
    first : int
        Frame of the first row.
    positions : ndarray of float64
        ``(n, 2)`` y and x [m]; NaN where it is still not known.
    """

    seq: int
    run: str
    first: int
    positions: Positions


@dataclass(frozen=True, slots=True, eq=False)
class ProductsItem:
    """What the run says as a whole so far, in place of what it said before."""

    seq: int
    run: str
    products: Products


@dataclass(frozen=True, slots=True, eq=False)
class Stop:
    """The run is over; nothing follows.

    Parameters
    ----------
    exit_status, reason : str
        As the raw run ended.
    account : mapping
        What became of its frames, see `ptychoseg_stream.node.ports.Account`.
    """

    seq: int
    run: str
    exit_status: str
    reason: str
    account: Mapping[str, Any] = field(default_factory=dict[str, Any])


Item: TypeAlias = Start | FrameItem | Revision | PositionsItem | ProductsItem | Stop
