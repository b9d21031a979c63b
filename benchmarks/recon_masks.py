"""Ways of giving masks to a reconstruction, right and wrong ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from recon_cases import Case

from ptychoseg_stream.recon.growing import FrameLike, GrowingScan
from ptychoseg_stream.recon.summary import summarise
from ptychoseg_stream.science.frame import ClassCode, Mask, ValidBit

SINGLE = np.uint16(ValidBit.COSMIC | ValidBit.SATURATED)
"""Bits that hold for one frame only."""
OFTEN = 0.1
"""Part of the frames from which on a bit is one of the pixel."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """What a node said of a case.

    Parameters
    ----------
    classes : ndarray of uint8
        ``(n, H, W)``.
    bits : ndarray of uint16
        ``(n, H, W)``, with what the run as a whole says of each pixel.
    static : ndarray of uint16
        ``(H, W)``.
    """

    classes: NDArray[np.uint8]
    bits: NDArray[np.uint16]
    static: NDArray[np.uint16]

    @property
    def beam(self) -> NDArray[np.bool_]:
        """``(n, H, W)`` ring and core."""
        return (self.classes == ClassCode.RING) | (self.classes == ClassCode.CORE)


@dataclass(frozen=True, slots=True, eq=False)
class FrameItem:
    """A frame as a feed brings it, as far as a reconstruction asks."""

    index: int
    image: NDArray[np.float32]
    classes: NDArray[np.uint8]
    valid_bits: NDArray[np.uint16]
    status: str = "ok"


def labelled(masks: Sequence[Mask]) -> Labelled:
    """Collect what a consumer gets of a run when it is over."""
    classes = np.stack([mask.classes for mask in masks])
    bits = np.stack([m.valid_bits for m in masks if m.valid_bits is not None])
    static = np.zeros(classes.shape[1:], np.uint16)
    for bit in ValidBit:
        flag = np.uint16(bit)
        if not flag & SINGLE:
            often = ((bits & flag) > 0).mean(axis=0) >= OFTEN
            static[often | ((bits[-1] & flag) > 0)] |= flag
    return Labelled(classes, bits | static, static)


def scan_of(
    case: Case,
    said: Labelled,
    *,
    frames: NDArray[np.float32] | None = None,
    use: NDArray[np.bool_] | None = None,
) -> GrowingScan:
    """Lay a case out for the engine; `use` ``(n, H, W)`` are the pixels that may be used.

    Background and pupil are ours, whatever the mask: only the mask is compared.
    """
    scan = GrowingScan(said.classes.shape[1:], len(case.frames), case.experiment)
    for i in range(len(case.frames)):
        scan.add(frame_of(case, said, i))
    scan.place(0, case.positions)
    scan.learn(summarise(scan, said.static))
    if frames is not None:
        scan.frames[:] = frames
    if use is not None:
        scan.valid[:] = use
        scan.forget_static()
    return scan


def frame_of(case: Case, said: Labelled, index: int) -> FrameLike:
    """Return one frame as a feed brings it."""
    return FrameItem(index, case.frames[index], said.classes[index], said.bits[index])


Make = Callable[[Case, Labelled], GrowingScan]


def _zeroed(case: Case, zero: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(zero, np.float32(0), case.frames)


POLICIES: dict[str, Make] = {
    "no mask": lambda c, s: scan_of(c, s, use=np.ones_like(s.beam)),
    "our masks": lambda c, s: scan_of(c, s),
    "oracle": lambda c, s: scan_of(c, s, use=c.bits == 0),
    "bad pixels zeroed": lambda c, s: scan_of(
        c, s, frames=_zeroed(c, s.bits != 0), use=np.ones_like(s.beam)
    ),
    "ring + core as valid": lambda c, s: scan_of(c, s, use=(s.bits == 0) & s.beam),
    "background zeroed": lambda c, s: scan_of(c, s, frames=_zeroed(c, ~s.beam), use=s.bits == 0),
}
"""Ways of using masks, by name."""
