"""Is the ring probability honest? Reliability diagrams, expected calibration error, Brier score.

    python benchmarks/calibration.py [DATA]      DATA: folder of gold_balls and siemens_star

Prints a table and draws docs/images/reliability.png. Sets: `sim:drift` against its truth; with
DATA, too, the gold balls against their labels and the Siemens star against the half-maximum of the
mean of all its frames, which is not the truth: what disagrees there is in part the reference.
Frames that were learned from do not count; of each frame, the pixels within 4 px of the border of
the true ring do.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is imported

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ptychoseg_stream.assemble import single_threaded
from ptychoseg_stream.evaluation.baselines import Stack
from ptychoseg_stream.evaluation.calibration import Reliability, reliability, ring_probability
from ptychoseg_stream.evaluation.material import read_material, references
from ptychoseg_stream.evaluation.offline import label_all
from ptychoseg_stream.evaluation.score import held_out, staged_frames
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.science.frame import ClassCode, FloatArray, Mask

Probabilities: TypeAlias = Callable[[Stack, NodeOptions], Iterator[tuple[int, FloatArray]]]
"""Of a stack: index and ring probability ``(h, w)`` of each held-out frame."""

STYLES = (("#009e73", "o-"), ("#d55e00", "s--"), ("#0072b2", "^:"))
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "reliability.png"


def main() -> None:
    """Print the table, draw the picture."""
    single_threaded()
    found = {
        name: measure(target, labels, limit, published)
        for name, (target, labels, limit) in sets(sys.argv[1:]).items()
    }
    show(found)
    draw(found, PICTURE)


def sets(arguments: Sequence[str]) -> dict[str, tuple[str, str, int]]:
    """Name, frames, labels and how many frames of each set."""
    known = {"simulation (truth)": ("sim:drift", "", 150)}
    if arguments:
        data = Path(arguments[0])
        gold = data / "gold_balls"
        known["gold balls (labels)"] = (
            str(gold / "goldballs_resim_f000-040.cxi"),
            str(gold / "reference_labels_from_pupil.npz"),
            0,
        )
        star = data / "siemens_star" / "siemens_star_first258.h5"
        known["Siemens star (half-maximum of mean)"] = (str(star), "", 0)
    return known


def measure(
    target: str, labels: str, limit: int, probabilities: Probabilities, reach: int | None = 4
) -> Reliability:
    """Reliability of one set."""
    options = NodeOptions(confidence=True)
    material = read_material(target, limit)
    _, reference = references(material, labels, options)
    pairs = (
        (p, reference[i] == ClassCode.RING) for i, p in probabilities(material.frames, options)
    )
    return reliability(pairs, reach=reach)


def published(frames: Stack, options: NodeOptions) -> Iterator[tuple[int, FloatArray]]:
    """Held-out frames with the probability that the node publishes as their confidence."""
    masks = label_all(frames, options, MemoryStore())
    for i in _counted(masks, options):
        yield i, ring_probability(masks[i])


def _counted(masks: Sequence[Mask], options: NodeOptions) -> list[int]:
    staged = staged_frames(masks, options.stages)
    return [i for i in held_out(len(masks), staged) if masks[i].status == "ok"]


def show(found: Mapping[str, Reliability]) -> None:
    """Print expected calibration error, Brier score and the bins of each set."""
    table = Table(title="ring probability near the true border", title_justify="left")
    for column in ("set", "pixels", "ECE", "Brier", "observed in each tenth of probability"):
        table.add_column(column, justify="left" if column == "set" else "right")
    for name, r in found.items():
        bins = " ".join("  - " if np.isnan(v) else f"{v:.2f}" for v in r.observed)
        table.add_row(name, f"{r.count.sum()}", f"{r.error:.3f}", f"{r.brier:.3f}", bins)
    Console(width=130).print(table)


def draw(found: Mapping[str, Reliability], path: Path) -> None:
    """Draw observed over predicted for each set, and below how many pixels that rests on."""
    figure = Figure(figsize=(7.2, 6.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    top, bottom = axes
    top.plot([0, 1], [0, 1], color="#888888", lw=1, label="honest")
    for (name, r), (color, style) in zip(found.items(), STYLES, strict=False):
        top.plot(
            r.predicted, r.observed, style, color=color, label=f"{name}: ECE {r.error:.3f}", lw=2
        )
        middles = (np.arange(len(r.count)) + 0.5) / len(r.count)
        bottom.plot(middles, r.count / r.count.sum(), style, color=color)
    top.set_title("ring probability of pixels within 4 px of the true border", fontsize=11)
    top.set_ylabel("fraction that is ring")
    top.legend(frameon=False)
    bottom.set_yscale("log")
    bottom.set_xlabel("predicted probability of ring")
    bottom.set_ylabel("share of pixels")
    for each in (top, bottom):
        each.grid(alpha=0.25)
        each.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    print(path)


if __name__ == "__main__":
    main()
