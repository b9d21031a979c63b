"""Milliseconds per frame and stage, next to the naive way, in the same run on one core.

    python benchmarks/frames.py [FRAMES]        FRAMES: sim (default), FILE:/dataset, or 512: drawn
                                                frames of 512x512, to see that cost is bounded

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
from pathlib import Path
from typing import Any

import numpy as np
from naive import Stopwatch, take_naively
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ptychoseg_stream.assemble import single_threaded
from ptychoseg_stream.evaluation.material import read_material
from ptychoseg_stream.evaluation.offline import label_all
from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.ports import Account, RunInfo
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.node.trainer import InlineTrainer
from ptychoseg_stream.science.background import Background
from ptychoseg_stream.science.classes import class_map, clean_ring
from ptychoseg_stream.science.consensus import RunningMean
from ptychoseg_stream.science.drift import Monitors
from ptychoseg_stream.science.features import extract
from ptychoseg_stream.science.frame import Frame, Mask
from ptychoseg_stream.science.fusion import Fusion
from ptychoseg_stream.science.inputs import inputs_of
from ptychoseg_stream.science.learning import Student
from ptychoseg_stream.science.prepare import Prepared, prepare_counts
from ptychoseg_stream.science.readings import read
from ptychoseg_stream.science.som import Centroids, Labels
from ptychoseg_stream.science.validity import Inspected, PixelHistory, inspect
from ptychoseg_stream.science.verdict import judge
from ptychoseg_stream.science.window import Window
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.tiled import TiledSink

N_FRAMES = 48
BATCH = 8

NAIVE_FRAMES = 6  # enough: each takes most of a second
STAGES = (
    "pixels",
    "plateau",
    "register",
    "features",
    "label",
    "verdict",
    "monitors",
    "student",
    "fuse",
    "compose",
    "write",
)


def main() -> None:
    """Print the table."""
    single_threaded()
    target = sys.argv[1] if len(sys.argv) > 1 else "sim"
    name, frames = (target, _drawn(512)) if target == "512" else _read(target)
    options = NodeOptions(stages=(0,))
    store = MemoryStore()
    masks = label_all(frames[:9], options, store)
    centroids = store.find_centroids(frames.shape[1:], options)
    student = next(iter(store.students.values())).student
    assert centroids is not None
    ours, naive = Stopwatch(), Stopwatch()
    walk = _Walk(ours, frames[0], centroids, student, options)
    for begin, frame in enumerate(frames):
        prepared = walk.step(frame)
        if begin % BATCH == 0 and begin // BATCH < NAIVE_FRAMES and target != "512":
            take_naively(naive, frame, prepared, centroids, student, walk.reference.prepared)
    _whole_node(ours, frames, options)
    written = _write_ms(masks[-1], ours)
    _print(name, frames.shape, ours, naive, written)


def _read(target: str) -> tuple[str, NDArray[Any]]:
    material = read_material(target, N_FRAMES)
    return material.name, material.frames


def _drawn(size: int) -> NDArray[Any]:
    """Large frames: a ring of 24 to 60 px in a dark frame."""
    y, x = np.indices((size, size))
    radius = np.hypot(y - 0.4 * size, x - 0.6 * size)
    beam = np.where((radius >= 24) & (radius < 60), 200.0, 0.3)
    rng = np.random.default_rng(0)
    return np.stack([rng.poisson(beam) for _ in range(N_FRAMES)]).astype(np.uint16)


class _Walk:
    """The walk of a frame as in `ptychoseg_stream.node.run`, stage by stage."""

    def __init__(
        self,
        watch: Stopwatch,
        first: NDArray[Any],
        centroids: Centroids,
        student: Student,
        options: NodeOptions,
    ) -> None:
        self._watch = watch
        self._options = options
        self._centroids = centroids
        self._student = student
        shape = (first.shape[0], first.shape[1])
        self._history = PixelHistory(shape)
        self._background = Background(shape)
        pixels = inspect(first, options.prepare)
        self._window = Window.choose(pixels.counts, pixels.unknown, options.prepare)
        prepared = self._prepared(pixels)
        self._mean = RunningMean.empty(prepared.counts.shape[1:]).plus(prepared, (0.0, 0.0))
        self.reference = self._mean.consensus(centroids, options.prepare)
        self._fusion = Fusion(options.fusion)
        self._monitors = Monitors(options.drift)
        self._usual = np.zeros(len(centroids.prototypes))

    def step(self, frame: NDArray[Any]) -> Prepared:
        """Time the stages of one frame."""
        time, reference = self._watch.time, self.reference
        pixels = time("pixels", 1, lambda: self._pixels(frame))
        prepared: Prepared = time("plateau", 1, lambda: self._prepared(pixels))
        found = time("register", 1, lambda: reference.finder.find(prepared)[0])
        shift = float(found[0]), float(found[1])
        place = reference.geometry.moved(shift)
        features = time("features", 1, lambda: extract(prepared, [place]))
        labels: Labels = time("label", 1, lambda: self._centroids.label_features(features))
        profile = time("verdict", 1, lambda: judge(labels.rings[0], place))
        time("monitors", 1, lambda: self._watched(prepared, shift, labels, profile))
        p = time("student", 1, lambda: self._student.predict(inputs_of(prepared, [place]))[0])
        ring = time("fuse", 1, lambda: self._fused(p, prepared, shift))
        small = class_map(ring, place, None, reference.stop_sectors)

        def compose() -> Any:
            full = small if self._window.is_whole else self._window.put_classes(small)
            return self._background.split(pixels.counts, full, pixels.bits)

        time("compose", 1, compose)
        return prepared

    def _pixels(self, frame: NDArray[Any]) -> Inspected:
        pixels = inspect(frame, self._options.prepare, self._history)
        self._history.update(pixels)
        return pixels

    def _prepared(self, pixels: Inspected) -> Prepared:
        counts, unknown = self._window.take(pixels.counts, pixels.unknown)
        bits = np.where(unknown, np.uint16(1), np.uint16(0))
        spikes = np.array([pixels.spikes])
        return prepare_counts(
            counts[None], bits[None], spikes, self._options.prepare, unknown[None]
        )

    def _watched(self, prepared: Prepared, shift: Any, labels: Labels, profile: Any) -> None:
        expected = self.reference.ring_at(shift)
        readings = read(prepared, shift, labels, profile, expected, self._usual)
        self._monitors.update(0, readings)
        self._usual += labels.hits[0]

    def _fused(self, p: NDArray[Any], prepared: Prepared, shift: Any) -> NDArray[Any]:
        self._mean = self._mean.plus(prepared, shift)
        image = self._mean.image(self._options.prepare) / np.float32(self.reference.unit)
        return clean_ring(self._fusion.update(p, image, self._mean.n, shift) > 0.5)


def _whole_node(watch: Stopwatch, frames: NDArray[Any], options: NodeOptions) -> None:
    """Time the node itself, on frames after its only stage."""
    node = Node(options, lambda: InlineTrainer(options.student), MemoryStore())
    node.open("run")
    for i, image in enumerate(frames):
        frame = Frame("run", i, image, image.shape)
        if i == 0:
            node.process([frame])
        else:
            watch.time("node", 1, lambda frame=frame: node.process([frame]))
    node.close("run")


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
    for stage in STAGES:
        a, b = ours.median(stage), naive.median(stage)
        cells = ("-", "-") if np.isnan(b) else (f"{b:.2f}", f"{b / a:.1f}")
        table.add_row(stage, f"{a:.3f}", *cells)
    teacher = ("pixels", "plateau", "register", "features", "label")
    a = sum(ours.median(s) for s in teacher)
    b = sum(naive.median(s) for s in teacher[1:])
    cells = ("-", "-") if np.isnan(b) else (f"{b:.1f}", f"{b / a:.1f}")
    table.add_row("teacher path", f"{a:.2f}", *cells, style="bold")
    total = sum(ours.median(s) for s in STAGES)
    table.add_row("all stages", f"{total:.2f}", "", "", style="bold")
    table.add_row("the node, frame by frame", f"{ours.median('node'):.2f}", "", "", style="bold")
    console = Console(width=100)
    console.print(table)
    console.print(
        f"write: what the frame path pays; the writer's thread stores a mask in {written:.2f} ms "
        f"(batches of 16, a Tiled server in its own process)"
    )


if __name__ == "__main__":
    main()
