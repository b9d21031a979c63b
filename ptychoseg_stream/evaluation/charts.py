"""The two charts of a report: IoU over frames, and over the stages of learning."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ..science.frame import METHODS

LINES: dict[str, tuple[str, str, float]] = {
    "teacher": ("#d55e00", ":", 1.5),
    "student": ("#0072b2", "-", 1.3),
    "fused": ("#009e73", "-", 2.4),
}
"""Color, dashes and width: told apart without color, too."""
OTHERS = (("#6b6b6b", "--", 1.1), ("#9a9a9a", "-.", 1.1), ("#000000", (0, (1, 1)), 1.2))


def draw_curve(
    axes: Axes,
    ious: Mapping[str, NDArray[np.float64]],
    staged: Sequence[int],
    worst: Sequence[int] = (),
) -> None:
    """Draw ring IoU over frames, and mark where the student learned and the worst frames.

    Parameters
    ----------
    axes : Axes
    ious : mapping
        Ring IoU of each frame ``(n,)`` by name; NaN where there is no mask.
    staged, worst : sequence of int
        Frames.
    """
    others = iter(OTHERS)
    for name, values in ious.items():
        color, dashes, width = LINES.get(name) or next(others, OTHERS[-1])
        axes.plot(values, color=color, ls=dashes, lw=width, label=name)
    count = max((len(v) for v in ious.values()), default=0)
    low, high = axes.get_ylim()
    methods = [v[np.isfinite(v)] for name, v in ious.items() if name in METHODS]
    if any(len(v) for v in methods):
        # What is far below need not be seen in full: it would press the others together.
        low = max(low, float(np.concatenate(methods).min()) - 0.2)
    inside = [i for i in staged if i < count]
    axes.vlines(inside, low, high, color="#d0d0d0", lw=0.9, zorder=0, label="learned from")
    if worst:
        axes.plot(worst, [low] * len(worst), "k^", ms=6, clip_on=False, label="worst, shown")
    axes.set_ylim(low, high)
    axes.set_xlabel("frame")
    axes.set_ylabel("ring IoU with the reference")
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw_stages(axes: Axes, stages: Sequence[tuple[int, int, Mapping[str, float]]]) -> None:
    """Draw mean ring IoU over the frames that each student labelled.

    Parameters
    ----------
    axes : Axes
    stages : sequence of tuple
        Student revision, number of frames, mean IoU by method.
    """
    at = np.arange(len(stages))
    for method in METHODS:
        color, dashes, width = LINES[method]
        values = [means.get(method, np.nan) for _, _, means in stages]
        axes.plot(at, values, "o", ls=dashes, color=color, lw=width, ms=5, label=method)
    labels = [f"{'none' if r < 0 else r}\n({n})" for r, n, _ in stages]
    axes.set_xticks(at, labels)
    axes.set_xlabel("student of stage\n(frames it labelled: each its own)")
    axes.set_ylabel("mean ring IoU")
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
