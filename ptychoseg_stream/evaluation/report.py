"""The picture: masks of the staged frames, IoU over frames, IoU over stages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..science.frame import ClassCode, ClassMap

COLORS = {
    "teacher": "#e8853a",
    "student": "#3b7fd4",
    "fused": "#1f9e63",
    "reference": "#ffffff",
}
KEY = "black line: ring of the reference; purple: core; red: beam-stop; other color: ring"
GREYS = ("#555555", "#999999")


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One frame with its masks.

    Parameters
    ----------
    index : int
        Of the frame.
    image : ndarray
        ``(h, w)`` detector units.
    masks : mapping
        Class map by method; a method without a mask for this frame is left out.
    reference : ndarray of uint8
        ``(h, w)`` class codes.
    """

    index: int
    image: NDArray[Any]
    masks: Mapping[str, ClassMap]
    reference: ClassMap


def draw_report(
    path: Path,
    title: str,
    panels: Sequence[Panel],
    ious: Mapping[str, NDArray[np.float64]],
    stages: Sequence[tuple[int, int, Mapping[str, float]]],
    staged: Sequence[int],
) -> None:
    """Draw the report to a PNG.

    Parameters
    ----------
    path : Path
        Of the PNG.
    title : str
    panels : sequence of Panel
        Frames to show, usually the staged ones.
    ious : mapping
        Ring IoU of each frame, methods first, then baselines.
    stages : sequence of tuple
        Student revision, number of frames, mean IoU by method.
    staged : sequence of int
        Frame indices at which the student learned.
    """
    methods = ("teacher", "student", "fused")
    columns = max(len(panels), 1)
    figure = Figure(figsize=(2.5 * max(columns, 4), 12.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{title}\n{KEY}", fontsize=12)
    parts: Any = figure.subfigures(2, 1, height_ratios=[7.6, 4.2])
    top, bottom = parts
    axes = top.subplots(len(methods), columns, squeeze=False)
    for column, panel in enumerate(panels):
        for row, method in enumerate(methods):
            _draw_panel(axes[row, column], panel, method)
    curve, per_stage = bottom.subplots(1, 2, width_ratios=[2.3, 1])
    _draw_curve(curve, ious, staged)
    _draw_stages(per_stage, stages)
    figure.savefig(path, dpi=110, format="png")


def _draw_panel(axes: Axes, panel: Panel, method: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    found = panel.masks.get(method)
    rows, columns = _window(panel.reference)
    image = np.log1p(np.maximum(panel.image.astype(float), 0))[rows, columns]
    axes.imshow(image, cmap="gray", interpolation="nearest")
    truth = (panel.reference == ClassCode.RING)[rows, columns]
    axes.contour(truth, levels=[0.5], colors="black", linewidths=0.9)
    if found is None:
        axes.set_title(f"frame {panel.index}: no {method} yet", fontsize=9)
        return
    overlay = np.zeros((*image.shape, 4))
    shown = found[rows, columns]
    overlay[shown == ClassCode.RING] = _rgba(COLORS[method], 0.45)
    overlay[shown == ClassCode.CORE] = _rgba("#8e5bd0", 0.35)
    overlay[shown == ClassCode.BEAM_STOP] = _rgba("#d02020", 0.6)
    axes.imshow(overlay, interpolation="nearest")
    a, b = found == ClassCode.RING, panel.reference == ClassCode.RING
    value = np.count_nonzero(a & b) / max(1, np.count_nonzero(a | b))
    axes.set_title(f"frame {panel.index}: {method}, IoU {value:.3f}", fontsize=9)


def _window(reference: ClassMap) -> tuple[slice, slice]:
    """Cut to the beam with half its size around: a ring is 20 pixels of 104."""
    y, x = np.nonzero(reference == ClassCode.RING)
    if len(y) == 0:
        return slice(None), slice(None)
    reach = 0.75 * max(np.ptp(y), np.ptp(x)) + 4
    cy, cx = (y.min() + y.max()) / 2, (x.min() + x.max()) / 2
    return (
        slice(max(0, int(cy - reach)), int(cy + reach) + 1),
        slice(max(0, int(cx - reach)), int(cx + reach) + 1),
    )


def _rgba(color: str, alpha: float) -> tuple[float, float, float, float]:
    r, g, b = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return r, g, b, alpha


def _draw_curve(axes: Axes, ious: Mapping[str, NDArray[np.float64]], staged: Sequence[int]) -> None:
    greys = iter(GREYS)
    for name, values in ious.items():
        color = COLORS.get(name) or next(greys, "#bbbbbb")
        thin = name not in COLORS
        axes.plot(values, color=color, lw=1 if thin else 1.6, ls="--" if thin else "-", label=name)
    count = max((len(v) for v in ious.values()), default=0)
    for index in (i for i in staged if i < count):
        axes.axvline(index, color="#cccccc", lw=0.8, zorder=0)
    axes.set_xlabel("frame (grey lines: the student learns here)")
    axes.set_ylabel("ring IoU with the reference")
    axes.legend(fontsize=8, loc="best")
    axes.grid(alpha=0.25)


def _draw_stages(axes: Axes, stages: Sequence[tuple[int, int, Mapping[str, float]]]) -> None:
    at = np.arange(len(stages))
    for method in ("teacher", "student", "fused"):
        values = [means.get(method, np.nan) for _, _, means in stages]
        axes.plot(at, values, "o-", color=COLORS[method], label=method)
    labels = [f"{'none' if r < 0 else r}\n({n})" for r, n, _ in stages]
    axes.set_xticks(at, labels)
    axes.set_xlabel("student of stage\n(frames it labelled: each its own)")
    axes.set_ylabel("mean ring IoU")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="best")
