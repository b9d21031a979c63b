"""The picture: masks of some frames, IoU over frames, IoU over stages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ..science.frame import ClassCode, ClassMap
from ..science.metrics import iou
from .charts import METHODS, draw_curve, draw_stages
from .overlay import CLASS_COLORS, EXTRA, MISSED, compared, grey, tinted, window_of


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
    note : str
        Said after the number of the frame.
    """

    index: int
    image: NDArray[Any]
    masks: Mapping[str, ClassMap]
    reference: ClassMap
    note: str = ""


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
        Frames to show.
    ious : mapping
        Ring IoU of each frame, methods first, then baselines.
    stages : sequence of tuple
        Student revision, number of frames, mean IoU by method.
    staged : sequence of int
        Frame indices at which the student learned.
    """
    columns = max(len(panels), 1)
    figure = Figure(figsize=(2.5 * max(columns, 4), 12.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    parts: Any = figure.subfigures(2, 1, height_ratios=[7.9, 4.2])
    top, bottom = parts
    axes = top.subplots(len(METHODS), columns, squeeze=False)
    for column, panel in enumerate(panels):
        for row, method in enumerate(METHODS):
            _draw_panel(axes[row, column], panel, method)
    top.legend(handles=_legend(panels), loc="outside lower center", ncols=7, frameon=False)
    curve, per_stage = bottom.subplots(1, 2, width_ratios=[2.3, 1])
    draw_curve(curve, ious, staged)
    draw_stages(per_stage, stages)
    figure.savefig(path, dpi=110, format="png")


def _draw_panel(axes: Axes, panel: Panel, method: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    found = panel.masks.get(method)
    truth = panel.reference == ClassCode.RING
    window = window_of(truth)
    picture = grey(panel.image[window])
    if found is not None:
        picture = tinted(picture, found[window])
        picture = compared(picture, (found == ClassCode.RING)[window], truth[window])
    axes.imshow(picture, interpolation="nearest")
    frame = f"frame {panel.index}{panel.note}"
    if found is None:
        axes.set_title(f"{frame}: no {method} yet", fontsize=9)
        return
    value = iou(found == ClassCode.RING, truth)
    axes.set_title(f"{frame}: {method}, IoU {value:.3f}", fontsize=9)


def _legend(panels: Sequence[Panel]) -> list[Patch]:
    """Patches of the classes that are shown."""
    shown = {int(code) for p in panels for m in p.masks.values() for code in np.unique(m)}
    named = {
        code.name.lower().replace("_", "-"): Patch(color=color, alpha=opacity)
        for code, (color, opacity) in CLASS_COLORS.items()
        if code in shown
    }
    named["not in the reference"] = Patch(color=EXTRA)
    named["missed"] = Patch(color=MISSED)
    for label, patch in named.items():
        patch.set_label(label)
    return list(named.values())
