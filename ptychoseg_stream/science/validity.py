"""Which pixels of a frame may be used, found before anything else is made of it.

`inspect` judges one frame by itself and by what `PixelHistory` learned from the frames before. The
history is told of each frame that was labelled, in order; nothing in it depends on later ones.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import FrameError
from .counts import PrepareOptions, to_counts
from .despike import Past, counting_unit, find_cosmics, find_spikes, repair
from .frame import BitMap, BoolArray, FloatArray, ValidBit
from .persistent import Accumulated, find_dead, find_hot
from .shadow import find_shadow

GAP, DEAD, HOT, USER, STOP, COSMIC, SATURATED = (
    np.uint16(getattr(ValidBit, name))
    for name in ("GAP", "DEAD", "HOT", "USER", "STOP", "COSMIC", "SATURATED")
)
NO_VALUE = GAP | USER
BROKEN = DEAD | HOT
TOO_MANY = 0.02
"""Part of a frame that cosmic rays never hit."""


@dataclass(frozen=True, slots=True)
class ValidityOptions:
    """How persistent defects are learned over a run.

    Parameters
    ----------
    memory : int
        Frames that count: older ones fade.
    every : int
        Frames between two looks at the mean for warm, dead and shadowed pixels; four times as many
        after `memory` frames, when it changes slowly.
    warm_up : int
        Frames before a frame is compared with those before it.
    shadow : bool
        Whether the shadow of a beam-stop is looked for.
    """

    memory: int = 256
    every: int = 10
    warm_up: int = 5
    shadow: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name, least in (("memory", 16), ("every", 1), ("warm_up", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} must be at least {least}")


@dataclass(frozen=True, slots=True, eq=False)
class Inspected:
    """One frame of full size, its bad pixels found and repaired.

    Parameters
    ----------
    counts : ndarray of float32
        ``(h, w)`` counts J; each invalid pixel is the median of the valid ones around it.
    bits : ndarray of uint16
        ``(h, w)`` of `ValidBit`; 0 is a valid pixel.
    unknown : ndarray of bool
        ``(h, w)`` invalid pixels with no valid one near: J is 0.
    raw : ndarray of float32
        ``(h, w)`` counts before the repair, 0 where there is no value.
    single : ndarray of bool
        ``(h, w)`` single bright pixels, whether hot ones or new.
    unit : float
        Of `counting_unit`.
    """

    counts: FloatArray
    bits: BitMap
    unknown: BoolArray
    raw: FloatArray
    single: BoolArray
    unit: np.float32

    @property
    def spikes(self) -> int:
        """Number of pixels that a cosmic ray or a hot pixel spoiled."""
        return int(np.count_nonzero(self.bits & (COSMIC | HOT)))


class PixelHistory:
    """What the frames of a run say about each pixel of the detector.

    Memory is a few images of the frame's size, however long the run.

    Parameters
    ----------
    shape : tuple of int
        ``(h, w)``.
    options : ValidityOptions, optional
    """

    _options: ValidityOptions
    _frames: int
    _weight: FloatArray
    _sum: FloatArray
    _squares: FloatArray
    _changes: FloatArray
    _last: FloatArray
    _recent: FloatArray
    _usual: FloatArray  # the brightest of 3x3 of `_recent`
    _still: NDArray[np.int32]
    _single: NDArray[np.uint8]  # of the last eight frames, a bit each
    _hot: BoolArray
    _warm: BoolArray
    _dead: BoolArray
    _stop: BoolArray

    def __init__(self, shape: tuple[int, int], options: ValidityOptions | None = None) -> None:
        self._options = options or ValidityOptions()
        self._frames = 0
        self._weight, self._sum, self._squares = np.zeros((3, *shape), np.float32)
        self._changes, self._last = np.zeros((2, *shape), np.float32)
        self._recent, self._usual = np.zeros((2, *shape), np.float32)
        self._still = np.zeros(shape, np.int32)
        self._single = np.zeros(shape, np.uint8)
        self._hot, self._warm, self._dead, self._stop = np.zeros((4, *shape), bool)

    @property
    def shape(self) -> tuple[int, int]:
        """``(h, w)``."""
        return self._still.shape[0], self._still.shape[1]

    @property
    def frames(self) -> int:
        """Number of frames that it was told of."""
        return self._frames

    @property
    def bits(self) -> BitMap:
        """``(h, w)`` of `ValidBit`: hot, dead and shadowed pixels."""
        bits = np.where(self._hot | self._warm, HOT, np.uint16(0))
        bits[self._dead & (bits == 0)] = DEAD
        bits[self._stop] |= STOP
        return bits

    def past(self, unit: np.float32) -> Past | None:
        """Return what a frame is compared with, in its counting unit; None during the warm-up."""
        if self._frames < self._options.warm_up:
            return None
        return Past(ndimage.uniform_filter(self._recent / unit, 3), self._usual / unit)

    def update(self, seen: Inspected) -> None:
        """Learn from the next frame of the run, after it was inspected.

        Frames without a beam should be left out: they say nothing about dead pixels.

        Raises
        ------
        FrameError
            If the frame is of another size.
        """
        if seen.bits.shape != self.shape:
            raise FrameError(
                f"another size: the frame is {seen.bits.shape}, the run began with {self.shape}; "
                "change the region of interest between runs, not within one"
            )
        self._frames += 1
        self._accumulate(seen)
        self._judge_single(seen.single)
        self._follow(seen)
        early = self._frames <= self._options.memory
        if self._frames % (self._options.every * (1 if early else 4)) == 0:
            self._look()

    def _accumulate(self, seen: Inspected) -> None:
        value = np.where(seen.bits & COSMIC, seen.counts, seen.raw)
        has_value = (seen.bits & NO_VALUE) == 0
        kept = np.float32(1 - 1 / self._options.memory)
        for total, new in (
            (self._weight, np.ones_like(value)),
            (self._sum, value),
            (self._squares, np.square(value)),
            (self._changes, (seen.raw != self._last).astype(np.float32)),
        ):
            total *= kept
            total[has_value] += new[has_value]
        self._still = np.where(seen.raw == self._last, self._still + 1, 0).astype(np.int32)
        self._last = seen.raw

    def _judge_single(self, single: BoolArray) -> None:
        """Hot is a pixel that spikes in five of eight frames, until it does in one at most."""
        self._single = np.asarray((self._single << 1) | single, np.uint8)
        often = np.bitwise_count(self._single)
        self._hot = (often >= 5) | (self._hot & (often > 1))

    def _follow(self, seen: Inspected) -> None:
        """Follow what is usual; what is too bright to be true only by and by."""
        broken = (seen.bits & (BROKEN | NO_VALUE)) != 0
        value = np.where(broken, seen.counts, seen.raw)
        if self._frames == 1:
            self._recent = np.where(seen.bits & COSMIC, seen.counts, value)
        else:
            value = np.minimum(value, 4 * np.maximum(self._usual, 0) + 8 * seen.unit)
            self._recent += (value - self._recent) / np.float32(min(self._frames, 16))
        self._usual = ndimage.maximum_filter(self._recent, 3)

    def _look(self) -> None:
        """Look at the mean for what single frames do not show."""
        weight = np.maximum(self._weight, np.float32(1e-6))
        mean = self._sum / weight
        variance = np.maximum(self._squares / weight - np.square(mean), 0)
        seen = Accumulated(self._weight, mean, variance, self._changes / weight, self._still)
        never = self._weight < 0.5
        self._warm = find_hot(seen, never | self._dead | self._hot | self._warm) & ~never
        hot = self._hot | self._warm
        self._dead = find_dead(seen, never | hot) & ~(never | hot)
        if self._options.shadow:
            self._stop = find_shadow(seen, never | hot | self._dead)


def inspect(
    image: NDArray[Any],
    options: PrepareOptions,
    history: PixelHistory | None = None,
    user: BoolArray | None = None,
) -> Inspected:
    """Find the invalid pixels of a frame and repair them; the history is only read.

    A pixel that the history calls hot is not a cosmic ray as well.

    Parameters
    ----------
    image : ndarray
        ``(h, w)`` detector units of any real dtype.
    options : PrepareOptions
    history : PixelHistory, optional
        Of the frames before; None judges the frame by itself.
    user : ndarray of bool, optional
        ``(h, w)`` pixels that the user masks.

    Raises
    ------
    FrameError
        If the frame is no frame, or too little of it is usable.
    """
    counts, bits = to_counts(image, options, user)
    raw = _with_saturated(counts, bits, image, options)
    if history is not None:
        bits |= history.bits
    broken = (bits & BROKEN) != 0
    unit = np.float32(1)
    single, cosmic = _sharp(raw, bits, unit, history)
    if cosmic.mean() > TOO_MANY:  # they are no cosmic rays, but what the detector counts in
        unit = counting_unit(raw, bits == 0)
        single, cosmic = _sharp(raw, bits, unit, history)
    bits[cosmic & ~broken] |= COSMIC
    repaired, unknown = repair(raw, bits != 0)
    return Inspected(repaired, bits, unknown, raw, single, unit)


def _sharp(
    raw: FloatArray, bits: BitMap, unit: np.float32, history: PixelHistory | None
) -> tuple[BoolArray, BoolArray]:
    """Return single bright pixels, hot ones too, and the spikes and tracks of cosmic rays."""
    no_value, broken = (bits & NO_VALUE) != 0, (bits & BROKEN) != 0
    single = find_spikes(raw / unit, no_value | broken) & ~no_value
    usable, _ = repair(raw / unit, no_value | broken)  # the rim of a gap must not look sharp
    past = history.past(unit) if history is not None else None
    return single, find_cosmics(usable, single & ~broken, past)


def _with_saturated(
    counts: FloatArray, bits: BitMap, image: NDArray[Any], options: PrepareOptions
) -> FloatArray:
    saturated = (bits & SATURATED) != 0
    raw = counts.copy()
    values = image[saturated].astype(np.float32)
    raw[saturated] = (values - np.float32(options.pedestal)) / np.float32(options.gain)
    return raw
