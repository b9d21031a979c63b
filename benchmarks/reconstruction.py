"""What masks are worth to a reconstruction: error and resolution of each way of using them.

    python benchmarks/reconstruction.py [DATA] [--quick] [--pictures FOLDER]

DATA is a folder with ``siemens_star/siemens_star_first258.h5``; without it that part is left out.
--quick takes half of the epochs and leaves out all but the first table of the simulation.

1. *The ways.* No mask; ours, as a consumer of the run has them at its end; oracle; bad pixels set
   to zero but used; ring and core as the valid pixels; all outside of them set to zero. Engine,
   first probe and background are the same for all. On simulated gold balls, and on real frames of
   a Siemens star with injected defects, whose reference is the same frames without.
2. *The classes* (simulation): background known from empty pixels, from nothing, from the time mean;
   the mean frame in the pupil or in a wide disc as first probe; ring and core first; weights.
3. *Live*: frames that come while it iterates, against all of them at once.

NRMSE: 0 perfect, 1 a constant. Resolution: where the Fourier ring correlation with the truth falls
below 0.5 [cycles per pixel]; 0.5 is the most. Exits with 1 if a limit is missed.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is imported

import numpy as np
from numpy.typing import NDArray
from recon_cases import STAR, Case, simulated, star
from recon_masks import POLICIES, RUN, Labelled, frame_of, labelled, scan_of
from rich.console import Console
from rich.table import Table

from ptychoseg_stream.assemble import single_threaded
from ptychoseg_stream.node.ports import Products
from ptychoseg_stream.recon.engine import Engine, ReconOptions
from ptychoseg_stream.recon.growing import GrowingScan
from ptychoseg_stream.recon.live import LiveOptions, live
from ptychoseg_stream.recon.metrics import Scored, score
from ptychoseg_stream.recon.picture import draw_ways
from ptychoseg_stream.recon.schedule import Schedule
from ptychoseg_stream.sinks.feed.items import Item, ProductsItem, Start, Stop

BEST, WORST = 1.10, 0.6
"""Ours must be within this factor of the oracle, and below this part of no mask."""
LIVE = 1.10
"""So much more than offline the error may be when the scan ends."""
SAME = "our masks (as above)"
console = Console(width=110)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A reconstruction that was scored.

    Parameters
    ----------
    scored : Scored
    early : float
        Error after a third of the epochs.
    loss : float
        Of the last epoch.
    """

    scored: Scored
    early: float
    loss: float


def run(case: Case, scan: GrowingScan, options: ReconOptions | None = None) -> Result:
    """Reconstruct and score."""
    engine = Engine(scan, options or case.options)
    early = loss = np.nan
    for epoch in range(case.epochs):
        loss = engine.epoch().loss
        if epoch == case.epochs // 3 - 1:
            early = score(*case.true_part(engine)).nrmse
    return Result(score(*case.true_part(engine)), early, loss)


def ways(case: Case, said: Labelled) -> dict[str, Result]:
    """Reconstruct with each way of using masks."""
    return {name: run(case, make(case, said)) for name, make in POLICIES.items()}


def classes(case: Case, said: Labelled, ours: Result) -> dict[str, Result]:
    """Reconstruct with what else may be made of the classes; validity is ours throughout."""
    plain = scan_of(case, said)
    truth, known = case.background, plain.products
    assert truth is not None
    assert known is not None
    bare = np.full(plain.shape, 1e-6, np.float32)
    outside = ~said.beam.any(axis=0)
    mean = np.where(outside, known.mean, bare)
    disc = _disc(plain)
    first = replace(case.options, schedule=Schedule(ring_first=4))
    weighted = replace(case.options, schedule=Schedule(variance=True))

    def with_background(background: NDArray[np.floating]) -> GrowingScan:
        scan = scan_of(case, said)
        products = replace(known, background=np.maximum(background, 1e-6))
        scan.learn(products)
        return scan

    changed = scan_of(case, said)
    changed.learn(replace(known, pupil=disc, inner=0.0))
    makers: dict[str, Callable[[], Result]] = {
        "no background known": lambda: run(case, with_background(bare)),
        "true background": lambda: run(case, with_background(truth)),
        "time mean as background": lambda: run(case, with_background(mean)),
        "mean in a disc as first probe": lambda: run(case, changed),
        "ring + core, first 4 epochs": lambda: run(case, scan_of(case, said), first),
        "weights I / (I + v)": lambda: run(case, scan_of(case, said), weighted),
    }
    return {SAME: ours} | {name: make() for name, make in makers.items()}


def _disc(scan: GrowingScan) -> NDArray[np.uint8]:
    """A disc of a third of the frame: what one takes who knows nothing of the pupil."""
    y, x = np.indices(scan.shape)
    middle = np.array(scan.shape) / 2
    return (np.hypot(y - middle[0], x - middle[1]) < min(scan.shape) / 6).astype(np.uint8)


class _Paced:
    """A feed that brings so many frames per epoch: pauses are counted in epochs, not in seconds."""

    def __init__(self, case: Case, said: Labelled, pace: float) -> None:
        self._case, self._said, self._pace = case, said, pace
        self._come, self._due = 0, 0.0

    def take(self, *, wait: bool) -> list[Item]:
        """Return the frames of one epoch; the end comes with the last of them."""
        case, said, n = self._case, self._said, len(self._case.frames)
        items: list[Item] = []
        if self._come == 0:
            shape = said.classes.shape[1:]
            items.append(Start(0, RUN, RUN, shape, n, case.experiment, case.positions))
        self._due = min(self._due + self._pace, n)
        come = range(self._come, int(self._due))
        items += [frame_of(case, said, i) for i in come]
        for i in come:
            if i + 1 in said.news:
                known = Products(said.news[i + 1], case.positions[: i + 1], case.experiment)
                items.append(ProductsItem(0, RUN, known))
        self._come = int(self._due)
        if self._come == n:
            items.append(Stop(0, RUN, "success", ""))
        return items


def live_error(case: Case, said: Labelled, console: Console) -> float:
    """Return the error when the scan ends: after the first epoch that saw all frames.

    The scan is as long as the offline run: so many frames are simulated.
    """
    pace = len(case.frames) / (2 * case.epochs)
    for update in live(_Paced(case, said, pace), case.options, LiveOptions(after=1)):
        if update.last:
            error = score(*case.true_part(update.engine)).nrmse
            console.print(f"live: {pace:.1f} frames per epoch, {update.step.epoch + 1} epochs")
            return error
    raise AssertionError("a run that ends has a last update")


def table_of(title: str, results: Mapping[str, Result], against: str) -> Table:
    """Lay results out, side by side."""
    table = Table(title=title, title_justify="left")
    for column in ("", "NRMSE", f"/ {against}", "at a third", "FRC 0.5 [1/px]", "loss"):
        table.add_column(column, justify="right" if column else "left")
    reference = results[against].scored.nrmse
    for name, found in results.items():
        error = found.scored.nrmse
        table.add_row(
            name,
            f"{error:.3f}",
            f"{error / reference:.2f}",
            f"{found.early:.3f}",
            f"{found.scored.resolution:.2f}",
            f"{found.loss:.4f}",
        )
    return table


def misses(name: str, found: Mapping[str, Result]) -> list[str]:
    """Say which limits are missed."""
    error = {key: value.scored.nrmse for key, value in found.items()}
    ours, missed = error["our masks"], []
    if ours > BEST * error["oracle"]:
        missed.append(f"{name}: ours {ours:.3f} is beyond {BEST} of the oracle")
    if ours > WORST * error["no mask"]:
        missed.append(f"{name}: ours {ours:.3f} is beyond {WORST} of no mask")
    harmful = ("bad pixels zeroed", "ring + core as valid", "background zeroed")
    return missed + [f"{name}: {harm} does no harm" for harm in harmful if error[harm] <= ours]


def pictures(folder: Path, name: str, found: Mapping[str, Result]) -> None:
    """Draw the phases."""
    truth = next(iter(found.values())).scored.truth
    images = {"truth": (truth, "")}
    for key, result in found.items():
        images[key] = (result.scored.aligned, f"NRMSE {result.scored.nrmse:.3f}")
    draw_ways(folder / f"reconstruction-{name.split()[-1]}.png", images)


def compare(case: Case, said: Labelled, folder: Path | None) -> tuple[list[str], dict[str, Result]]:
    """Print the table of the ways, draw them, and return what is missed."""
    found = ways(case, said)
    console.print(table_of(f"{case.name}: ways of using masks", found, "oracle"))
    if folder:
        pictures(folder, case.name, found)
    return misses(case.name, found), found


def label(case: Case) -> Labelled:
    """Run the node over the frames."""
    begin = time.monotonic()
    said = labelled(case.frames)
    wrong = case.bits != 0
    bad = said.bits != 0
    console.print(
        f"{case.name}: {len(case.frames)} frames labelled in {time.monotonic() - begin:.0f} s; "
        f"of the bad pixels {(bad & wrong).sum() / wrong.sum():.1%} are found, "
        f"{(bad & ~wrong).sum() / (~wrong).sum():.2%} of the good ones are lost"
    )
    return said


def main() -> None:
    """Print the tables; exit with 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=Path("../shared/data"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    single_threaded()
    case = simulated()
    case = replace(case, epochs=case.epochs // 2) if arguments.quick else case
    said = label(case)
    missed, found = compare(case, said, arguments.pictures)
    if not arguments.quick:
        ours = found["our masks"]
        table = table_of("simulation: the classes", classes(case, said, ours), SAME)
        console.print(table)
        error, offline = live_error(case, said, console), ours.scored.nrmse
        console.print(f"live: NRMSE {error:.3f} when the scan ends, offline {offline:.3f}")
        if error > LIVE * offline:
            missed.append(f"live: {error:.3f} is beyond {LIVE} of offline")
        missed += real(arguments.data, arguments.pictures)
    for line in missed:
        console.print(f"MISSED {line}")
    sys.exit(1 if missed else 0)


def real(data: Path, folder: Path | None) -> list[str]:
    """Compare on the real frames."""
    if not (data / STAR).is_file():
        console.print(f"left out: Siemens star, there is no {data / STAR}")
        return []
    case, clean = star(data)
    said = label(case)
    everything = np.ones_like(said.beam)
    run(clean, scan_of(clean, said, use=everything))  # what the others are measured by
    return compare(case, said, folder)[0]


if __name__ == "__main__":
    main()
