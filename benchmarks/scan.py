"""What a scan pays for an attached node, and how soon a row can be read. A minute and a half.

    python benchmarks/scan.py [--points 200] [--repeats 7]

1. The same scan with and without the node attached, in turn, in one run: ratios of the RunEngine's
   time, flat out (no exposure: the worst case) and with an exposure.
2. Time from the Event to the row being readable by a Tiled client that polls, at 10 frames/s, while
   the student is learning beside the stream (background trainer).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

from bluesky.run_engine import RunEngine
from tiled.queries import Key

from ptychoseg_stream.assemble import Attachment, attach_to
from ptychoseg_stream.evaluation.material import read_material
from ptychoseg_stream.profile import Profile, load_profile
from ptychoseg_stream.sim.detectors import PlayedDetector
from ptychoseg_stream.sim.plans import take_frames
from ptychoseg_stream.sinks.embedded import EmbeddedTiled


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description="RunEngine overhead; time to a readable row")
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    frames = read_material("sim", arguments.points).frames
    engine = RunEngine({})
    with tempfile.TemporaryDirectory() as folder, EmbeddedTiled(Path(folder)) as server:
        base = load_profile("beamline")
        profile = replace(
            base,
            cache="",
            spool=replace(base.spool, folder=str(Path(folder) / "spool")),
            tiled=replace(base.tiled, uri=server.uri),
        )
        for exposure in (0.0, 0.02):
            _overhead(engine, frames, exposure, profile, server.api_key, arguments.repeats)
        _latency(engine, frames, profile, server.api_key)


def _overhead(
    engine: RunEngine,
    frames: Any,
    exposure: float,
    profile: Profile,
    api_key: str,
    repeats: int,
) -> None:
    detector = PlayedDetector(frames, name="detector", exposure=exposure)
    scan = lambda: _seconds(lambda: engine(take_frames(detector, len(frames))))  # noqa: E731
    scan()
    attachment = attach_to(profile, api_key)
    _warm_up(engine, attachment, detector)
    ratios: list[float] = []
    times: list[float] = []
    for _ in range(repeats if exposure == 0 else max(2, repeats // 3)):
        without = scan()
        token = engine.subscribe(attachment)
        with_node = scan()
        engine.unsubscribe(token)
        attachment.wait(120.0)
        ratios.append(with_node / without)
        times.append(with_node)
    attachment.close()
    print(
        f"{len(frames)} points, exposure {exposure * 1e3:3.0f} ms: RunEngine with the node / "
        f"without: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f} "
        f"({len(ratios)} pairs; with: {statistics.median(times):.2f} s)",
        flush=True,
    )


def _warm_up(engine: RunEngine, attachment: Attachment, detector: PlayedDetector) -> None:
    """Let the child start and learn once, so that a pair compares scans and not start-up."""
    token = engine.subscribe(attachment)
    engine(take_frames(detector, 30))
    engine.unsubscribe(token)
    attachment.wait(120.0)


def _latency(engine: RunEngine, frames: Any, profile: Profile, api_key: str) -> None:
    detector = PlayedDetector(frames, name="detector", exposure=0.1)
    attachment = attach_to(profile, api_key)
    _warm_up(engine, attachment, detector)
    emitted: dict[int, float] = {}
    raw: list[str] = []

    def note(name: str, doc: Any) -> None:
        if name == "start":
            raw.append(doc["uid"])
        if name == "event":
            emitted[doc["seq_num"] - 1] = time.time()

    engine.subscribe(note)
    engine.subscribe(attachment)
    container = attachment.client()
    seen: dict[int, float] = {}

    def poll() -> None:
        mask: Any = None
        while len(seen) < len(frames):
            time.sleep(0.05)
            if mask is None:
                mask = _mask_array(container, raw)
                continue
            rows = mask.refresh().shape[0]  # one small request
            for row in range(len(seen), rows):
                seen[row] = time.time()

    poller = Thread(target=poll, daemon=True)
    poller.start()
    engine(take_frames(detector, len(frames)))
    attachment.wait(60.0)
    poller.join(30.0)
    attachment.close()
    delays = sorted(seen[i] - emitted[i] for i in seen)
    print(
        f"Event to row readable in Tiled, {len(delays)} of {len(frames)} rows at 10 frames/s while "
        f"learning: median {statistics.median(delays):.2f} s, 95 % "
        f"{delays[int(0.95 * len(delays))]:.2f} s, longest {delays[-1]:.2f} s"
    )


def _mask_array(container: Any, raw: list[str]) -> Any:
    """Return the array of masks of the derived run, None as long as there is none."""
    if not raw:
        return None
    found = container.search(Key("start.original_run_uid") == raw[0])
    for run in found.values():
        if "primary" in run and "mask" in run["primary"].base:
            return run["primary"].base["mask"]
    return None


def _seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
