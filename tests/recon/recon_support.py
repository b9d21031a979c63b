"""A small far-field scan with defects: 64x64 frames, everything known."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ptychoseg_stream.node.ports import Products
from ptychoseg_stream.recon.growing import GrowingScan, estimated_mean
from ptychoseg_stream.recon.summary import FAINT, mean_and_variance, radii_of
from ptychoseg_stream.science.experiment import Experiment
from ptychoseg_stream.science.frame import ClassCode, ValidBit
from ptychoseg_stream.science.products import SUMS, RunProducts
from ptychoseg_stream.sinks.feed.items import (
    FrameItem,
    PositionsItem,
    ProductsItem,
    Revision,
    Start,
    Stop,
)

SIDE = 64
PIXEL = 10e-9
CENTRE = (33.0, 31.0)
EXPERIMENT = Experiment(1000.0, 0.1, (0.1 * 1.23984198433e-9 / (SIDE * PIXEL),) * 2)


def start_of(points: int = 0) -> Start:
    return Start(0, "raw", "derived", (SIDE, SIDE), points, EXPERIMENT)


def frame_of(index: int, image: Any, classes: Any, bits: Any, status: str = "ok") -> FrameItem:
    about = {"seq": index + 1, "run": "raw", "time": 0.0, "seq_num": index + 1, "attempt": 0}
    arrays = {"image": image, "classes": classes, "valid_bits": bits}
    return FrameItem(**about, **arrays, index=index, revision=0, status=status, verdict="annulus")


def revision_of(first: int, last: int, bits: NDArray[np.uint16]) -> Revision:
    return Revision(0, "raw", first, last, bits, 1)


def stop_of() -> Stop:
    return Stop(0, "raw", "success", "")


@dataclass(frozen=True, eq=False)
class Small:
    """Frames ``(n, 64, 64)`` with what is true about them."""

    frames: NDArray[np.float32]
    bits: NDArray[np.uint16]
    classes: NDArray[np.uint8]
    positions: NDArray[np.float64]
    sample: NDArray[np.complex64]
    corner: NDArray[np.float64]

    def item(self, index: int) -> FrameItem:
        return frame_of(index, self.frames[index], self.classes[index], self.bits[index])

    def scan(self) -> GrowingScan:
        """All of it, with the right masks."""
        scan = GrowingScan((SIDE, SIDE), len(self.frames), EXPERIMENT)
        for index in range(len(self.frames)):
            scan.add(self.item(index))
        scan.place(0, self.positions)
        scan.learn(summarise(scan))
        return scan

    def products(self) -> Products:
        known = self.scan().products
        assert known is not None
        return Products(known, self.positions, EXPERIMENT)

    def items(self) -> list:
        """As a feed brings them."""
        items: list = [start_of(len(self.frames))]
        for index in range(len(self.frames)):
            items += [
                self.item(index),
                PositionsItem(0, "raw", index, self.positions[index : index + 1]),
            ]
        return [*items, ProductsItem(0, "raw", self.products()), stop_of()]


def summarise(scan: GrowingScan, bad: NDArray[np.uint16] | None = None) -> RunProducts:
    """Return what the frames that are ready say together."""
    index = scan.ready
    bits = np.zeros(scan.shape, np.uint16) if bad is None else bad
    use = scan.usable(index) & (bits == 0)
    empty = use & (scan.classes[index] == ClassCode.EMPTY)
    background, variance = mean_and_variance(scan.frames[index], empty)
    ring = (scan.classes[index] == ClassCode.RING).mean(axis=0) > 0.5
    pupil = np.asarray(ring, bool)
    return RunProducts(
        frames=len(index),
        used=len(index),
        pixel_mask=bits,
        background=np.maximum(np.nan_to_num(background), FAINT),
        background_variance=variance,
        background_samples=empty.sum(axis=0).astype(np.int32),
        pupil=pupil.astype(np.uint8),
        mean=estimated_mean(scan),
        **radii_of(pupil),
        sums=np.full((len(index), len(SUMS)), np.nan),
    )


def make_small(seed: int = 0, grid: int = 8) -> Small:
    """Simulate it: asymmetric blobs, a ring of 4.5 to 9 px, hot pixels, a wire, cosmic rays."""
    rng = np.random.default_rng(seed)
    steps = np.indices((grid, grid)).reshape(2, -1).T * 3.0
    places = steps + rng.uniform(-1, 1, steps.shape)
    places -= places.min(axis=0)
    size = SIDE + int(places.max()) + 2
    blobs = ndimage.gaussian_filter(rng.standard_normal((size, size)), 1.2)
    blobs = np.clip(blobs / blobs.std(), 0, 2.5)
    sample = np.exp((-0.15 - 0.5j) * blobs).astype(np.complex64)
    y, x = np.indices((SIDE, SIDE))
    radius = np.hypot(y - CENTRE[0], x - CENTRE[1])
    ring = (radius < 9) & (radius > 4.5)
    wave = np.sqrt(ndimage.gaussian_filter(ring.astype(float), 0.6))
    wave = wave * np.exp(-1j * 0.02 * radius**2)
    frames = np.stack([_frame(wave, sample, place) for place in places])
    frames = rng.poisson(3e5 * frames / frames[0].sum()) + 1.0
    classes = np.full(frames.shape, ClassCode.EMPTY, np.uint8)
    classes[:, radius < 14] = ClassCode.SCATTER
    classes[:, radius < 9] = ClassCode.CORE
    classes[:, ring] = ClassCode.RING
    bits = _spoil(frames, rng)
    positions = (places + 20) * PIXEL
    return Small(
        frames.astype(np.float32), bits, classes, positions, sample, np.array([20.0, 20.0]) * PIXEL
    )


def _frame(wave: NDArray, sample: NDArray, place: NDArray) -> NDArray:
    whole = np.floor(place).astype(int)
    part = place - whole
    q = np.fft.fftshift(np.fft.fftfreq(SIDE))
    moved = wave * np.exp(-2j * np.pi * (part[0] * q[:, None] + part[1] * q))
    probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(moved)))
    window = sample[whole[0] : whole[0] + SIDE, whole[1] : whole[1] + SIDE]
    return np.abs(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe * window)))) ** 2


def _spoil(frames: NDArray, rng: np.random.Generator) -> NDArray[np.uint16]:
    bits = np.zeros(frames.shape, np.uint16)
    wire = np.s_[:, 0:31, 30:33]
    frames[wire] = 0
    bits[wire] |= np.uint16(ValidBit.STOP)
    rows, columns = rng.integers(0, SIDE, (2, 12))
    frames[:, rows, columns] = 30000
    bits[:, rows, columns] |= np.uint16(ValidBit.HOT)
    for index in range(len(frames)):
        row, column = rng.integers(0, SIDE - 6, 2)
        frames[index, row, column : column + 6] += 200
        bits[index, row, column : column + 6] |= np.uint16(ValidBit.COSMIC)
    return bits
