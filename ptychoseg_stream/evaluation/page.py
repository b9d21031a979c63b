"""The report as one HTML page that needs nothing else: table, charts, worst frames, provenance."""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..science.frame import ClassCode, ClassMap
from .baselines import Stack
from .charts import draw_curve, draw_stages
from .evaluate import METHODS, Evaluation
from .figures import About, plain
from .overlay import (
    CLASS_COLORS,
    EXTRA,
    MISSED,
    as_png,
    compared,
    enlarged,
    grey,
    tinted,
    window_of,
)
from .score import Score

WORST = 6
COLUMNS: dict[str, tuple[str, str]] = {
    "ring": ("ring IoU", "mean over frames and seeds"),
    "ring_min": ("worst", "lowest ring IoU of any frame and seed"),
    "core": ("core IoU", "mean over the frames whose reference has a core"),
    "boundary": ("boundary F1", "of the ring's border, 1 px tolerance"),
    "consistency": ("consistency", "mean ring IoU with the frame before"),
}


def write_page(path: Path, about: About, outcome: Evaluation, frames: Stack) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
    about : About
    outcome : Evaluation
    frames : sequence of ndarray
        The frames that were evaluated.
    """
    worst = outcome.worst(WORST)
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    curves = _chart((8.2, 4.2), lambda a: draw_curve(a, outcome.curves(), outcome.staged, worst))
    stages = _chart((3.7, 4.2), lambda a: draw_stages(a, outcome.stages))
    parts = [
        _head(about, outcome),
        "<h2>Scores</h2>",
        _table(outcome),
        "<h2>Over the run</h2>",
        f'<div class="charts">{_image(curves, "ring IoU over frames")}'
        f"{_image(stages, 'ring IoU over stages')}</div>",
        f"<h2>The {len(worst)} worst frames</h2>",
        _legend(),
        *(_gallery(i, frames, outcome) for i in worst),
        "<h2>How it was made</h2>",
        _provenance(about, outcome),
    ]
    title = escape(f"{about.frames}: ring masks scored")
    path.write_text(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head>\n"
        f"<body><main>{chr(10).join(parts)}</main></body></html>\n",
        encoding="utf-8",
    )


def _head(about: About, outcome: Evaluation) -> str:
    n, h, w = about.shape
    by_name = {score.name.split(" (")[0]: score for score in outcome.scores}
    cards = "".join(_card(name, by_name[name], "method") for name in METHODS if name in by_name)
    cards += _card(outcome.best_baseline, by_name[outcome.best_baseline], "cheap")
    seeds = "1 seed" if len(about.seeds) == 1 else f"{len(about.seeds)} seeds"
    return (
        f"<header><h1>{escape(about.frames)}</h1><p>{len(outcome.scored)} of {n} frames scored "
        f"({h}×{w} pixels, {escape(about.dtype)}), {seeds}. "
        f"Reference: {escape(about.reference)}.</p></header>"
        f'<div class="cards">{cards}</div>'
        '<p class="note">Ring IoU, mean over frames and seeds; beside teacher, student and fused '
        "mask the best of the cheap ways.</p>"
    )


def _card(name: str, score: Score, kind: str) -> str:
    return (
        f'<div class="card {kind}"><span class="value">{_number(score.ring)}</span>'
        f'<span class="name">{escape(name)}</span></div>'
    )


def _table(outcome: Evaluation) -> str:
    best = {c: np.nanmax([getattr(s, c) for s in outcome.scores] + [-1]) for c in COLUMNS}
    titles = "".join(f'<th title="{tip}">{name}</th>' for name, tip in COLUMNS.values())
    rows = "".join(_row(score, best, score.name in outcome.baselines) for score in outcome.scores)
    return (
        f'<div class="scroll"><table><thead><tr><th>mask</th>{titles}<th>each seed</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
        '<p class="note">Bold: best of the column. Frames that were learned from are not scored. '
        "Worst: lowest ring IoU of any frame and seed. Boundary F1: 1 px tolerance. Consistency: "
        "mean ring IoU with the frame before. Baselines do not depend on the seed.</p>"
    )


def _row(score: Score, best: dict[str, float], cheap: bool) -> str:
    cells = ""
    for column in COLUMNS:
        value = float(getattr(score, column))
        text = _number(value)
        text = f"<b>{text}</b>" if text == _number(best[column]) and text != "–" else text
        # The bar behind the first figure shows at a glance what three digits hide.
        bar = f' class="bar" style="--v:{max(value, 0):.1%}"' if column == "ring" else ""
        cells += f"<td{bar if np.isfinite(value) else ''}>{text}</td>"
    seeds = " ".join(f"{v:.3f}" for v in score.by_seed) if len(score.by_seed) > 1 else ""
    kind = "cheap" if cheap else "method"
    return f'<tr class="{kind}"><th>{escape(score.name)}</th>{cells}<td>{seeds}</td></tr>'


def _gallery(index: int, frames: Stack, outcome: Evaluation) -> str:
    """One row of pictures: frame, reference, methods, best baseline."""
    reference, mask = outcome.reference[index], outcome.masks[index]
    shown: dict[str, ClassMap | None] = {"frame": None, "reference": reference}
    shown |= {m: mask.alternatives[m] for m in METHODS}
    shown[outcome.best_baseline] = outcome.baselines[outcome.best_baseline][index]
    truth = reference == ClassCode.RING
    window = window_of(truth | (mask.classes == ClassCode.RING))
    cells = ""
    for name, classes in shown.items():
        picture = grey(frames[index][window])
        if classes is not None:
            picture = tinted(picture, classes[window])
            picture = compared(picture, classes[window] == ClassCode.RING, truth[window])
        large = enlarged(picture)
        value = outcome.ious[name][index] if name in outcome.ious else np.nan
        figure = f" <b>{_number(float(value))}</b>" if name in outcome.ious else ""
        label = f"{name} of frame {index}"
        cells += (
            f"<figure>{_image(as_png(large), label)}"
            f"<figcaption>{escape(name)}{figure}</figcaption></figure>"
        )
    served = f"served: {mask.source}, student {mask.student_revision}, plateau {mask.plateau:.4g}"
    return (
        f'<section class="frame"><h3>frame {index} <span>{escape(served)} counts</span></h3>'
        f'<div class="pictures">{cells}</div></section>'
    )


def _legend() -> str:
    named = {
        f"{code.name.lower().replace('_', '-')} ({code.value})": color
        for code, (color, _) in CLASS_COLORS.items()
    }
    named |= {
        "background (0)": "#777777",
        "ring, but not in the reference": EXTRA,
        "ring of the reference, missed": MISSED,
    }
    swatches = (f'<li><i style="background:{c}"></i>{name}</li>' for name, c in named.items())
    return f'<ul class="legend">{"".join(swatches)}</ul>'


def _provenance(about: About, outcome: Evaluation) -> str:
    refused = "".join(
        f"<li>frame {i}: {escape(outcome.masks[i].reason)}</li>" for i in outcome.refused
    )
    options = json.dumps(plain(asdict(about.options)), indent=1)
    rows: dict[str, str] = {
        "command": f"<code>{escape(about.command)}</code>",
        "version": f"ptychoseg_stream {escape(about.version)}",
        "frames": f"{escape(about.frames)}, {about.shape}, {escape(about.dtype)}",
        "reference": escape(about.reference),
        "learned from": f"frames {', '.join(map(str, outcome.staged)) or 'none'}",
        "without a mask": f"<ul>{refused}</ul>" if refused else "none",
    }
    cells = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows.items())
    return (
        f"<dl>{cells}</dl><details><summary>options of the node</summary>"
        f"<pre>{escape(options)}</pre></details>"
    )


def _chart(size: tuple[float, float], draw: Callable[[Axes], Any]) -> bytes:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure.subplots())
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, format="png")
    return buffer.getvalue()


def _image(content: bytes, label: str) -> str:
    data = base64.b64encode(content).decode()
    return f'<img alt="{escape(label)}" src="data:image/png;base64,{data}">'


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "–"
