"""Far-field ptychography with a validity of its own for every frame, on top of cdtools.

cdtools takes one mask for all frames; here its model is told which frames it simulates, so that the
loss can count each pixel of each frame by its own weight.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from math import pi
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import DatasetError
from ..science.frame import FloatArray
from ..science.products import RunProducts
from .growing import GrowingScan
from .model import CDTOOLS, FarField
from .probe import first_probe
from .schedule import Schedule

ENOUGH = 12
"""Frames from which on a reconstruction begins."""
MARGIN = 2
"""Pixels that an object is larger than the windows need."""
FAINT = 1e-6
"""Background where nothing is known of it [counts]."""


@dataclass(frozen=True, slots=True)
class ReconOptions:
    """How an object is reconstructed.

    Parameters
    ----------
    schedule : Schedule
        Which pixels count, and when.
    defocus : float
        Distance of the sample from the focus, for the first probe [m].
    object_pixel : float
        [m]; 0: wavelength * distance / (frame * pixel).
    rate : float
        Learning rate of Adam at the beginning, relative to an object of 1.
    settle : float
        After so many passes over the scan the rate is half of it, then a third, ...: what one rate
        keeps in motion comes to rest. 0: it stays.
    batch : int
        Frames of a step.
    seed : int
        Of the order of the frames.
    """

    schedule: Schedule = field(default_factory=Schedule)
    defocus: float = 0.0
    object_pixel: float = 0.0
    rate: float = 0.015
    settle: float = 12.0
    batch: int = 10
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One epoch.

    Parameters
    ----------
    epoch : int
        Counted from 0.
    frames : int
        That it saw.
    loss : float
        Weighted squared error of the amplitudes, relative to the weighted counts.
    """

    epoch: int
    frames: int
    loss: float


class Engine:
    """Object, probe and background of a scan that may still grow.

    Parameters
    ----------
    scan : GrowingScan
        With frames that are ready; it is looked at again before each epoch.
    options : ReconOptions, optional

    Raises
    ------
    DatasetError
        If there is no frame yet, or nobody knows the size of an object pixel.
    """

    def __init__(self, scan: GrowingScan, options: ReconOptions | None = None) -> None:
        self.options = options or ReconOptions()
        self._scan = scan
        self.pixel = object_pixel(scan, self.options.object_pixel)  # (y, x) [m]
        if not len(scan.ready):
            raise DatasetError("no frame has its mask and its position yet")
        self._rng = np.random.default_rng(self.options.seed)
        self._epoch = 0
        self._passes = 0.0
        self._learned: RunProducts | None = scan.products
        first, size = self._extent()
        self._first = first
        probe = first_probe(scan, self._bend())[None]  # (1, H, W)
        level = first_background(scan)
        self._known = level > FAINT  # pixels whose background was known once
        self._model = FarField(
            torch.from_numpy(probe),
            torch.ones(size, dtype=torch.complex64),
            torch.from_numpy(level),
            self._weigh,
        )
        self._adam = CDTOOLS.reconstructors.AdamReconstructor(self._model, None)

    @property
    def object(self) -> NDArray[np.complex64]:
        """``(h, w)`` transmission, row and column along y and x of the positions."""
        return self._model.obj.detach().numpy().copy()

    @property
    def probe(self) -> NDArray[np.complex64]:
        """``(modes, H, W)`` at the sample [sqrt(counts)]."""
        return (self._model.probe * self._model.probe_norm).detach().numpy().copy()

    @property
    def background(self) -> FloatArray:
        """``(H, W)`` counts of a frame that are not of the beam, as fitted."""
        return np.square(self._model.background.detach().numpy())

    @property
    def corner(self) -> tuple[float, float]:
        """Position, y and x [m], of a probe whose middle lies on pixel (H // 2, W // 2) of it."""
        y, x = self._first * self.pixel
        return float(y), float(x)

    def epoch(self) -> Step:
        """Go once through all frames that are ready by now, in random order."""
        self._look()
        ready = self._scan.ready
        index = self._rng.permutation(ready)
        self._model.counted = 0.0
        run = self._adam.optimize(
            1, custom_data_loader=self._batches(index), lr=self._rate(), thread=False
        )
        loss = float(next(run)) / max(self._model.counted, 1e-9)
        self._epoch += 1
        self._passes += len(ready) / self._scan.expected
        return Step(self._epoch - 1, len(ready), loss)

    def _rate(self) -> float:
        settle = self.options.settle
        return self.options.rate / (1 + self._passes / settle if settle else 1)

    def _batches(self, index: NDArray[np.intp]) -> Generator[Any]:
        scan = self._scan
        for begin in range(0, len(index), self.options.batch):
            part = index[begin : begin + self.options.batch]
            corners = scan.positions[part] / self.pixel - self._first
            patterns = np.maximum(scan.frames[part], 0)
            inputs = torch.from_numpy(part), torch.from_numpy(corners.astype(np.float32))
            yield inputs, torch.from_numpy(patterns)

    def _weigh(self, index: torch.Tensor) -> torch.Tensor:
        weights = self.options.schedule.weights(self._scan, index.numpy(), self._epoch)
        return torch.from_numpy(weights)

    def _bend(self) -> float:
        waves = self._scan.experiment.wavelength * self.options.defocus
        return pi * waves / float(np.mean(self._scan.shape * self.pixel)) ** 2

    def _extent(self) -> tuple[NDArray[np.float64], tuple[int, int]]:
        """First position [px] and size of an object that holds the windows of all positions."""
        known = self._scan.positions[np.isfinite(self._scan.positions).all(axis=1)] / self.pixel
        first = np.floor(known.min(axis=0)) - MARGIN
        rows, columns = np.ceil(known.max(axis=0) - first).astype(int) + self._scan.shape + MARGIN
        return first, (int(rows), int(columns))

    def _look(self) -> None:
        """Take notice of what has become known since the epoch before."""
        products = self._scan.products
        if products is not None and products is not self._learned:
            self._learned = products
            self._learn_background()
        first, size = self._extent()
        before = np.rint(self._first - first).astype(int).clip(0)
        old = np.array(self._model.obj.shape)
        after = (np.array(size) - np.rint(self._first - first).astype(int) - old).clip(0)
        if before.any() or after.any():
            self._grow(before, after)

    def _learn_background(self) -> None:
        """Begin anew with the background of pixels of which it was not known before.

        That of the others is being fitted: to set it back with every version of the products is a
        blow that costs a third of the quality at the end of a scan.
        """
        level = first_background(self._scan)
        fresh = (level > FAINT) & ~self._known
        self._known |= fresh
        start = self._model.background.data.numpy()
        self._model.background.data = torch.from_numpy(np.where(fresh, np.sqrt(level), start))

    def _grow(self, before: NDArray[np.intp], after: NDArray[np.intp]) -> None:
        """Make the object larger, and what Adam remembers of it."""
        (top, left), (bottom, right) = before.tolist(), after.tolist()

        def padded(values: torch.Tensor, fill: float) -> torch.Tensor:
            return torch.nn.functional.pad(values, (left, right, top, bottom), value=fill)

        obj = self._model.obj
        obj.data = padded(obj.data, 1.0)
        obj.grad = None
        for name, values in self._adam.optimizer.state.get(obj, {}).items():
            if name != "step":
                self._adam.optimizer.state[obj][name] = padded(values, 0.0)
        self._first = self._first - before


def first_background(scan: GrowingScan) -> FloatArray:
    """Return ``(H, W)`` counts: the background that is known, and next to nothing elsewhere."""
    if scan.products is None:
        return np.full(scan.shape, FAINT, np.float32)
    return np.maximum(scan.products.background, FAINT).astype(np.float32)


def object_pixel(scan: GrowingScan, given: float = 0.0) -> NDArray[np.float64]:
    """Return ``(2,)`` size of an object pixel, y and x [m].

    Raises
    ------
    DatasetError
        If it is not given and cannot be worked out.
    """
    if given > 0:
        return np.array([given, given])
    known = scan.experiment
    side = np.array(scan.shape) * known.pixel_size
    if min(known.wavelength, known.distance, *side) <= 0:
        raise DatasetError(
            "the size of an object pixel needs photon energy, distance and detector pixel, and the "
            f"run knows {known}; give --object-pixel"
        )
    return known.wavelength * known.distance / side


def reconstruct(scan: GrowingScan, options: ReconOptions | None = None) -> Generator[Step]:
    """Reconstruct without an end; the caller stops, and may let the scan grow between two steps.

    Raises
    ------
    DatasetError
        As `Engine`.
    """
    engine = Engine(scan, options)
    while True:
        yield engine.epoch()
