"""A run as it is exported, with nothing missing: what the writers of files take."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..science.despike import repair
from ..science.experiment import Experiment, Positions
from ..science.frame import BitMap, BoolArray, ClassMap, FloatArray, ValidBit
from ..science.products import RunProducts


@dataclass(frozen=True, slots=True, eq=False)
class ExportedFrame:
    """What a file says of one frame.

    Parameters
    ----------
    raw : ndarray
        ``(H, W)`` as the detector gave it.
    counts : ndarray of float32
        ``(H, W)`` photons, finite and at least 0; what was wrong in this frame only is the median
        of the right pixels around it.
    bits : ndarray of uint16
        ``(H, W)`` of `ValidBit`: what is known of the frame, and what the run found out later.
    classes : ndarray of uint8
        ``(H, W)`` class codes.
    """

    raw: NDArray[Any]
    counts: FloatArray
    bits: BitMap
    classes: ClassMap

    @property
    def valid(self) -> NDArray[np.uint8]:
        """``(H, W)``, 1 where the pixel may be used, whatever its class."""
        return (self.bits == 0).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class ExportRun:
    """A derived run, its raw frames and its geometry.

    Parameters
    ----------
    uid, raw_uid : str
        Of the derived and of the raw run.
    rows : ndarray of int
        ``(n,)`` the frames that are exported, by their index in the raw run.
    shape : tuple of int
        ``(H, W)`` of a frame.
    dtype : dtype
        Of the raw frames.
    image, classes, bits : callable
        Index in the raw run -> ``(H, W)`` raw frame, class map, `ValidBit` of the pixels.
    products : RunProducts
        What the frames of the run say together.
    positions : ndarray of float64
        ``(n, 2)`` of the probe on the sample, y and x along rows and columns [m]; all finite.
    experiment : Experiment
        Nothing in it is 0.
    pedestal, gain : float
        Of the detector: photons are (raw - pedestal) / gain.
    began, ended : float
        When the first and the last frame were taken [s since the epoch]; 0 if unknown.
    sample, scan_id : str
        As in the raw run's start document; empty if unknown.
    provenance : mapping
        How the masks were made; plain values.
    """

    uid: str
    raw_uid: str
    rows: NDArray[np.intp]
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    image: Callable[[int], NDArray[Any]]
    classes: Callable[[int], ClassMap]
    bits: Callable[[int], BitMap]
    products: RunProducts
    positions: Positions
    experiment: Experiment
    pedestal: float
    gain: float
    began: float
    ended: float
    sample: str
    scan_id: str
    provenance: Mapping[str, Any]

    def __len__(self) -> int:
        """Return the number of frames that are exported."""
        return len(self.rows)

    @property
    def static(self) -> BitMap:
        """``(H, W)`` of `ValidBit`: pixels that must not be used in any frame."""
        return self.products.pixel_mask

    def frames(self) -> Iterator[ExportedFrame]:
        """Read the frames, one after the other."""
        return (self.frame(int(row)) for row in self.rows)

    def frame(self, row: int) -> ExportedFrame:
        """Read the frame of an index of the raw run."""
        raw = self.image(row)
        # A pixel that was found bad late in the run was bad before, too.
        bits = self.bits(row) | self.static
        with np.errstate(over="ignore", invalid="ignore"):
            values = raw.astype(np.float32)
            counts = (values - np.float32(self.pedestal)) / np.float32(self.gain)
        return ExportedFrame(raw, _usable(counts, bits, self.static != 0), bits, self.classes(row))


def _usable(counts: FloatArray, bits: BitMap, static: BoolArray) -> FloatArray:
    """Return counts that no reader stumbles over: finite, at least 0, repaired in this frame.

    Readers that know one mask per run use the pixels that are wrong in this frame only, so those
    are repaired. What is masked in every frame stays as it was measured, and a gap is 0.
    """
    gap = (bits & np.uint16(ValidBit.GAP)) != 0
    repaired, _ = repair(np.where(static, np.float32(np.nan), counts), (bits != 0) & ~static)
    told = np.where(static, np.where(gap, np.float32(0), counts), repaired)
    # Every engine takes the root of it: what noise pushed below 0 would be NaN.
    return np.nan_to_num(np.maximum(told, 0), nan=0.0, posinf=0.0).astype(np.float32)
