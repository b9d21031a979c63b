"""What the commands fit, evaluate and profiles do."""

import json
import shlex
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import __version__
from .assemble import single_threaded
from .errors import DatasetError, FrameError, StoreError
from .evaluation.evaluate import Evaluation, Request, evaluate
from .evaluation.figures import About, figures
from .evaluation.material import SIMULATIONS, Material, read_material, references
from .evaluation.page import write_page
from .evaluation.report import Panel, draw_report
from .evaluation.tables import print_scores, print_stages
from .node.store import load_centroids, save_centroids
from .node.vitals import Progress as Learning
from .profile import Profile, class_names, list_profiles, load_profile
from .science.frame import Mask, legend
from .science.level import find_level
from .science.prepare import prepare
from .science.som import Centroids
from .science.verdict import judge
from .sources.arrays.stack import open_stack

console = Console(width=None if sys.stdout.isatty() else 120)


def fit_centroids(target: str, output: Path, index: int, profile_name: str) -> None:
    """Fit on one frame, save, and say what was found."""
    single_threaded()
    options = load_profile(profile_name).node
    require_writable(output)
    frame = _frame(target, index)
    try:
        prepared = prepare(frame, options.prepare)
    except FrameError as error:
        raise DatasetError(f"{target}, frame {index}: {error}") from error
    geometry, prepared = find_level(prepared, options.teacher.edge_level)
    centroids = Centroids.fit_prepared(prepared, geometry, options.teacher)
    ring = centroids.ring(prepared, [geometry])[0]
    save_centroids(centroids, output)
    verdict = judge(ring, geometry, prepared.unknown[0]).verdict
    console.print(
        f"[bold]{output}[/]: {int(centroids.is_ring.sum())} of {len(centroids.is_ring)} prototypes "
        f"are ring; PCA keeps {centroids.explained_variance.sum():.2%}; elbow of the prototypes at "
        f"k = {centroids.k_elbow} (a diagnostic, no class depends on it)\n"
        f"frame {index}: {verdict}, {int(ring.sum())} ring pixels, centre "
        f"({geometry.y:.2f}, {geometry.x:.2f}) px, plateau {prepared.plateau[0]:.4g} counts\n"
        f"hash {centroids.hash[:16]}"
    )


def _frame(target: str, index: int) -> NDArray[Any]:
    if target in SIMULATIONS:
        return read_material(target, index + 1).frames[index]
    with open_stack(target) as stack:
        if index >= len(stack):
            raise DatasetError(f"{target} has {len(stack)} frames, there is no frame {index}")
        return stack[index]


def require_writable(path: Path) -> None:
    """Make the folder of a file to be written.

    Raises
    ------
    StoreError
        If that cannot be done, or there is a folder of that name: before the work, not after it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}; choose another place") from error
    if path.is_dir():
        raise StoreError(f"{path} is a folder; name a file")


@dataclass(frozen=True, slots=True)
class EvaluateArguments:
    """As the options of `ptychoseg evaluate`."""

    frames: str
    labels: str = ""
    seeds: int = 3
    limit: int = 0
    profile: str = "beamline"
    centroids: Path | None = None
    dose: float = 1.0
    quick: bool = False
    report: Path | None = None
    json: Path | None = None
    masks: Path | None = None

    def command(self) -> str:
        """Return the command line that means this, without what is the default."""
        words = ["ptychoseg", "evaluate", self.frames]
        for each in fields(self)[1:]:
            value = getattr(self, each.name)
            if value != each.default:
                words += [f"--{each.name}", *(() if value is True else (str(value),))]
        return shlex.join(words)


def evaluate_frames(arguments: EvaluateArguments) -> None:
    """Evaluate, print the table, write what was asked for."""
    single_threaded()
    profile = load_profile(arguments.profile)
    _require_places(arguments)
    centroids = load_centroids(arguments.centroids) if arguments.centroids else None
    with console.status("reading frames and reference"):
        material = read_material(arguments.frames, arguments.limit)
        name, reference = references(material, arguments.labels, profile.node)
    seeds = tuple(range(arguments.seeds))
    request = Request(profile.node, seeds, centroids, arguments.dose, arguments.quick)
    passes = arguments.seeds + (centroids is not None) + 2 * (arguments.dose != 1)
    with _progress(passes * len(material.frames)) as (on_frame, on_step):
        outcome = evaluate(material.frames, reference, request, on_frame, on_step)
    title = f"{material.name}: {len(outcome.scored)} of {len(material.frames)} frames scored"
    print_scores(console, outcome.scores, f"{title}\nreference: {name}", arguments.seeds)
    print_stages(console, outcome)
    about = About(
        material.name,
        material.frames.shape,
        str(material.frames.dtype),
        name,
        seeds,
        profile.node,
        __version__,
        arguments.command(),
    )
    if arguments.report:
        _write_report(arguments.report, title, about, material, outcome)
        console.print(f"report: [bold]{arguments.report}[/]")
    if arguments.json:
        text = json.dumps(figures(about, outcome), indent=1, allow_nan=False)
        arguments.json.write_text(text, encoding="utf-8")
    if arguments.masks:
        save_masks(arguments.masks, outcome.masks)


def _require_places(arguments: EvaluateArguments) -> None:
    for path in filter(None, (arguments.report, arguments.json, arguments.masks)):
        require_writable(path)
    if arguments.report and arguments.report.suffix.lower() not in (".html", ".png"):
        raise StoreError(
            f"--report {arguments.report}: must end in .html (a page) or .png (a picture)"
        )


@contextmanager
def _progress(total: int) -> Generator[tuple[Any, Any]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("labelling", total=total)

        def on_frame(_: Mask) -> None:
            progress.update(task, advance=1, description="labelling")

        def on_step(learning: Learning) -> None:
            progress.update(
                task,
                description=f"stage {learning.stage}: step {learning.step}/{learning.steps}, "
                f"loss {learning.loss:.3f}",
            )

        yield on_frame, on_step


def save_masks(path: Path, masks: Sequence[Mask]) -> None:
    """Write the served class maps to an HDF5 file: ``mask`` ``(n, h, w)`` uint8 with its legend."""
    with h5py.File(path, "w") as file:
        stack = np.stack([mask.classes for mask in masks])
        file.create_dataset("mask", data=stack, compression="gzip", chunks=(1, *stack.shape[1:]))
        file["mask"].attrs["class_codes"] = json.dumps(legend())


def _write_report(
    path: Path, title: str, about: About, material: Material, outcome: Evaluation
) -> None:
    """Write the page, or draw the frames that were learned from and the worst two."""
    if path.suffix.lower() == ".html":
        write_page(path, about, outcome, material.frames)
        return
    shown = dict.fromkeys(outcome.staged[:5] or [0], "")
    shown |= dict.fromkeys(outcome.worst(2), " (worst)")
    panels = [
        Panel(i, material.frames[i], outcome.masks[i].alternatives, outcome.reference[i], note)
        for i, note in shown.items()
    ]
    draw_report(path, title, panels, outcome.curves(), outcome.stages, outcome.staged)


def show_profiles(name: str, defaults: bool) -> None:
    """List the profiles, show one, or print every key."""
    if defaults:
        plain = json.loads(json.dumps(asdict(Profile())))
        console.print(yaml.safe_dump(plain, sort_keys=False), markup=False, highlight=False)
        return
    if name:
        load_profile(name)
        path = list_profiles().get(name, Path(name))
        console.print(path.read_text(), markup=False, highlight=False)
        return
    table = Table(title="profiles", title_justify="left")
    for column in ("name", "what for", "Tiled", "trainer", "file"):
        table.add_column(column, overflow="fold")
    for known, path in list_profiles().items():
        profile = load_profile(path)
        table.add_row(known, profile.description, profile.tiled.uri, profile.trainer, str(path))
    console.print(table)
    codes = ", ".join(f"{code} {text}" for code, text in class_names().items())
    console.print(f"masks hold: {codes}")
    console.print("`ptychoseg profiles NAME` shows one, `--defaults` every key")
