"""Scores as tables on a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ..science.frame import METHODS
from .evaluate import Evaluation
from .score import Score


def print_scores(console: Console, scores: Sequence[Score], title: str, seeds: int) -> None:
    """Print the table of scores; methods are set apart from baselines."""
    table = Table(title=title, title_justify="left")
    table.add_column("mask")
    spreads = ("each seed",) if seeds > 1 else ()
    for column in ("ring IoU", "worst", *spreads, "core IoU", "boundary F1", "consistency"):
        table.add_column(column, justify="right")
    for row in scores:
        spread = "" if len(row.by_seed) < 2 else " ".join(f"{v:.3f}" for v in row.by_seed)
        bold = row.name.split(" ")[0] in METHODS
        table.add_row(
            row.name,
            f"{row.ring:.3f}",
            f"{row.ring_min:.3f}",
            *((spread,) if seeds > 1 else ()),
            f"{row.core:.3f}",
            f"{row.boundary:.3f}",
            f"{row.consistency:.3f}",
            style="bold" if bold else "",
            end_section=row.name.startswith("fused"),
        )
    console.print(table)
    if seeds > 1:
        console.print(f"mean over {seeds} seeds; baselines do not depend on the seed", style="dim")


def print_stages(console: Console, outcome: Evaluation) -> None:
    """Print mean ring IoU over the frames that each student labelled (first seed)."""
    parts = [
        f"stage {revision} {means['student']:.3f} ({n})" if revision >= 0 else f"none yet ({n})"
        for revision, n, means in outcome.stages
    ]
    console.print("student by stage (frames): " + ", ".join(parts))
