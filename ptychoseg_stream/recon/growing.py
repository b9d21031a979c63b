"""The scan so far: what a feed brings, laid out in arrays that a reconstruction works on."""

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError
from ..science.experiment import Experiment, Positions
from ..science.frame import BitMap, BoolArray, ClassMap, FloatArray
from ..science.products import RunProducts
from ..sinks.feed.items import FrameItem

FIRST_CAPACITY = 64
"""Frames that there is room for when nobody says how many will come."""
MOST_AT_FIRST = 1 << 30
"""Bytes that there is room for at first, whatever a start document plans."""
SAMPLE = 256
"""Frames that are looked at together, for a mean or the like."""


class GrowingScan:
    """Frames, masks and positions of a run, as far as they have come; in any order.

    A frame is *ready* when it, its mask and its position are there. All arrays have room for more
    frames than have come; row i is frame i.

    Parameters
    ----------
    shape : tuple of int
        ``(H, W)`` of a frame.
    capacity : int
        Frames to make room for; 0 if nobody knows. More are taken.
    experiment : Experiment, optional
    pedestal, gain : float
        Of the detector: counts are (value - pedestal) / gain.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        capacity: int = 0,
        experiment: Experiment | None = None,
        pedestal: float = 0.0,
        gain: float = 1.0,
    ) -> None:
        most = max(1, MOST_AT_FIRST // (6 * max(1, shape[0] * shape[1])))
        room = min(capacity or FIRST_CAPACITY, most)
        self.shape = shape
        self.experiment = experiment or Experiment()
        self.products: RunProducts | None = None
        self.frames = np.zeros((room, *shape), np.float32)
        self.valid = np.zeros((room, *shape), bool)
        self.classes = np.zeros((room, *shape), np.uint8)
        self.positions: Positions = np.full((room, 2), np.nan)
        self._pedestal, self._gain = np.float32(pedestal), np.float32(gain)
        self._here = np.zeros(room, bool)
        self._static = np.ones(shape, bool)

    @property
    def ready(self) -> NDArray[np.intp]:
        """Indices of the frames that can be used, in order."""
        return np.flatnonzero(self._here & np.isfinite(self.positions).all(axis=1))

    @property
    def some(self) -> NDArray[np.intp]:
        """At most `SAMPLE` of the frames that are ready, spread over the run."""
        ready = self.ready
        return ready[:: -(-len(ready) // SAMPLE) or 1]

    @property
    def expected(self) -> int:
        """How many frames there is room for."""
        return len(self.frames)

    def usable(self, index: NDArray[np.intp]) -> BoolArray:
        """Return ``(n, H, W)`` which pixels of these frames may be used, as is known by now."""
        return self.valid[index] & self._static

    def add(self, item: FrameItem) -> None:
        """Take a frame; the same index again replaces it. One that has no mask is left out.

        Raises
        ------
        DatasetError
            If it is of another size than the run.
        """
        self._reserve(item.index + 1)
        if item.image is None or item.status != "ok":
            return
        if item.image.shape != self.shape:
            raise DatasetError(
                f"frame {item.index} is {item.image.shape}, the run began with {self.shape}: "
                "reconstruct the runs one by one"
            )
        counts = (item.image.astype(np.float32) - self._pedestal) / self._gain
        finite = np.isfinite(counts)
        self.frames[item.index] = np.where(finite, counts, np.float32(0))
        self.valid[item.index] = (item.valid_bits == 0) & finite
        self.classes[item.index] = item.classes
        self._here[item.index] = True

    def fill(self, frames: FloatArray, valid: BoolArray, classes: ClassMap) -> None:
        """Take all frames at once, ``(n, H, W)`` each, as they are."""
        self._reserve(len(frames))
        here = slice(0, len(frames))
        finite = np.isfinite(frames)
        self.frames[here] = np.where(finite, frames, np.float32(0))
        self.valid[here] = valid & finite
        self.classes[here] = classes
        self._here[here] = True

    def revise(self, first: int, last: int, bits: BitMap) -> None:
        """Take bits ``(H, W)`` that became known of the frames [first, last), there or not."""
        self.valid[first:last] &= bits == 0

    def place(self, first: int, positions: Positions) -> None:
        """Take positions ``(n, 2)``, y and x [m], of the frames from `first` on; NaN is skipped."""
        self._reserve(first + len(positions))
        known = np.isfinite(positions).all(axis=1)
        self.positions[first : first + len(positions)][known] = positions[known]

    def learn(self, products: RunProducts) -> None:
        """Take what the run says as a whole; in place of what it said before."""
        self.products = products
        self._static = products.pixel_mask == 0

    def forget_static(self) -> None:
        """Use each frame's own bits only."""
        self._static = np.ones(self.shape, bool)

    def _reserve(self, length: int) -> None:
        if length <= self.expected:
            return
        more = max(length, 2 * self.expected) - self.expected
        for name in ("frames", "valid", "classes", "positions", "_here"):
            old = getattr(self, name)
            fill = np.nan if name == "positions" else 0
            new = np.full((more, *old.shape[1:]), fill, old.dtype)
            setattr(self, name, np.concatenate([old, new]))


def estimated_mean(scan: GrowingScan) -> FloatArray:
    """Return ``(H, W)`` mean of frames that are ready, invalid pixels left out [counts]."""
    index = scan.some
    use = scan.usable(index)
    total = np.where(use, scan.frames[index], np.float32(0)).sum(axis=0)
    return (total / np.maximum(use.sum(axis=0), 1)).astype(np.float32)
