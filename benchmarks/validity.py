"""Precision and recall of each kind of invalid pixel, per dose; what real frames lose. A minute.

    python benchmarks/validity.py [FRAMES ...] [pedestal=290 gain=30 FRAMES ...]

FRAMES are real ones, FILE or FILE:/dataset; a pedestal and a gain hold for what comes after them.

1. Simulated scans with 25 hot and 15 dead pixels, 1.5 cosmic-ray tracks a frame,
   a beam-stop's arm, a gap, a user's mask and a few saturated pixels. The first
   WARM_UP frames teach the history, the others are scored. A stop is scored where it hides light:
   `HIDDEN` photons over the warm-up. A track counts where it left three standard deviations.
2. Ring IoU of each frame with defects against the same frame without, as the teacher labels them,
   outside the stop and with the ring repaired behind it; the same without a history; and, as the
   floor, of the frame with other noise.
3. Empty and scatter: expected signal of the pixels that were called so, error of the background.
4. Real frames: percentage of pixels flagged, by kind, in the first frames and after the warm-up.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is imported

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ptychoseg_stream.science.background import Background
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.frame import BoolArray, ClassCode, ValidBit
from ptychoseg_stream.science.geometry import find_beam
from ptychoseg_stream.science.metrics import iou
from ptychoseg_stream.science.prepare import prepare_counts
from ptychoseg_stream.science.som import Centroids
from ptychoseg_stream.science.validity import Inspected, PixelHistory, inspect
from ptychoseg_stream.sim import GoldBalls, Scan, simulate
from ptychoseg_stream.sources.arrays.stack import open_stack

DOSES = (1e4, 1e5, 3.75e5, 3e6)
WARM_UP = 40
FRAMES = 80
HIDDEN = 40.0
CLEAN = GoldBalls(n_frames=FRAMES, stray=0.002, keep_signal=True)
DEFECTS: dict[str, Any] = {
    "hot_pixels": 25,
    "dead_pixels": 15,
    "cosmics": 1.5,
    "arm_width": 4.0,
    "arm_angle": 60.0,
    "gap_width": 4,
}
console = Console(width=118)


@dataclass(frozen=True, slots=True, eq=False)
class Walked:
    """A run of frames, inspected.

    Parameters
    ----------
    seen : list of Inspected
    milliseconds : float
        Processor time per frame.
    """

    seen: list[Inspected]
    milliseconds: float

    @property
    def bits(self) -> NDArray[np.uint16]:
        """``(n, h, w)``."""
        return np.stack([s.bits for s in self.seen])


def walk(
    frames: Sequence[NDArray[Any]], options: PrepareOptions, user: BoolArray | None = None
) -> Walked:
    """Inspect frames one after the other, as a run does."""
    history = PixelHistory((frames[0].shape[0], frames[0].shape[1]))
    begin = time.process_time()
    seen: list[Inspected] = []
    for frame in frames:
        seen.append(inspect(frame, options, history, user))
        history.update(seen[-1])
    return Walked(seen, 1e3 * (time.process_time() - begin) / len(frames))


def main() -> None:
    """Print the tables."""
    kinds = Table(title=f"precision / recall after {WARM_UP} frames", title_justify="left")
    rings = Table(title="ring IoU with the frame without defects", title_justify="left")
    fields = Table(title="empty and scatter (float32 frames)", title_justify="left")
    for column in ("photons/frame", *(bit.name.lower() for bit in ValidBit if bit.name), "ms"):
        kinds.add_column(column, justify="right")
    rings.add_column("photons/frame", justify="right")
    for column in ("outside the stop", "repaired", "no history", "floor"):
        rings.add_column(f"{column}: mean", justify="right")
        rings.add_column("min", justify="right")
    for column in ("photons/frame", "empty", "scatter", "untold", "signal in empty: mean", "95 %"):
        fields.add_column(column, justify="right")
    for column in ("5 % in scatter", "background error", "of time mean"):
        fields.add_column(column, justify="right")
    for dose in DOSES:
        _score(dose, kinds, rings)
        _score_fields(dose, fields)
    for table in (kinds, rings, fields):
        console.print(table)
    options = PrepareOptions()
    for argument in sys.argv[1:]:
        key, _, value = argument.partition("=")
        if key in ("pedestal", "gain"):
            options = replace(options, **{key: float(value)})
        else:
            _real(argument, options)


def _score(dose: float, kinds: Table, rings: Table) -> None:
    clean = simulate(replace(CLEAN, dose=dose))
    level = max(float(np.quantile(clean.frames, 0.9998)), 1000.0)  # two pixels of a bright frame
    spoiled = simulate(replace(CLEAN, dose=dose, saturation=level, **DEFECTS))
    options = PrepareOptions(saturation=level)
    user = np.zeros(clean.frames.shape[1:], bool)
    user[20:24, 70:80] = True
    walked = walk(list(spoiled.frames), options, user)
    truth = spoiled.bits.copy()
    truth[:, user] |= np.uint16(ValidBit.USER)
    assert clean.signal is not None
    lit = clean.signal[:WARM_UP].sum(axis=0) >= HIDDEN
    cells = [
        _precision_recall(walked.bits[WARM_UP:], truth[WARM_UP:], bit, lit) for bit in ValidBit
    ]
    kinds.add_row(f"{dose:g}", *cells, f"{walked.milliseconds:.1f}")
    rings.add_row(f"{dose:g}", *_ring_cells(dose, clean, spoiled, walked, options))


def _precision_recall(
    found: NDArray[np.uint16], truth: NDArray[np.uint16], bit: ValidBit, lit: BoolArray
) -> str:
    yes, true = (found & np.uint16(bit)) > 0, (truth & np.uint16(bit)) > 0
    if bit in (ValidBit.HOT, ValidBit.DEAD, ValidBit.COSMIC):  # what has no value cannot be told
        told = (truth & np.uint16(ValidBit.GAP | ValidBit.USER)) == 0
        yes, true = yes & told, true & told
    sought = true & lit if bit == ValidBit.STOP else true
    precision = (yes & true).sum() / max(int(yes.sum()), 1)
    recall = (yes & sought).sum() / max(int(sought.sum()), 1)
    return f"{precision:.3f} / {recall:.3f}"


def _ring_cells(
    dose: float, clean: Scan, spoiled: Scan, walked: Walked, options: PrepareOptions
) -> list[str]:
    centroids = Centroids.fit(clean.frames[0])
    other = simulate(replace(CLEAN, dose=dose, arm_width=104.0, arm_transmission=0.999))
    plain = PrepareOptions()
    columns: list[list[float]] = [[], [], [], []]
    stop = np.uint16(ValidBit.STOP)
    for i in range(WARM_UP, FRAMES):
        reference = _ring(centroids, inspect(clean.frames[i], plain), plain)
        alone = inspect(spoiled.frames[i], options)
        noise = inspect(other.frames[i], plain)
        rings = [_ring(centroids, seen, options) for seen in (walked.seen[i], alone, noise)]
        free = ((walked.seen[i].bits | spoiled.bits[i]) & stop) == 0
        columns[0].append(iou(rings[0] & free, reference & free))
        for column, ring in zip(columns[1:], rings, strict=True):
            column.append(iou(ring, reference))
    return [f"{value:.3f}" for c in columns for value in (float(np.mean(c)), min(c))]


def _ring(centroids: Centroids, seen: Inspected, options: PrepareOptions) -> BoolArray:
    spikes = np.array([seen.spikes], np.intp)
    prepared = prepare_counts(seen.counts[None], seen.bits[None], spikes, options)
    return centroids.ring(prepared, [find_beam(prepared.relative[0])])[0]


def _score_fields(dose: float, table: Table) -> None:
    """Score empty and scatter on float32 frames: uint16 cuts the noise off at zero."""
    options = replace(CLEAN, dose=dose, n_frames=2 * FRAMES, stray=0.01, glow=1.0, dtype="float32")
    scan = simulate(options)
    background = Background((scan.frames.shape[1], scan.frames.shape[2]))
    walked = walk(list(scan.frames), PrepareOptions())
    answers = np.stack(
        [
            background.split(seen.counts, classes, seen.bits)
            for seen, classes in zip(walked.seen, scan.truth, strict=True)
        ]
    )[WARM_UP:]
    assert scan.signal is not None
    signal = scan.signal[WARM_UP:]
    empty, scatter = answers == ClassCode.EMPTY, answers == ClassCode.SCATTER
    outside = scan.truth[WARM_UP:] == ClassCode.BACKGROUND
    known = background.samples >= 8
    error = (background.mean - scan.background)[known]
    naive = (scan.frames.mean(axis=0) - scan.background)[known]
    table.add_row(
        f"{dose:g}",
        *(f"{(x & outside).sum() / outside.sum():.1%}" for x in (empty, scatter)),
        f"{(outside & ~empty & ~scatter).sum() / outside.sum():.1%}",
        f"{signal[empty].mean():.3f}",
        f"{np.quantile(signal[empty], 0.95):.2f}",
        f"{np.quantile(signal[scatter], 0.05):.2f}" if scatter.any() else "-",
        *(f"{np.sqrt(np.square(e).mean()):.3f}" for e in (error, naive)),
    )


def _real(target: str, options: PrepareOptions) -> None:
    with open_stack(target) as stack:
        frames = stack[: min(150, len(stack))]
    walked = walk(list(frames), options)
    table = Table(title=f"{target} {frames.shape}: pixels flagged", title_justify="left")
    for column in ("kind", f"frames 0-{WARM_UP - 1}", f"from {WARM_UP}", "most in a frame"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for bit in (*ValidBit, None):
        flagged = walked.bits != 0 if bit is None else (walked.bits & np.uint16(bit)) > 0
        parts = [x.mean() if x.size else 0.0 for x in (flagged[:WARM_UP], flagged[WARM_UP:])]
        most = flagged.mean(axis=(1, 2)).max()
        label = "any" if bit is None else str(bit.name).lower()
        table.add_row(label, *(f"{x:.3%}" for x in parts), f"{most:.3%}")
    console.print(table)
    console.print(f"{walked.milliseconds:.1f} ms of processor time per frame")


if __name__ == "__main__":
    main()
