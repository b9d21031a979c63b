"""Runs live at a steady rate and prints, once in a while, what must stay flat.

    python benchmarks/soak.py [--rate 100] [--seconds 3600] [--size 64] [--plot soak.png]

A RunEngine in this process takes simulated frames, run after run; the node labels in its own
process and stores in an embedded Tiled server. Printed are memory [MiB] and open files of the three
processes, frames that wait, lag from Event to mask, rows stored, frames taken by the cheaper path,
and at the end the account over all runs. Linux only: the figures come from /proc.

The server, which elsewhere has a machine of its own, does not share the node's core here.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
from bluesky.run_engine import RunEngine
from matplotlib.figure import Figure
from numpy.typing import NDArray
from ptychoseg_callbacks.workers.process import ProcessWorker

from ptychoseg_stream.assemble import Attachment, attach_to
from ptychoseg_stream.evaluation.material import read_material
from ptychoseg_stream.profile import Profile, load_profile
from ptychoseg_stream.sim.detectors import PlayedDetector
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.options import MEGABYTE


@dataclass(frozen=True, slots=True)
class Sample:
    """How things stand at one moment."""

    seconds: float
    frames: int
    rate: float
    engine_mib: float
    node_mib: float
    tiled_mib: float
    engine_files: int
    node_files: int
    tiled_files: int
    waiting: int
    lag_s: float
    stored: int


def main() -> None:
    """Run, print, draw."""
    parser = argparse.ArgumentParser(description="memory, lag and files over a long time")
    parser.add_argument("--rate", type=float, default=100.0, help="frames per second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--size", type=int, default=104, help="central pixels of the frames")
    parser.add_argument("--frames-per-run", type=int, default=10_000)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two lines")
    parser.add_argument("--policy", default="teacher-only", help="overload.policy of the profile")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedTiled(Path(folder)) as server:
        profile = _profile(arguments.policy, server.uri, Path(folder))
        attachment = attach_to(profile, server.api_key)
        _leave_cores(os.getpid(), server.pid)
        samples = _soak(arguments, attachment, server)
        print("waiting for the last masks ...", flush=True)
        complete = attachment.wait(600.0)
        balanced = _print_account(attachment)
        attachment.close()
    if arguments.csv:
        _write(arguments.csv, samples)
    if arguments.plot:
        _draw(arguments.plot, samples, f"{arguments.size} x {arguments.size}", arguments.rate)
    sys.exit(0 if complete and balanced else 1)


def _profile(policy: Any, uri: str, folder: Path) -> Profile:
    base = load_profile("beamline")
    return replace(
        base,
        cache=str(folder / "cache"),
        spool=replace(base.spool, folder=str(folder / "spool")),
        overload=replace(base.overload, policy=policy),
        # A request costs Tiled some 30 ms, however many rows it brings: one a second and array.
        tiled=replace(
            base.tiled, uri=uri, batch_rows=200, batch_seconds=1.0, patch_bytes=16 * MEGABYTE
        ),
    )


def _leave_cores(*pids: int | None) -> None:
    """Keep processes on the first half of the cores; the node, started before, has all but one."""
    cores = sorted(os.sched_getaffinity(0))
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores[: (len(cores) + 1) // 2])


def _soak(arguments: Any, attachment: Attachment, server: EmbeddedTiled) -> list[Sample]:
    frames = _central(read_material("sim:drift", 500).frames, arguments.size)
    played = np.concatenate([frames, frames[::-1]])  # so that the beam does not jump at its end
    detector = PlayedDetector(played, name="detector", loop=True)
    engine: Any = RunEngine({})
    engine.subscribe(attachment)
    samples: list[Sample] = []
    begun = time.monotonic()
    print("  ".join(field.name for field in fields(Sample)), flush=True)
    total = 0

    def tick() -> bool:
        """Look once in a while; say whether the time is over."""
        nonlocal total
        total += 1
        now = time.monotonic() - begun
        if now >= (samples[-1].seconds if samples else 0.0) + arguments.every:
            samples.append(_sample(now, total, samples, attachment, server))
            print("  ".join(_text(value) for value in astuple(samples[-1])), flush=True)
        return now >= arguments.seconds

    while time.monotonic() - begun < arguments.seconds:
        engine(_run(detector, arguments.frames_per_run, 1.0 / arguments.rate, tick))
    return samples


def _central(frames: NDArray[Any], size: int) -> NDArray[Any]:
    first = max(0, (frames.shape[1] - size) // 2)
    return frames[:, first : first + size, first : first + size]


def _run(detector: PlayedDetector, points: int, period: float, tick: Any) -> Iterator[Any]:
    """Take points at a steady pace: a point that was late does not delay the next one."""

    @bpp.stage_decorator([detector])
    @bpp.run_decorator(md={"purpose": "soak"})
    def inner() -> Iterator[Any]:
        due = time.monotonic()
        for _ in range(points):
            yield from bps.trigger_and_read([detector])
            if tick():
                return
            due += period
            yield from bps.sleep(max(0.0, due - time.monotonic()))

    return inner()


def _sample(
    now: float, total: int, before: list[Sample], attachment: Attachment, server: EmbeddedTiled
) -> Sample:
    vitals = attachment.vitals()
    last = before[-1] if before else None
    since = now - (last.seconds if last else 0.0)
    rate = (total - (last.frames if last else 0)) / max(since, 1e-9)
    worker = attachment.worker
    node = worker.pid if isinstance(worker, ProcessWorker) else None
    pids = ("self", node, server.pid)
    memory = dict(zip(("engine_mib", "node_mib", "tiled_mib"), map(_mebibytes, pids), strict=True))
    files = dict(zip(("engine_files", "node_files", "tiled_files"), map(_files, pids), strict=True))
    return Sample(
        seconds=now,
        frames=total,
        rate=rate,
        **memory,
        **files,
        waiting=vitals.backlog,
        lag_s=vitals.latency_ms / 1e3,
        stored=vitals.stored,
    )


def _mebibytes(pid: Any) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def _files(pid: Any) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return -1


def _text(value: float) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _print_account(attachment: Attachment) -> bool:
    """Add up the stop documents of all runs; say whether each balances."""
    keys = ("received", "written", "lost", "teacher_only")
    totals = dict.fromkeys((*keys, "refused"), 0)
    runs, wrong = 0, 0
    for run in attachment.client().values():
        account = dict(run.metadata.get("stop", {}).get("account", {}))
        runs += 1
        wrong += not account or bool(account.get("imbalance"))
        for key in keys:
            totals[key] += account.get(key, 0)
        totals["refused"] += sum(dict(account.get("refused", {})).values())
    print(f"account of {runs} runs: {json.dumps(totals)}; {wrong} do not balance", flush=True)
    return wrong == 0


def _write(path: Path, samples: list[Sample]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Sample)])
        writer.writerows(astuple(sample) for sample in samples)


def _draw(path: Path, samples: list[Sample], size: str, rate: float) -> None:
    minutes = [sample.seconds / 60 for sample in samples]
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes: Any = figure.subplots(4, 1, sharex=True)
    panels = (
        ("memory [MiB]", {"RunEngine": "engine_mib", "node": "node_mib", "Tiled": "tiled_mib"}),
        ("open files", {"RunEngine": "engine_files", "node": "node_files", "Tiled": "tiled_files"}),
        ("lag [s]", {"Event to mask": "lag_s"}),
        ("frames/s", {"taken": "rate"}),
    )
    for axis, (label, lines) in zip(axes, panels, strict=True):
        for name, key in lines.items():
            axis.plot(minutes, [getattr(sample, key) for sample in samples], label=name)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.legend(loc="lower right", fontsize="small")
    axes[-1].set_xlabel("minutes")
    axes[0].set_title(f"{samples[-1].frames} frames of {size} pixels at {rate:g} per second")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
