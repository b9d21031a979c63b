"""Which way of making masks is best when things change, and when they do not: ring IoU, one table.

    python benchmarks/masks.py [DATA] [--seeds 3] [--rows NAME ...]

DATA is a folder with ``siemens_star/siemens_star_first258.h5`` and the two gold-ball files; rows
without their file are left out, and say so. Scored are the frames after the stages (21 on), or
after the change (46 on), against the truth, the reference labels of the gold balls, and the
half-maximum of the mean of all frames of the Siemens star, which favours means.

Columns beside teacher, student and fused: constant mask of frame 0; constant mask of the mean of
frames 0, 5, 10, 15, 20; that mean moved with the beam; half-maximum of a running mean that follows
the beam (weight 0.2). The last column is what fused lacks to the best of the others.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is imported

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ptychoseg_stream.assemble import single_threaded
from ptychoseg_stream.errors import FrameError
from ptychoseg_stream.evaluation.baselines import half_maximum, mean_image
from ptychoseg_stream.evaluation.evaluate import with_seed
from ptychoseg_stream.evaluation.material import read_material, references
from ptychoseg_stream.evaluation.offline import label_all
from ptychoseg_stream.evaluation.rules import tracked_mean, view_of
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.science.classes import clean_ring
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.frame import ClassCode, Mask
from ptychoseg_stream.science.metrics import iou
from ptychoseg_stream.science.prepare import prepare
from ptychoseg_stream.science.register import ShiftFinder, translate
from ptychoseg_stream.sim.gold_balls import GoldBalls, simulate
from ptychoseg_stream.sim.optics import Pupil

FRAMES, CHANGE = 90, 45
STAGED = (0, 5, 10, 15, 20)
METHODS = ("teacher", "student", "fused")
CHEAP = ("const 0", "mean 5", "mean 5 tracked", "running mean")
WEIGHT = 0.2
STAR = "siemens_star/siemens_star_first258.h5"
GOLD = "gold_balls/goldballs_resim_f000-040.cxi"
GOLD_LABELS = "gold_balls/reference_labels_from_pupil.npz"

Rings = NDArray[np.bool_]  # (n, h, w)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Frames, true rings, and the first frame that is scored."""

    name: str
    frames: NDArray[Any]
    truth: Rings
    first: int = STAGED[-1] + 1


def simulated() -> Iterator[tuple[str, Callable[[], Row]]]:
    """Rows of the simulation."""
    clean = GoldBalls(n_frames=FRAMES)
    big = Pupil(r_in=12.5, r_out=26.0)
    still = {
        "stationary": clean,
        "strong sample": replace(clean, strong=True),
        "strong, 1e5 photons": replace(clean, strong=True, dose=1e5),
        "big ring, strong, 1e4": replace(clean, strong=True, dose=1e4, pupil=big),
        "strong, drift 5 px": replace(clean, strong=True, drift=(4.0, -3.0)),
    }
    for name, options in still.items():
        yield name, lambda name=name, options=options: _row(name, options, options, 21)
    pupil = clean.pupil
    changed = {
        "drift 6 px": replace(clean, drift=(4.8, -3.6)),
        "ring +10 %": replace(clean, ring_scale=1.1),
        "stop .48 to .63": replace(clean, pupil=replace(pupil, r_in=1.3 * pupil.r_in)),
        "dose x0.01": replace(clean, dose_factor=0.01),
    }
    for name, after in changed.items():
        before = after if "drift" in name else clean
        yield name, lambda name=name, b=before, a=after: _row(name, b, a, CHANGE + 1)


def _row(name: str, before: GoldBalls, after: GoldBalls, first: int) -> Row:
    a = simulate(before)
    b = a if after is before else simulate(after)
    frames = np.concatenate([a.frames[:CHANGE], b.frames[CHANGE:]])
    truth = np.concatenate([a.truth[:CHANGE], b.truth[CHANGE:]])
    return Row(name, frames, truth == ClassCode.RING, first)


def measured(folder: Path, console: Console) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Rows of the data that are there."""
    for name, file, labels in (("Siemens star", STAR, ""), ("gold balls", GOLD, GOLD_LABELS)):
        if not (folder / file).is_file():
            console.print(f"left out: {name}, there is no {folder / file}")
            continue
        yield name, lambda n=name, f=file, b=labels: _read(n, folder / f, b and folder / b)


def _read(name: str, file: Path, labels: str | Path) -> Row:
    material = read_material(f"{file}:/frames" if file.suffix == ".h5" else str(file))
    _, maps = references(material, str(labels), NodeOptions())
    return Row(name, material.frames, np.stack(maps) == ClassCode.RING)


def cheap_rings(row: Row) -> dict[str, list[NDArray[np.bool_]]]:
    """Rings of the cheap ways, by column."""
    options = PrepareOptions()
    n = len(row.frames)
    first = half_maximum(row.frames[0], options) == ClassCode.RING
    mean = half_maximum(mean_image(row.frames, STAGED), options) == ClassCode.RING
    rule = tracked_mean([view_of(prepare(row.frames[i], options)) for i in STAGED], options)
    found = [_view(frame, options) for frame in row.frames]
    nothing = np.zeros_like(first)
    return {
        "const 0": [first] * n,
        "mean 5": [mean] * n,
        "mean 5 tracked": [nothing if v is None else rule(v) for v in found],
        "running mean": list(_running(found, nothing)),
    }


def _view(frame: NDArray[Any], options: PrepareOptions) -> Any:
    try:
        return view_of(prepare(frame, options))
    except FrameError:
        return None


def _running(views: Sequence[Any], nothing: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    finder, mean = None, nothing.astype(np.float32)
    for view in views:
        if view is None:
            yield nothing
            continue
        finder = finder or ShiftFinder(view.relative)
        dy, dx = (float(v) for v in finder.find(view.prepared)[0])
        here = translate(view.counts / view.prepared.plateau[0], (-dy, -dx))
        mean = here if not mean.any() else (1 - WEIGHT) * mean + WEIGHT * here
        yield clean_ring(translate(mean, (dy, dx)) > 0.5)


def score(row: Row, seeds: int, options: NodeOptions) -> dict[str, float]:
    """Mean ring IoU of each column over the scored frames (and seeds)."""
    cheap = cheap_rings(row)
    figures = {name: _mean(rings, row) for name, rings in cheap.items()}
    runs = [
        label_all(row.frames, with_seed(replace(options, also=METHODS), seed), MemoryStore())
        for seed in range(seeds)
    ]
    for method in METHODS:
        figures[method] = float(np.mean([_mean(_rings(run, method), row) for run in runs]))
    return figures


def _rings(masks: Sequence[Mask], method: str) -> list[NDArray[np.bool_]]:
    return [mask.alternatives[method] == ClassCode.RING for mask in masks]


def _mean(rings: Sequence[NDArray[np.bool_]], row: Row) -> float:
    scored = range(row.first, len(rings))
    return float(np.mean([iou(rings[i], row.truth[i]) for i in scored]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", nargs="*", default=[])
    arguments = parser.parse_args()
    single_threaded()
    console = Console(width=130)
    columns = (*METHODS, *CHEAP)
    table = Table("row", *columns, "fused - best other", title="ring IoU", title_justify="left")
    total: dict[str, list[float]] = {name: [] for name in columns}
    for name, make in (*simulated(), *measured(arguments.data, console)):
        if arguments.rows and name not in arguments.rows:
            continue
        figures = score(make(), arguments.seeds, NodeOptions())
        for column in columns:
            total[column].append(figures[column])
        table.add_row(name, *_cells(figures, columns))
        console.print(name, *(f"{c} {figures[c]:.3f}" for c in columns), highlight=False)
    means = {column: float(np.mean(values)) for column, values in total.items()}
    table.add_section()
    table.add_row("mean", *_cells(means, columns))
    console.print(table)


def _cells(figures: dict[str, float], columns: Sequence[str]) -> list[str]:
    best = max(figures[c] for c in columns if c != "fused")
    return [*(f"{figures[c]:.3f}" for c in columns), f"{figures['fused'] - best:+.3f}"]


if __name__ == "__main__":
    main()
