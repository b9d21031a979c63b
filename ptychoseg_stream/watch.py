"""How the node is doing, on a terminal: a live table, or a line a second where there is none."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from .node.vitals import Vitals


@contextmanager
def narrated(
    console: Console, vitals: Callable[[], Vitals], total: int = 0, period: float = 1.0
) -> Generator[None]:
    """Show progress: a live table on a terminal, lines elsewhere.

    Parameters
    ----------
    console : Console
    vitals : callable
        Says how things stand.
    total : int
        Frames that the run will have; 0: nobody knows.
    period : float
        Between two lines [s].
    """
    if console.is_terminal:
        with Live(get_renderable=lambda: _vitals_table(vitals(), total), console=console):
            yield
        return
    done = threading.Event()
    arguments = (console, vitals, total, period, done)
    thread = threading.Thread(target=_print_lines, args=arguments, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _print_lines(
    console: Console,
    vitals: Callable[[], Vitals],
    total: int,
    period: float,
    done: threading.Event,
) -> None:
    last = ""
    while True:
        ended = done.wait(period)
        now = vitals()
        line = _line(now, total)
        if line != last and now.run:
            console.print(line, highlight=False)
        last = line
        if ended:
            return


def _line(v: Vitals, total: int) -> str:
    p = v.progress
    stage = "starting" if p.stage < 0 else f"stage {p.stage} step {p.step}/{p.steps}"
    if v.index < 0 and p.training:
        stage = f"frames wait for {stage}"
    loss = "" if p.stage < 0 else f" loss {p.loss:.3f}"
    return (
        f"frame {v.index + 1:4d}/{total or v.received}  mask {v.source:8s} IoU to teacher "
        f"{_number(v.iou_to_teacher)}  waiting {v.backlog:3d}  lag {_seconds(v.latency_ms)}  "
        f"stored {v.stored:4d}  {stage}{loss}"
        + (f"  ALARM {v.alarm}" if v.alarm else "")
        + (f"  FAULT {v.fault}" if v.fault else "")
    )


def _vitals_table(v: Vitals, total: int) -> Table:
    table = Table(box=None, show_header=False)
    of = total or v.received
    rows = {
        "frame": f"{v.index + 1} of {of}  (waiting {v.backlog}, stored {v.stored})",
        "mask": f"{v.source}, {v.verdict or 'no verdict yet'}, IoU to teacher "
        f"{_number(v.iou_to_teacher)}",
        "lag": f"{_seconds(v.latency_ms)} from Event to mask",
        "student": "none yet" if v.student_revision < 0 else f"stage {v.student_revision} serves",
        "learning": v.progress.line(),
    }
    if v.alarm:
        rows["alarm"] = f"{v.alarm}" + (f" ({v.alarms} in this run)" if v.alarms > 1 else "")
    if v.fault:
        rows["fault"] = v.fault
    for key, value in rows.items():
        table.add_row(f"[bold]{key}[/]", value)
    return table


def _number(value: float) -> str:
    return "  -  " if np.isnan(value) else f"{value:.3f}"


def _seconds(milliseconds: float) -> str:
    return "  -  " if np.isnan(milliseconds) else f"{milliseconds / 1e3:5.2f} s"
