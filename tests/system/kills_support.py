"""A run that is labelled again and again, and what a Tiled client then reads of it."""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from beams import QUICK
from bluesky.run_engine import RunEngine
from ptychoseg_callbacks.documents import encode
from ptychoseg_callbacks.feeder import feed
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.source import Source
from stored_runs import LENIENT
from tiled.queries import Key

from ptychoseg_stream.assemble import build_segmentation
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.profile import Profile, load_profile
from ptychoseg_stream.sim import GoldBalls, simulate
from ptychoseg_stream.sim.detectors import PlayedDetector
from ptychoseg_stream.sim.plans import take_frames
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sources.recorded.document_files import read_msgpack
from ptychoseg_stream.sources.recorded.document_writer import DocumentWriter
from ptychoseg_stream.sources.recorded.replay import ReplayOptions, open_replay

log = logging.getLogger(__name__)

FRAMES = 28
STAGES = (0, 5, 10)
REFUSED = 7
"""Frame without any light."""
JUMPED = 20
"""Frame from which on the beam is elsewhere: an alarm."""
EVERY = 6
"""Frames between two checkpoints."""

VOLATILE = re.compile("time|ts_.*|latency_ms")
"""Columns that tell when something was done."""


def kill_frames() -> np.ndarray:
    """Frames that teach three stages, one that is refused, and a beam that jumps."""
    drifting = simulate(GoldBalls(n_frames=FRAMES, strong=True, drift=(2.0, -1.0)))
    frames = drifting.frames.copy()
    frames[REFUSED] = 0
    frames[JUMPED:] = np.roll(frames[JUMPED:], (9, 7), axis=(1, 2))
    return frames


def kill_profile(folder: Path, server: EmbeddedTiled, container: str, **more: Any) -> Profile:
    """A profile with small batches, many checkpoints, and training cut short."""
    base = load_profile("demo")
    tiled = replace(
        base.tiled,
        uri=server.uri,
        container=container,
        arrays=("mask", "valid_bits", "student"),
        batch_rows=4,
        batch_seconds=0.05,
        retry_wait=0.1,
        retry_longest=0.5,
        refused_wait=0.5,
        timeout=5.0,
        append_timeout=10.0,
    )
    profile = replace(
        base,
        name="kills",
        node=NodeOptions(stages=STAGES, student=QUICK, promotion=LENIENT),
        tiled=tiled,
        spool=SpoolOptions(str(folder / "spool"), checkpoint_frames=EVERY, min_free_bytes=0),
        cache=str(folder / "cache"),
        batch=2,
    )
    return replace(profile, **more)


def write_profile(profile: Profile, path: Path) -> str:
    """Write a profile as its user would."""
    path.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(profile)))))
    assert load_profile(path) == profile
    return str(path)


def record(engine: RunEngine, frames: np.ndarray, path: Path) -> str:
    """Have a RunEngine take the frames, and record the documents; return the uid."""
    writer = DocumentWriter(path)
    token = engine.subscribe(writer)
    detector = PlayedDetector(frames, name="det")
    result: Any = engine(take_frames(detector, len(frames)))
    engine.unsubscribe(token)
    writer.close()
    return str(result[0])


def label_undisturbed(profile: Profile, target: Path | Source, api_key: str) -> None:
    """Label what is recorded in this process, from beginning to end."""
    source = open_replay(target, ReplayOptions()) if isinstance(target, Path) else target
    fed = feed(build_segmentation(profile, api_key), source, Inbox())
    assert fed.complete
    assert fed.vitals.fault == ""


@dataclass(frozen=True)
class Content:
    """What a Tiled client reads of one derived run, as far as it must come out the same."""

    arrays: dict[str, np.ndarray]
    table: pd.DataFrame
    alarms: pd.DataFrame
    stages: pd.DataFrame
    account: dict[str, Any]
    exit_status: str
    uid: str = field(compare=False)


@dataclass(frozen=True)
class Recorded:
    """A recorded run, how it is labelled when nothing disturbs, and how long a replay takes [s]."""

    frames: np.ndarray
    file: Path
    raw: str
    expected: Content
    duration: float
    cache: Path


def pace(recorded: Recorded) -> str:
    """Return the pace at which a replay takes twice as long as it takes to label.

    A node that is to be killed behind its first checkpoint must not have ended by then.
    """
    return f"{FRAMES / (2 * recorded.duration)}"


def derived_runs(server: EmbeddedTiled, container: str, raw: str) -> list[Any]:
    """Return the derived runs of a raw run."""
    node: Any = server.client()
    for name in container.split("/"):
        if name not in node:
            return []
        node = node[name]
    return list(node.search(Key("start.original_run_uid") == raw).values())


def content(server: EmbeddedTiled, container: str, raw: str) -> Content:
    """Read the one derived run of a raw run."""
    (run,) = derived_runs(server, container, raw)
    stream = run["primary"].base
    arrays = {name: np.asarray(stream[name].read()) for name in stream if name != "internal"}
    whole = run.parent.parent[f"{container.split('/')[-1]}_products"][run.path_parts[-1]]
    assert whole.metadata["final"]
    arrays |= {f"products/{name}": np.asarray(whole[name].read()) for name in whole}
    start, stop = run.metadata["start"], run.metadata["stop"]
    assert run.metadata["stop"]["run_start"] == start["uid"]
    return Content(
        arrays,
        _rows(stream["internal"]),
        *(_rows(run[name].base["internal"]) for name in ("alarms", "stages")),
        account=dict(stop["account"]),
        exit_status=stop["exit_status"],
        uid=start["uid"],
    )


def _rows(table: Any) -> pd.DataFrame:
    rows = table.read()
    return rows[[name for name in rows.columns if not VOLATILE.fullmatch(name)]]


def assert_same(found: Content, expected: Content, *but: str) -> None:
    """Check that two runs are equal, in all columns but those named."""
    assert set(found.arrays) == set(expected.arrays)
    for name, array in expected.arrays.items():
        real = array.dtype.kind == "f"
        pairs = zip(array, found.arrays[name], strict=False)
        differ = [i for i, (a, b) in enumerate(pairs) if not np.array_equal(a, b, equal_nan=real)]
        assert found.arrays[name].shape == array.shape
        assert found.arrays[name].dtype == array.dtype
        assert differ == [], f"{name} differs in rows {differ}"
    for name in ("table", "alarms", "stages"):
        one, other = (
            getattr(each, name).drop(columns=list(but), errors="ignore")
            for each in (found, expected)
        )
        if len(one) != len(other):  # pandas would only say how many there are
            pytest.fail(f"{name} differ:\n{one.to_string()}\n{other.to_string()}")
        pd.testing.assert_frame_equal(one, other, obj=name)
    if not but:
        assert found.account == expected.account
    assert found.exit_status == expected.exit_status


def assert_nothing_left(profile: Profile, raw: Sequence[str]) -> None:
    """Check that journals and spool are empty, and which runs are known as finished."""
    spool = profile.spool
    left = [p for p in (*spool.runs.glob("*"), *spool.masks.glob("*")) if p.is_dir()]
    assert left == []
    finished = [json.loads(line)[1] for line in (spool.runs / "finished").read_text().splitlines()]
    assert set(finished) == set(raw)


def interleaved(one: Path, other: Path, both: Path) -> None:
    """Write the documents of two files in turn."""
    pairs = zip(read_msgpack(one, pytest.fail), read_msgpack(other, pytest.fail), strict=True)
    both.write_bytes(b"".join(encode([*each]) for pair in pairs for each in pair))
