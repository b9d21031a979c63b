"""What lies outside the ring: empty, or dark field with signal; and the detector's background.

Each pixel is judged by the counts around it, never by its own alone: the mean over samples that
were called empty because they are low would be low.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .frame import BitMap, BoolArray, ClassCode, ClassMap, FloatArray

WINDOW = 5
"""Side of the square of pixels that are judged together."""
KEPT = 32
"""Frames that are kept to find the floor of each pixel; spread over the run."""
FLOOR = (0.1, 0.4)
"""Quantiles over the kept frames: the floor, and how far it reaches up."""
ENOUGH = 8
"""Empty samples from which on their mean takes the place of the floor."""
BETWEEN = 1.03
"""Standard deviations between these quantiles of normal noise."""
BELOW = 1.28
"""Standard deviations from the lower one to the mean."""


@dataclass(frozen=True, slots=True)
class BackgroundOptions:
    """When a pixel outside the ring is called empty, and when scatter.

    Parameters
    ----------
    scatter : float
        Standard deviations by which the counts around a pixel must exceed the background: 4 is one
        in 30,000.
    empty : float
        Standard deviations within which they must rule out `signal`: 2 is one in 44.
    signal : float
        What must be ruled out [counts per pixel], or `relative` times the background if that is
        more.
    relative : float
    margin : float
        Pixels nearer to the ring than this are never called empty [px]: its flanks, always there,
        would pass for background.
    warm_up : int
        Frames before anything is told.
    every : int
        Frames between two looks for the floor.
    """

    scatter: float = 4.0
    empty: float = 2.0
    signal: float = 0.5
    relative: float = 0.25
    margin: float = 4.0
    warm_up: int = 16
    every: int = 8

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in ("scatter", "empty", "signal", "every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)} must be above 0")
        for name in ("relative", "margin"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} must not be below 0")
        if self.warm_up < 8:
            raise ValueError(f"warm_up: {self.warm_up} must be at least 8")


class Background:
    """Splits the background of class maps, frame by frame, and learns what the detector adds.

    The answer to a frame depends on it and on those before. Memory: 32 images and a few more.

    Parameters
    ----------
    shape : tuple of int
        ``(h, w)``.
    options : BackgroundOptions, optional
    """

    _options: BackgroundOptions
    _frames: int
    _stride: int
    _kept: list[FloatArray]
    _floor: FloatArray
    _samples: NDArray[np.int32]
    _mean: NDArray[np.float64]
    _squares: NDArray[np.float64]
    _read: float  # variance that the counts do not explain

    def __init__(self, shape: tuple[int, int], options: BackgroundOptions | None = None) -> None:
        self._options = options or BackgroundOptions()
        self._frames = 0
        self._stride = 1
        self._kept = []
        self._floor = np.full(shape, np.nan, np.float32)
        self._samples = np.zeros(shape, np.int32)
        self._mean, self._squares = np.zeros((2, *shape), np.float64)
        self._read = 0.0

    @property
    def samples(self) -> NDArray[np.int32]:
        """``(h, w)`` number of samples that were called empty."""
        return self._samples

    @property
    def mean(self) -> FloatArray:
        """``(h, w)`` mean over the samples called empty [counts]; NaN below two of them."""
        return np.where(self._samples > 1, self._mean, np.nan).astype(np.float32)

    @property
    def variance(self) -> FloatArray:
        """``(h, w)`` variance of one sample [counts^2]; that of `mean` is this over `samples`."""
        few = self._samples < 2
        variance = self._squares / np.where(few, 1, self._samples - 1)
        return np.where(few, np.nan, variance).astype(np.float32)

    def split(self, counts: FloatArray, classes: ClassMap, bits: BitMap) -> ClassMap:
        """Tell empty from scatter in the next frame of the run, and learn from it.

        Parameters
        ----------
        counts : ndarray of float32
            ``(h, w)`` repaired counts J.
        classes : ndarray of uint8
            ``(h, w)`` class codes; those that are not `ClassCode.BACKGROUND` stay.
        bits : ndarray of uint16
            ``(h, w)`` of `ValidBit`: invalid pixels are not counted, and are told by those around.

        Returns
        -------
        ndarray of uint8
            ``(h, w)`` with `ClassCode.EMPTY` and `ClassCode.SCATTER` where that can be told.
        """
        outside = classes == ClassCode.BACKGROUND
        valid = outside & (bits == 0)
        around, number = _around(counts, valid)
        self._keep(around)
        self._read += (_read_variance(counts, around, valid) - self._read) / self._frames
        answer = classes.copy()
        if self._frames < self._options.warm_up:
            return answer
        if (self._frames - self._options.warm_up) % self._options.every == 0:
            self._find_floor(number)
        # Of the same pixels: each has its own dark level.
        learned, _ = _around(self._mean, valid & (self._samples >= ENOUGH))
        level = np.where(np.isfinite(learned), learned, self._floor)
        scatter, empty = self._decide(around, number, level)
        ring = (classes == ClassCode.RING) | (classes == ClassCode.CORE)
        apart = _distance(ring) > self._options.margin
        answer[outside & scatter & apart] = ClassCode.SCATTER
        answer[outside & empty & apart] = ClassCode.EMPTY
        self._learn(counts, valid & empty & apart)
        return answer

    def _keep(self, around: FloatArray) -> None:
        """Keep every stride-th frame; when there are too many, every other one of them."""
        if self._frames % self._stride == 0:
            self._kept.append(around)
            if len(self._kept) > KEPT:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._frames += 1

    def _find_floor(self, number: FloatArray) -> None:
        """Find the level that a pixel keeps coming back to; NaN where there is none.

        Where the sample always scatters, the counts never come to rest on a floor: their low
        quantiles lie farther apart than noise puts them.
        """
        kept = np.stack(self._kept)
        missing = np.isnan(kept).sum(axis=0)
        order = np.sort(kept, axis=0)  # NaN comes last
        low, high = (_at(order, q, len(kept) - missing) for q in FLOOR)
        noise = np.sqrt(self._noise(low) / np.maximum(number, 1))
        options = self._options
        room = np.maximum(options.signal, options.relative * low)
        rests = high - low < 1.5 * BETWEEN * noise + 0.5 * room
        floor = np.where(rests, low + BELOW * noise, np.nan)
        self._floor = np.where(missing > len(kept) // 2, np.nan, floor).astype(np.float32)

    def _noise(self, level: FloatArray) -> FloatArray:
        """Variance of one pixel: its counts, and read noise [counts^2]."""
        return np.maximum(level, 0) + np.float32(max(self._read, 0.05))

    def _decide(
        self, around: FloatArray, number: FloatArray, level: FloatArray
    ) -> tuple[BoolArray, BoolArray]:
        options = self._options
        error = np.sqrt(self._noise(level) / np.maximum(number, 1))
        excess = around - level
        limit = np.maximum(options.signal, options.relative * np.maximum(level, 0))
        with np.errstate(invalid="ignore"):  # NaN: nothing can be told
            scatter = excess > options.scatter * error
            empty = ~scatter & (excess + options.empty * error < limit)
        return scatter, empty

    def _learn(self, counts: FloatArray, empty: BoolArray) -> None:
        """Welford's running mean and variance."""
        self._samples[empty] += 1
        value = counts[empty].astype(np.float64)
        away = value - self._mean[empty]
        self._mean[empty] += away / self._samples[empty]
        self._squares[empty] += away * (value - self._mean[empty])


def _around(counts: NDArray[np.floating], valid: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Mean of the valid pixels around each, itself left out, and their number; NaN below 8."""
    area = WINDOW * WINDOW
    values = np.where(valid, counts, np.float32(0)).astype(np.float64)
    weight = valid.astype(np.float64)
    total = ndimage.uniform_filter(values, WINDOW, mode="constant") * area - values
    number = np.rint(ndimage.uniform_filter(weight, WINDOW, mode="constant") * area - weight)
    mean = np.where(number >= 8, total / np.maximum(number, 1), np.nan)
    return mean.astype(np.float32), number.astype(np.float32)


def _read_variance(counts: FloatArray, around: FloatArray, valid: BoolArray) -> float:
    """Variance of the darkest quarter of the pixels beyond that of their counts [counts^2]."""
    known = valid & np.isfinite(around)
    if not known.any():
        return 0.0
    dark = known & (around <= np.quantile(around[known], 0.25))
    away = counts[dark] - around[dark]
    return float(np.square(away).mean() - np.maximum(counts[dark].mean(), 0))


def _at(order: FloatArray, quantile: float, number: NDArray[np.intp]) -> FloatArray:
    """Quantile of sorted ``(k, h, w)`` of which the first `number` count."""
    index = np.floor(quantile * np.maximum(number - 1, 0)).astype(np.intp)
    return np.take_along_axis(order, index[None], axis=0)[0]


def _distance(ring: BoolArray) -> NDArray[np.float64]:
    """Distance to the ring [px]; infinite without one."""
    if not ring.any():
        return np.full(ring.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~ring), np.float64)
