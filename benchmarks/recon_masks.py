"""Ways of giving masks to a reconstruction, right and wrong ones."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from recon_cases import Case

from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.node.trainer import InlineTrainer
from ptychoseg_stream.recon.growing import GrowingScan
from ptychoseg_stream.science.frame import ClassCode, Frame, Mask, ValidBit
from ptychoseg_stream.science.products import RunProducts
from ptychoseg_stream.sinks.feed.items import FrameItem

RUN = "benchmark"
EVERY = 16
"""Frames between two looks at what the run says as a whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """What a node said of a case.

    Parameters
    ----------
    classes : ndarray of uint8
        ``(n, H, W)``.
    told : ndarray of uint16
        ``(n, H, W)`` bits of each frame, as they were told with it.
    news : dict of int to RunProducts
        What the run said as a whole after so many frames; the last one is the final one.
    """

    classes: NDArray[np.uint8]
    told: NDArray[np.uint16]
    news: dict[int, RunProducts]

    @property
    def final(self) -> RunProducts:
        """What the run says as a whole in the end."""
        return self.news[len(self.told)]

    @property
    def bits(self) -> NDArray[np.uint16]:
        """``(n, H, W)`` bits of each frame, as a consumer has them at the end."""
        return self.told | self.final.pixel_mask

    @property
    def beam(self) -> NDArray[np.bool_]:
        """``(n, H, W)`` ring and core."""
        return (self.classes == ClassCode.RING) | (self.classes == ClassCode.CORE)


def labelled(frames: NDArray[np.float32]) -> Labelled:
    """Run the node over frames, one after the other."""
    options = NodeOptions()
    node = Node(
        options,
        lambda: InlineTrainer(options.student, promotion=options.promotion),
        MemoryStore(),
    )
    node.open(RUN)
    masks: list[Mask] = []
    news: dict[int, RunProducts] = {}
    for index, image in enumerate(frames):
        masks += node.process([Frame(RUN, index, image, image.shape)])
        now = node.products(RUN)
        if now is not None and (len(masks) % EVERY == 0 or len(masks) == len(frames)):
            news[len(masks)] = now
    unknown = np.full(frames.shape[1:], ValidBit.GAP, np.uint16)
    bits = [unknown if m.valid_bits is None else m.valid_bits for m in masks]
    return Labelled(np.stack([m.classes for m in masks]), np.stack(bits), news)


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
    scan.learn(said.final)
    if frames is not None:
        scan.frames[:] = frames
    if use is not None:
        scan.valid[:] = use
        scan.forget_static()
    return scan


def frame_of(case: Case, said: Labelled, index: int) -> FrameItem:
    """Return one frame as a feed brings it."""
    return FrameItem(
        seq=0,
        run=RUN,
        index=index,
        time=0.0,
        seq_num=index + 1,
        attempt=0,
        image=case.frames[index],
        classes=said.classes[index],
        valid_bits=said.told[index],
        revision=0,
        status="ok",
        verdict="annulus",
    )


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
