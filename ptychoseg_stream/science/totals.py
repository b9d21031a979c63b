"""Adds the frames of a run up to what they say together: see `products`."""

import numpy as np
from numpy.typing import NDArray

from .background import Background
from .frame import BitMap, BoolArray, ClassCode, ClassMap, FloatArray, ValidBit
from .products import SUMS, RunProducts
from .records import Quality

STATIC = ValidBit.GAP | ValidBit.DEAD | ValidBit.HOT | ValidBit.USER | ValidBit.STOP
"""Reasons that hold for a pixel, and not for a frame."""
OFTEN = 0.1
"""Part of the frames that must have called a pixel bad which the last one does not."""
TINY = np.float32(1e-6)
"""Counts of a background that is not known: above 0, as its square root is taken by some."""
_FACTS = 8  # of a frame: its sums, centre and radii


class Totals:
    """What the frames of a run add up to, in a few images and eight numbers per frame.

    Parameters
    ----------
    shape : tuple of int
        ``(h, w)``.
    """

    _bits: BitMap  # static ones of the last frame
    _same: int  # frames in a row that had these
    _flagged: NDArray[np.int32]  # frames that called a pixel bad, by reason; those rows left out
    _ring: NDArray[np.int32]
    _counted: NDArray[np.int32]
    _sum: NDArray[np.float64]
    _used: int
    _frames: int
    _facts: NDArray[np.float64]  # (room, 8)

    def __init__(self, shape: tuple[int, int]) -> None:
        self._bits = np.zeros(shape, np.uint16)
        self._same = 0
        self._flagged = np.zeros((len(STATIC), *shape), np.int32)
        self._ring, self._counted = np.zeros((2, *shape), np.int32)
        self._sum = np.zeros(shape, np.float64)
        self._used = self._frames = 0
        self._facts = np.full((64, _FACTS), np.nan)

    @property
    def shape(self) -> tuple[int, int]:
        """``(h, w)``."""
        return self._sum.shape[0], self._sum.shape[1]

    def skip(self, index: int) -> None:
        """Take note of a frame without a mask: it says nothing."""
        self._frames = max(self._frames, index + 1)
        if self._frames > len(self._facts):
            more = np.full((max(self._frames, 2 * len(self._facts)), _FACTS), np.nan)
            more[: len(self._facts)] = self._facts
            self._facts = more

    def add(
        self, index: int, raw: FloatArray, classes: ClassMap, bits: BitMap, quality: Quality
    ) -> None:
        """Take the next frame of the run.

        Parameters
        ----------
        index : int
            Of the frame.
        raw : ndarray of float32
            ``(h, w)`` counts, not repaired.
        classes : ndarray of uint8
            ``(h, w)`` the class map that is served.
        bits : ndarray of uint16
            ``(h, w)`` of `ValidBit`.
        quality : Quality
            For centre and radii.
        """
        self.skip(index)
        self._used += 1
        valid, ring = bits == 0, classes == ClassCode.RING
        self._flag(bits & np.uint16(STATIC))
        self._ring += ring
        self._counted += valid
        usable = np.where(valid, raw, np.float32(0))
        self._sum += usable
        bright = _grown(ring)
        dark = ~bright & (classes != ClassCode.INVALID) & (classes != ClassCode.BEAM_STOP)
        sums = _sums(usable, bright, dark)
        self._facts[index] = (*sums, *quality.centre, quality.inner, quality.outer)

    def _flag(self, bits: BitMap) -> None:
        """Count who is called bad; most frames call those bad whom the one before did."""
        if not np.array_equal(bits, self._bits):
            self._flagged += self._same * _apart(self._bits)
            self._bits, self._same = bits, 0
        self._same += 1

    @property
    def pixel_mask(self) -> BitMap:
        """``(h, w)`` union of the static bits: those of many frames, and of the last one."""
        flagged = self._flagged + self._same * _apart(self._bits)
        often = flagged > OFTEN * max(self._used, 1)
        # A gap is what the frame itself says: one that was half read must not speak for all.
        found = self._bits & ~np.uint16(ValidBit.GAP)
        for bit, where in zip(STATIC, often, strict=True):
            found[where] |= np.uint16(bit)
        return found

    def products(self, background: Background | None) -> RunProducts:
        """Return what the frames so far say together; nothing of it changes later.

        Parameters
        ----------
        background : Background or None
            What was learned of the background of the same frames.
        """
        facts = self._facts[: self._frames].copy()
        y, x, inner, outer = (_median(column) for column in facts.T[len(SUMS) :])
        sums = facts[:, : len(SUMS)]
        sums[:, 2:] -= y, x
        level, variance, samples = _of_background(background, self.shape)
        return RunProducts(
            frames=self._frames,
            used=self._used,
            pixel_mask=self.pixel_mask,
            background=level,
            background_variance=variance,
            background_samples=samples,
            pupil=(2 * self._ring > max(self._used, 1)).astype(np.uint8),
            mean=(self._sum / np.maximum(self._counted, 1)).astype(np.float32),
            centre=(y, x),
            inner=inner,
            outer=outer,
            sums=sums,
        )


def _apart(bits: BitMap) -> NDArray[np.int32]:
    """Return ``(5, h, w)`` 1 where a pixel is bad for each of the static reasons."""
    return np.stack([(bits & np.uint16(bit)) != 0 for bit in STATIC]).astype(np.int32)


def _grown(ring: BoolArray) -> BoolArray:
    """Return the ring with its flanks, 2 px to all sides.

    A pixel there that is ring in one frame, and not in the next, has as many counts as the whole
    dark field varies by: without it, a dark field correlates with the true one by 0.56, not 0.99.
    """
    h, w = ring.shape
    padded = np.zeros((h + 4, w + 4), bool)
    padded[2:-2, 2:-2] = ring
    cross = padded.copy()
    cross[1:] |= padded[:-1]
    cross[:-1] |= padded[1:]
    cross[:, 1:] |= padded[:, :-1]
    cross[:, :-1] |= padded[:, 1:]
    rows = cross[:-2] | cross[1:-1] | cross[2:]
    grown = rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
    return grown[1:-1, 1:-1]


def _sums(
    counts: FloatArray, bright: BoolArray, dark: BoolArray
) -> tuple[float, float, float, float]:
    """Return bright field, dark field and the centre of mass of the bright field, y and x."""
    light = np.where(bright, counts, np.float32(0))
    rows, columns = light.sum(1, dtype=np.float64), light.sum(0, dtype=np.float64)
    total = float(rows.sum())
    scattered = float(counts.sum(where=dark, dtype=np.float64))
    if not total > 0:
        return total, scattered, float("nan"), float("nan")
    y = float(rows @ np.arange(len(rows))) / total
    x = float(columns @ np.arange(len(columns))) / total
    return total, scattered, y, x


def _median(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _of_background(
    background: Background | None, shape: tuple[int, int]
) -> tuple[FloatArray, FloatArray, NDArray[np.int32]]:
    if background is None:
        unknown = np.full(shape, np.nan, np.float32)
        return np.full(shape, TINY), unknown, np.zeros(shape, np.int32)
    level = np.where(np.isfinite(background.mean), background.mean, TINY)
    return np.maximum(level, TINY), background.variance, background.samples.copy()
