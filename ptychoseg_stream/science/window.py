"""Bounded cost for large frames: a box around the beam, binned, chosen once per run.

A frame of up to 256x256 pixels is its own window, bit for bit. Of a larger one a box of four beam
radii is cut out (3.2 if that saves binning), and binned until it has at most 256x256 pixels.

Counts of a bin are *added up*: sums of Poisson counts are Poisson counts, so that plateau,
smoothing and thinning keep their meaning. Means would not have the noise of their counts.

A ring thinner than about six bins loses accuracy: 5 % of the IoU at five.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .counts import PrepareOptions
from .frame import BoolArray, ClassCode, ClassMap, FloatArray
from .geometry import Geometry, find_beam
from .prepare import solve_plateau

LARGEST = 256
"""Rows and columns of a window, at most [px]."""

MIN_REACH, REACH = 1.6, 2.0
"""Half a box, in beam radii: up to one radius is left for drift, and 0.6 if that saves binning."""

SOFTENING = 0.7
"""Standard deviation by which the steps of an edge of bins are smoothed [bins]."""


@dataclass(frozen=True, slots=True)
class Window:
    """A box of a frame and how many of its pixels make one of the window's.

    Parameters
    ----------
    shape : tuple of int
        ``(H, W)`` of the frame [px].
    top, left : int
        First row and column of the box [px].
    rows, columns : int
        ``(h, w)`` of the window; the box has `bin` times as many.
    bin : int
        Pixels along each side of a bin.
    """

    shape: tuple[int, int]
    top: int
    left: int
    rows: int
    columns: int
    bin: int = 1

    def __post_init__(self) -> None:
        """Refuse a box that is not inside the frame."""
        if self.bin < 1 or min(self.rows, self.columns) < 1:
            raise ValueError(f"bin: {self.bin} and a window of {self.rows}x{self.columns} px")
        bottom, right = self.top + self.rows * self.bin, self.left + self.columns * self.bin
        if min(self.top, self.left) < 0 or bottom > self.shape[0] or right > self.shape[1]:
            raise ValueError(
                f"top: rows {self.top}-{bottom}, columns {self.left}-{right} of a "
                f"frame of {self.shape[0]}x{self.shape[1]} px"
            )

    @classmethod
    def whole(cls, shape: tuple[int, int]) -> "Window":
        """Return the window that changes nothing."""
        return cls(shape, 0, 0, *shape)

    @classmethod
    def choose(
        cls, counts: FloatArray, bad: BoolArray, options: PrepareOptions, level: float = 0.5
    ) -> "Window":
        """Choose the window of a run from its first good frame.

        Parameters
        ----------
        counts : ndarray of float32
            ``(H, W)`` despiked.
        bad : ndarray of bool
            ``(H, W)`` pixels without a value.
        options : PrepareOptions
            For the plateau.
        level : float
            Fraction of the plateau that bounds the bright field.

        Returns
        -------
        Window
            Of a frame without beam, the whole of it, binned: preparation will refuse it.
        """
        h, w = counts.shape
        if max(h, w) <= LARGEST:
            return cls.whole((h, w))
        coarse = cls._of_box((h, w), (0, h), (0, w))
        small, _ = coarse.take(counts, bad)
        smooth, plateau = solve_plateau(small, options)
        if plateau < options.min_plateau:
            return coarse
        beam = coarse.to_full(find_beam(smooth / np.float32(plateau), level))
        by = max(1, ceil(2 * MIN_REACH * beam.radius / LARGEST))
        half = max(min(REACH * beam.radius, LARGEST / 2 * by - 1), 32.0)
        return cls._of_box((h, w), _span(beam.y, half, h), _span(beam.x, half, w))

    @classmethod
    def _of_box(cls, shape: tuple[int, int], y: tuple[int, int], x: tuple[int, int]) -> "Window":
        """Bin a box as little as it takes; what does not make a bin is left out at its end."""
        size = max(y[1] - y[0], x[1] - x[0])
        by = max(1, ceil(size / LARGEST))
        return cls(shape, y[0], x[0], (y[1] - y[0]) // by, (x[1] - x[0]) // by, by)

    @property
    def is_whole(self) -> bool:
        """Whether it changes nothing."""
        return self.bin == 1 and (self.rows, self.columns) == self.shape

    @property
    def _box(self) -> tuple[slice, slice]:
        bottom, right = self.top + self.rows * self.bin, self.left + self.columns * self.bin
        return slice(self.top, bottom), slice(self.left, right)

    def take(self, counts: FloatArray, bad: BoolArray) -> tuple[FloatArray, BoolArray]:
        """Cut and bin a frame.

        Parameters
        ----------
        counts : ndarray of float32
            ``(H, W)``.
        bad : ndarray of bool
            ``(H, W)``; these pixels are left out of a bin, and the rest scaled up to a full one.

        Returns
        -------
        counts : ndarray of float32
            ``(h, w)`` sum of each bin; 0 where bad.
        bad : ndarray of bool
            ``(h, w)`` bins of which more than half the pixels are bad.
        """
        if counts.shape != self.shape:
            raise ValueError(f"counts: a frame of {counts.shape}, the window is of {self.shape}")
        if self.bin == 1:
            return (counts, bad) if self.is_whole else (counts[self._box], bad[self._box])
        values, wrong = counts[self._box], bad[self._box]
        if not wrong.any():
            return self._sum(values), np.zeros((self.rows, self.columns), bool)
        full = np.float32(self.bin**2)
        right = full - self._sum(wrong.astype(np.float32))
        total = self._sum(np.where(wrong, np.float32(0), values))
        out = right < full / 2
        return np.where(out, np.float32(0), total * (full / np.maximum(right, 1))), out

    def _sum(self, image: FloatArray) -> FloatArray:
        # Strided sums: several times faster than a reduction over two short axes.
        by = self.bin
        rows = sum((image[i::by] for i in range(1, by)), image[0::by])
        return np.asarray(sum((rows[:, j::by] for j in range(1, by)), rows[:, 0::by]), np.float32)

    def put_classes(self, classes: ClassMap) -> ClassMap:
        """Return a class map ``(h, w)`` of the window at full size, background around it.

        The border between two classes is smoothed over the bins: each class is softened and
        interpolated, the largest wins (the lowest code of equals).
        """
        full = np.full(self.shape, ClassCode.BACKGROUND, np.uint8)
        if self.bin == 1:
            full[self._box] = classes
            return full
        best = np.zeros((self.rows * self.bin, self.columns * self.bin), np.float32)
        view = full[self._box]
        for code in np.unique(classes):
            share = (classes == code).astype(np.float32)
            share = self._enlarged(ndimage.gaussian_filter(share, SOFTENING))
            more = share > best
            view[more] = code
            np.maximum(best, share, out=best)
        return full

    def put(self, image: FloatArray, around: float = 0.0) -> FloatArray:
        """Return an image ``(h, w)`` of the window (a probability) at full size.

        Parameters
        ----------
        image : ndarray of float32
            ``(h, w)``; interpolated linearly between the middles of bins.
        around : float
            Value outside the box.
        """
        full = np.full(self.shape, around, np.float32)
        full[self._box] = image if self.bin == 1 else self._enlarged(np.asarray(image, np.float32))
        return full

    def _enlarged(self, image: FloatArray) -> FloatArray:
        return _stretch(_stretch(image, self.bin, 0), self.bin, 1)

    def to_full(self, geometry: Geometry) -> Geometry:
        """Return a geometry of the window in pixels of the frame."""
        middle = (self.bin - 1) / 2
        return Geometry(
            self.top + geometry.y * self.bin + middle,
            self.left + geometry.x * self.bin + middle,
            geometry.radius * self.bin,
        )

    def to_window(self, geometry: Geometry) -> Geometry:
        """Return a geometry of the frame in pixels of the window."""
        middle = (self.bin - 1) / 2
        return Geometry(
            (geometry.y - self.top - middle) / self.bin,
            (geometry.x - self.left - middle) / self.bin,
            geometry.radius / self.bin,
        )

    def shift_to_full(self, shift: tuple[float, float]) -> tuple[float, float]:
        """Return a shift ``(dy, dx)`` of the window in pixels of the frame."""
        return shift[0] * self.bin, shift[1] * self.bin

    def holds(self, geometry: Geometry) -> bool:
        """Whether a beam, in pixels of the window, lies in it as far as it lies in the frame.

        If not, the run needs another window: the beam has drifted by more than its radius.
        """
        beam = self.to_full(geometry)
        rows, columns = self._box
        return all(
            edge_of_beam >= begin - 0.5 or begin < self.bin
            for edge_of_beam, begin in (
                (beam.y - beam.radius, rows.start),
                (beam.x - beam.radius, columns.start),
            )
        ) and all(
            edge_of_beam <= end - 0.5 or size - end < self.bin
            for edge_of_beam, end, size in (
                (beam.y + beam.radius, rows.stop, self.shape[0]),
                (beam.x + beam.radius, columns.stop, self.shape[1]),
            )
        )


def _span(centre: float, half: float, size: int) -> tuple[int, int]:
    """First and last + 1 pixel of an interval, as far as it lies in the frame; 32 px at least."""
    begin, end = max(0, int(np.floor(centre - half))), min(size, int(np.ceil(centre + half)) + 1)
    if end - begin >= min(32, size):
        return begin, end
    begin = int(np.clip(begin, 0, max(0, size - 32)))
    return begin, min(size, begin + 32)


def _stretch(image: FloatArray, by: int, axis: int) -> FloatArray:
    """Interpolate linearly between the middles of bins, constant beyond the first and last."""
    n = image.shape[axis]
    at = np.clip((np.arange(n * by) + 0.5) / by - 0.5, 0, n - 1)
    low: NDArray[np.intp] = np.minimum(at.astype(np.intp), max(n - 2, 0))
    part = (at - low).astype(np.float32)
    part = part[:, None] if axis == 0 else part[None, :]
    near, far = np.take(image, low, axis), np.take(image, np.minimum(low + 1, n - 1), axis)
    return near + part * (far - near)
