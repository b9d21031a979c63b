"""Milliseconds per frame and stage, next to the naive way, in the same run on one core.

    python benchmarks/frames.py [FRAMES]        FRAMES: sim (default), or FILE:/dataset

The naive way: the nine features one by one with scipy, MiniSom's ``winner()`` for every pixel, the
shift with `skimage.registration.phase_cross_correlation`, and the network as PyTorch lays it out,
in training graph mode, frame by frame. Read ratios, not times: both ways alternate, frame by frame.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is imported

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from minisom import MiniSom
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from ptychoseg_stream.assemble import single_threaded
from ptychoseg_stream.evaluation.material import read_material
from ptychoseg_stream.evaluation.offline import label_all
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.ports import Account, RunInfo
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.science.classes import class_map, clean_ring
from ptychoseg_stream.science.features import extract
from ptychoseg_stream.science.frame import Frame, Mask
from ptychoseg_stream.science.fusion import Fusion
from ptychoseg_stream.science.geometry import Geometry, find_beam
from ptychoseg_stream.science.inputs import inputs_of
from ptychoseg_stream.science.learning import Student
from ptychoseg_stream.science.prepare import Prepared, join, prepare
from ptychoseg_stream.science.register import ShiftFinder, log_image
from ptychoseg_stream.science.som import Centroids
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.tiled import TiledSink

N_FRAMES = 48
BATCH = 8
UPSAMPLED: dict[str, Any] = {"normalization": None, "upsample_factor": 20}
NAIVE_FRAMES = 6  # enough: each takes most of a second


class Stopwatch:
    """Collects milliseconds per frame by stage."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {}

    def time(self, stage: str, frames: int, work: Callable[[], Any]) -> Any:
        """Run and book `work` on so many frames."""
        begin = time.perf_counter()
        result = work()
        self.samples.setdefault(stage, []).append(1e3 * (time.perf_counter() - begin) / frames)
        return result

    def median(self, stage: str) -> float:
        """Median over the micro-batches [ms per frame]."""
        return float(np.median(self.samples[stage])) if stage in self.samples else float("nan")


def main() -> None:
    """Print the table."""
    single_threaded()
    material = read_material(sys.argv[1] if len(sys.argv) > 1 else "sim", N_FRAMES)
    frames = material.frames
    options = NodeOptions(stages=(0,))
    store = MemoryStore()
    masks = label_all(frames[:9], options, store)
    centroids = store.find_centroids(frames.shape[1:], options)
    student = next(iter(store.students.values()))
    assert centroids is not None
    ours, naive = Stopwatch(), Stopwatch()
    reference = prepare(frames[0], options.prepare)
    som = _minisom(centroids)
    for begin in range(0, len(frames) - BATCH + 1, BATCH):
        block = frames[begin : begin + BATCH]
        prepared = _ours(ours, block, centroids, student, reference)
        if begin // BATCH < NAIVE_FRAMES:
            _naive(naive, block[0], prepared[:1], centroids, som, student, reference)
    written = _write_ms(masks[-1], ours)
    _print(material.name, frames.shape, ours, naive, written)


def _ours(
    watch: Stopwatch,
    block: NDArray[Any],
    centroids: Centroids,
    student: Student,
    reference: Prepared,
) -> Prepared:
    """Time each stage of the walk on one micro-batch."""
    n = len(block)
    geometry = find_beam(reference.relative[0])
    finder = ShiftFinder(reference.relative[0])
    fusion = Fusion()
    prepared: Prepared = watch.time("prepare", n, lambda: join([prepare(x) for x in block]))
    shifts = watch.time("register", n, lambda: finder.find(prepared))
    places = [geometry.moved((float(dy), float(dx))) for dy, dx in shifts]
    features = watch.time("features", n, lambda: extract(prepared, places))
    watch.time("label", n, lambda: _label(centroids, features, places))
    probability = watch.time("student", n, lambda: student.predict(inputs_of(prepared, places)))
    watch.time(
        "fuse",
        n,
        lambda: [
            class_map(clean_ring(fusion.update(p, (0.3, 0.2)) > 0.5), place)
            for p, place in zip(probability, places, strict=True)
        ],
    )
    return prepared


def _label(centroids: Centroids, features: NDArray[Any], places: Sequence[Geometry]) -> list[Any]:
    rings = centroids.rings_of(features)
    return [class_map(ring, place) for ring, place in zip(rings, places, strict=True)]


def _naive(
    watch: Stopwatch,
    image: NDArray[Any],
    prepared: Prepared,
    centroids: Centroids,
    som: MiniSom,
    student: Student,
    reference: Prepared,
) -> None:
    """Time the same stages on one frame, written as one would at first."""
    geometry = find_beam(reference.relative[0])
    watch.time("prepare", 1, lambda: _naive_prepare(image))
    watch.time(
        "register",
        1,
        lambda: phase_cross_correlation(
            log_image(reference.relative[0]),
            log_image(prepared.relative[0]),
            **UPSAMPLED,
        ),
    )
    features = watch.time("features", 1, lambda: _naive_features(prepared, geometry))

    def label() -> list[Any]:
        flat = features.reshape(9, -1).T
        points = ((flat - centroids.offset) * centroids.scale) @ centroids.components.T
        return [som.winner(point) for point in points]

    watch.time("label", 1, label)
    net = student.net
    x = torch.from_numpy(inputs_of(prepared, [geometry])).contiguous()
    watch.time("student", 1, lambda: torch.sigmoid(net(x)).detach().numpy())


def _naive_prepare(image: NDArray[Any]) -> NDArray[Any]:
    """Despike with rank filters over the whole frame and solve the plateau with median filters."""
    counts = image.astype(float)
    third = ndimage.rank_filter(counts, -3, size=3)
    spike = counts > 6 * third + 3 + 5 * np.sqrt(third + 1)
    counts = np.where(spike, ndimage.median_filter(counts, 3), counts)
    plateau = counts.max() / 2
    for _ in range(8):
        median = ndimage.median_filter(counts, 3)
        plateau = float(np.median(median[median > 0.5 * plateau]))
    return counts / plateau


def _naive_features(prepared: Prepared, geometry: Geometry) -> NDArray[Any]:
    b = np.clip(prepared.relative[0], 0, 1.5).astype(float)
    y, x = np.mgrid[: b.shape[0], : b.shape[1]]
    mean5, mean_square = ndimage.uniform_filter(b, 5), ndimage.uniform_filter(b**2, 5)
    return np.stack(
        [
            b,
            np.log1p(b / 0.01) / np.log(101),
            np.sqrt(np.maximum(mean_square - mean5**2, 0)),
            ndimage.uniform_filter(b, 3),
            ndimage.laplace(b),
            np.hypot(ndimage.sobel(b, 0), ndimage.sobel(b, 1)) / 8,
            np.minimum(np.hypot(y - geometry.y, x - geometry.x) / geometry.radius, 2),
            np.arctan2(y - geometry.y, x - geometry.x) / np.pi,
            b - ndimage.gaussian_filter(b, 2),
        ]
    )


def _minisom(centroids: Centroids) -> MiniSom:
    side = centroids.options.map_size
    som = MiniSom(side, side, centroids.prototypes.shape[1])
    som._weights = centroids.prototypes.reshape(side, side, -1)
    return som


def _write_ms(mask: Mask, watch: Stopwatch) -> float:
    """Milliseconds per mask that the writer's thread needs; the frame path's share is booked."""
    n = 320
    with tempfile.TemporaryDirectory() as folder, EmbeddedTiled(Path(folder)) as server:
        sink = TiledSink(TiledOptions(uri=server.uri), api_key=server.api_key)
        sink.open(RunInfo("run", {"uid": "run", "time": 0.0}, {"software": "benchmark"}))
        begin = time.perf_counter()
        for first in range(0, n, BATCH):
            block = [_numbered(mask, i) for i in range(first, first + BATCH)]
            watch.time("write", BATCH, lambda block=block: sink.write("run", block))
        sink.drain(60.0)
        spent = time.perf_counter() - begin
        sink.close("run", Account(received=n, written=n))
        sink.shutdown()
    return 1e3 * spent / n


def _numbered(mask: Mask, index: int) -> Mask:
    from dataclasses import replace

    return replace(mask, frame=Frame("run", index, None, mask.frame.shape))


def _print(
    name: str, shape: tuple[int, ...], ours: Stopwatch, naive: Stopwatch, written: float
) -> None:
    table = Table(title=f"{name} {shape}: ms per frame, one core", title_justify="left")
    for column in ("stage", "ours", "naive", "naive / ours"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    stages = ("prepare", "register", "features", "label", "student", "fuse", "write")
    for stage in stages:
        a, b = ours.median(stage), naive.median(stage)
        cells = ("-", "-") if np.isnan(b) else (f"{b:.2f}", f"{b / a:.1f}")
        table.add_row(stage, f"{a:.3f}", *cells)
    teacher = ("prepare", "register", "features", "label")
    a = sum(ours.median(s) for s in teacher)
    b = sum(naive.median(s) for s in teacher)
    table.add_row("teacher path", f"{a:.2f}", f"{b:.1f}", f"{b / a:.1f}", style="bold")
    total = sum(ours.median(s) for s in stages)
    table.add_row("teacher + student + fused + write", f"{total:.2f}", "", "", style="bold")
    console = Console(width=100)
    console.print(table)
    console.print(
        f"write: what the frame path pays; the writer's thread stores a mask in {written:.2f} ms "
        f"(batches of 16, a Tiled server in its own process)"
    )


if __name__ == "__main__":
    main()
