"""Detection delay, action and false alarms of the drift monitors, for every change we thought of.

    python benchmarks/drift.py                    each change at frame 45 of 90, three seeds
    python benchmarks/drift.py --only "ring +10 %" --seeds 8
    python benchmarks/drift.py --stationary 10000 frames in which nothing changes: false alarms
    python benchmarks/drift.py --stack FILE:/key  the same of frames in a file
    python benchmarks/drift.py --quality          with the node itself: ring IoU before, right after
                                                  the change, and at the end
Simulated gold balls; the monitors see what the teacher sees, no student is trained (but for
--quality). Delay 0: noticed at the first changed frame.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is imported

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from changes import AT, FRAMES, Change, Stack, changes
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ptychoseg_stream.assemble import single_threaded
from ptychoseg_stream.errors import FrameError
from ptychoseg_stream.evaluation.offline import label_all
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.science.consensus import Consensus, RunningMean
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.drift import DriftOptions, Monitors
from ptychoseg_stream.science.features import extract
from ptychoseg_stream.science.frame import ClassCode, ClassMap, Mask
from ptychoseg_stream.science.geometry import find_beam
from ptychoseg_stream.science.level import interior_factor, levelled
from ptychoseg_stream.science.metrics import iou
from ptychoseg_stream.science.prepare import Prepared, prepare
from ptychoseg_stream.science.readings import Readings, read
from ptychoseg_stream.science.records import Alarm
from ptychoseg_stream.science.som import Centroids
from ptychoseg_stream.science.verdict import judge
from ptychoseg_stream.sim import GoldBalls, simulate
from ptychoseg_stream.sources.arrays.stack import open_stack

STAGES = (0, 5, 10, 15, 20)
BLOCK = 1600  # frames of one simulated scan

Labeller = Callable[[Stack], Sequence[Mask]]


class Watch:
    """Preparation, registration, teacher, readings and monitors over frames; no student.

    A "restart" is acted on: reference and monitors begin anew on the next frames.
    """

    def __init__(self, options: DriftOptions | None = None) -> None:
        self._options = PrepareOptions()
        self._monitors = Monitors(options)
        self._centroids: Centroids | None = None
        self._begin_at(0)

    def _begin_at(self, index: int) -> None:
        self._begin, self._staged = index, 0
        self._mean: RunningMean | None = None
        self._reference: Consensus | None = None
        self._usual: NDArray[np.int64] = np.zeros(0, np.int64)

    def alarms(self, frames: Stack) -> list[Alarm]:
        """Walk a stack of frames and return its alarms.

        Raises
        ------
        FrameError
            If a frame cannot be used for another reason than that it has no beam.
        """
        found: list[Alarm] = []
        for index, image in enumerate(frames):
            try:
                prepared = prepare(image, self._options)
            except FrameError as error:
                if error.verdict != "no beam":
                    raise
                found += self._monitors.lost(index, str(error))
                continue
            settled = self._staged == len(STAGES)
            new = self._monitors.update(index, self.readings(index, prepared), settled)
            if any(alarm.action == "restart" for alarm in new):
                self._begin_at(index + 1)
            found += new
        return found

    def readings(self, index: int, prepared: Prepared) -> Readings:
        """Stage the frame where its turn has come, then take its readings."""
        reference, shift = self._registered(index, prepared)
        centroids = self._teacher(prepared)
        geometry = reference.geometry.moved(shift)
        level = levelled(prepared, reference.factor)
        labels = centroids.label_features(extract(level, [geometry]))
        if self._staged < len(STAGES):
            usual = self._usual if len(self._usual) else np.zeros_like(labels.hits[0])
            self._usual = usual + labels.hits[0]
        expected = reference.at(shift) >= reference.level
        profile = judge(labels.rings[0], geometry)
        return read(level, shift, labels, profile, expected, self._usual)

    def _registered(self, index: int, prepared: Prepared) -> tuple[Consensus, tuple[float, float]]:
        if self._reference is None or self._mean is None:
            self._mean = RunningMean.empty(prepared.counts.shape[1:])
        shift = self._shift(prepared)
        due = self._staged < len(STAGES) and index >= self._begin + STAGES[self._staged]
        if due or self._reference is None:
            self._mean = self._mean.plus(prepared, shift)
            self._reference = self._mean.consensus(self._teacher(prepared), self._options)
            self._staged += 1
            shift = self._shift(prepared)
        return self._reference, shift

    def _shift(self, prepared: Prepared) -> tuple[float, float]:
        if self._reference is None:
            return 0.0, 0.0
        dy, dx = self._reference.finder.find(prepared)[0]
        return float(dy), float(dx)

    def _teacher(self, prepared: Prepared) -> Centroids:
        if self._centroids is None:
            geometry = find_beam(prepared.relative[0])
            factor = interior_factor(prepared.relative[0], geometry)
            self._centroids = Centroids.fit_prepared(levelled(prepared, factor), geometry)
        return self._centroids


def print_changes(console: Console, wanted: str, seeds: range) -> None:
    """Print a table: for each change and seed the first alarm, then all that is wrong."""
    table = Table(
        title=f"change at frame {AT} of {FRAMES}, seeds {list(seeds)}", title_justify="left"
    )
    for column in ("change", "delay", "monitor", "action", "more alarms", "false before"):
        table.add_column(column)
    for change in changes():
        if wanted and wanted not in change.name:
            continue
        runs = [Watch().alarms(change.make(seed)[0]) for seed in seeds]
        table.add_row(change.name, *_summary(change, runs))
    console.print(table)


def _summary(change: Change, runs: Sequence[Sequence[Alarm]]) -> tuple[str, ...]:
    delays, monitors, actions, more, false = [], set[str](), set[str](), set[str](), 0
    for alarms in runs:
        false += sum(alarm.index < AT for alarm in alarms)
        after = [alarm for alarm in alarms if alarm.index >= AT]
        right = [a for a in after if not change.wanted or a.action in change.wanted.split("/")]
        delays.append(str(right[0].index - AT) if right else "-")
        monitors |= {a.monitor for a in right[:1]}
        actions |= {a.action for a in right[:1]}
        more |= {f"{a.action} +{a.index - AT} ({a.monitor})" for a in after if a not in right[:1]}
    cells = (", ".join(sorted(names)) for names in (monitors, actions, more))
    return (" ".join(delays), *cells, str(false))


def print_stationary(console: Console, frames: int, strong: bool, first: int) -> int:
    """Walk frames in which nothing changes, in scans of `BLOCK`; return the number of alarms."""
    total = 0
    for seed, begin in enumerate(range(0, frames, BLOCK), first):
        n = min(BLOCK, frames - begin)
        stack = simulate(GoldBalls(seed=seed, strong=strong, n_frames=n)).frames
        total += _report(console, f"seed {seed}{', strong sample' if strong else ''}", stack)
    return total


def _report(console: Console, name: str, stack: Stack) -> int:
    alarms = Watch().alarms(stack)
    console.print(f"{name}: {len(stack)} frames, {len(alarms)} alarms")
    for alarm in alarms:
        console.print(f"  frame {alarm.index}, {alarm.monitor} {alarm.score:+.1f}: {alarm.text}")
    return len(alarms)


def print_quality(console: Console, wanted: str, label: Labeller) -> None:
    """Print the ring IoU of the served masks with the truth around each change."""
    table = Table(title="ring IoU of the served masks", title_justify="left")
    spans = {"before": (35, 45), "after": (45, 55), "recovered": (80, 90)}
    for column in ("change", *(f"{name}: {a}-{b - 1}" for name, (a, b) in spans.items())):
        table.add_column(column)
    for change in changes():
        if wanted and wanted not in change.name:
            continue
        frames, truth = change.make(0)
        scores = [ring_iou(m, t) for m, t in zip(label(frames), truth, strict=True)]
        table.add_row(change.name, *(_mean(scores[a:b]) for a, b in spans.values()))
    console.print(table)


def ring_iou(mask: Mask, truth: ClassMap) -> float:
    """Ring IoU of a mask with the truth ``(h, w)``; NaN for a frame without mask."""
    if mask.status != "ok":
        return float("nan")
    return iou(mask.classes == ClassCode.RING, truth == ClassCode.RING)


def _mean(scores: Sequence[float]) -> str:
    there = [score for score in scores if np.isfinite(score)]
    return f"{np.mean(there):.3f}" if there else "no mask"


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="changes whose name contains this")
    parser.add_argument("--seeds", type=int, default=3, help="of detector and sample")
    parser.add_argument("--first-seed", type=int, default=0, help="0 to 13 set the floors")
    parser.add_argument("--stationary", type=int, default=0, help="frames without a change")
    parser.add_argument("--strong", action="store_true", help="stationary: the strong sample")
    parser.add_argument("--stack", default="", help="FILE:/dataset of stationary frames")
    parser.add_argument("--quality", action="store_true", help="label with the node, too")
    given = parser.parse_args()
    single_threaded()
    first = given.first_seed
    console = Console(width=140)
    if given.stack:
        with open_stack(given.stack) as stack:
            _report(console, stack.name, stack[:])
    elif given.stationary:
        total = print_stationary(console, given.stationary, given.strong, first)
        console.print(f"{given.stationary} stationary frames: {total} alarms")
    elif given.quality:
        options = NodeOptions()
        print_quality(console, given.only, lambda frames: label_all(frames, options, MemoryStore()))
    else:
        print_changes(console, given.only, range(first, first + given.seeds))


if __name__ == "__main__":
    main()
