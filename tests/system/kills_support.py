"""Nodes that are killed: real processes, seeded moments, and what a Tiled client then reads."""

import contextlib
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
from ptychoseg_callbacks.inbox import Inbox
from ptychoseg_callbacks.resume import Checkpoint
from ptychoseg_callbacks.source import Source
from stored_runs import LENIENT
from tiled.queries import Key

from ptychoseg_stream.assemble import build_segmentation
from ptychoseg_stream.errors import CheckpointError
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.profile import Profile, load_profile
from ptychoseg_stream.sim import GoldBalls, simulate
from ptychoseg_stream.sim.detectors import PlayedDetector
from ptychoseg_stream.sim.plans import take_frames
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sources.document_files import read_msgpack
from ptychoseg_stream.sources.document_writer import DocumentWriter
from ptychoseg_stream.sources.replay import ReplayOptions, open_replay

log = logging.getLogger(__name__)

FRAMES = 28
STAGES = (0, 5, 10)
REFUSED = 7
"""Frame without any light."""
JUMPED = 20
"""Frame from which on the beam is elsewhere: an alarm."""
EVERY = 6
"""Frames between two checkpoints."""
LIMIT = 120.0  # s until a wait is given up

LOOPBACK = ("--in-address", "127.0.0.1", "--out-address", "127.0.0.1")
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
    """Return the pace at which a replay takes as long as it takes to label."""
    return f"{FRAMES / recorded.duration}"


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
        differ = [
            i for i in range(len(array)) if not np.array_equal(array[i], found.arrays[name][i])
        ]
        assert found.arrays[name].shape == array.shape
        assert found.arrays[name].dtype == array.dtype
        assert differ == [], f"{name} differs in rows {differ}"
    for name in ("table", "alarms", "stages"):
        one, other = (
            getattr(each, name).drop(columns=list(but), errors="ignore")
            for each in (found, expected)
        )
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


def checkpoint_of(profile: Profile, derived: str = "*") -> int:
    """Return the frame that a restart would go on from, of whichever run is furthest."""
    found = [0]
    for path in profile.spool.runs.glob(f"{derived}/checkpoint"):
        with contextlib.suppress(OSError, CheckpointError):
            found.append(Checkpoint.unpack(path.read_bytes()).next)
    return max(found)


def wait_until(condition: Callable[[], Any], what: str, limit: float = LIMIT) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.002)


@dataclass(frozen=True)
class Moment:
    """When a node is killed.

    Parameters
    ----------
    checkpoint : int
        Once this many frames need not be labelled again ...
    touch : str
        ... and then a file of this pattern is there, of those in the folder of the test ...
    seconds : float
        ... and so many seconds have gone by.
    started : bool
        Whether the node is to have said that it reads its source first.
    """

    checkpoint: int = 0
    touch: str = ""
    seconds: float = 0.0
    started: bool = True


TOUCHED = (
    "spool/runs/*/checkpoint.part",
    "spool/runs/.*",
    "cache/**/*part*",
    "spool/masks/*/*part*",
    "spool/masks/*/rows-*.h5",
)


def moments(seed: int, kills: int, duration: float) -> list[Moment]:
    """Return when to kill a node that is busy for a while [s]: anywhere, then where it resumes."""
    chance = random.Random(seed)
    early = [
        Moment(0, chance.choice([*TOUCHED, *[""] * 4]), seconds, chance.random() < 0.7)
        for seconds in sorted(chance.uniform(0.0, 0.8 * duration) for _ in range(kills - 2))
    ]
    late = [
        Moment(step, chance.choice([*TOUCHED, ""]), chance.uniform(0, 0.1 * duration))
        for step in (chance.randint(1, 3), chance.randint(4, 9))
    ]
    return [*early, *late]


class DoomedNode:
    """A command that is killed, and started again, until it ends by itself.

    Parameters
    ----------
    arguments : sequence of str
        Of `ptychoseg`.
    profile : Profile
        Theirs.
    folder : Path
        For the logs, one per life.
    api_key : str
        Of the server.
    """

    def __init__(
        self, arguments: Sequence[str], profile: Profile, folder: Path, api_key: str
    ) -> None:
        self.profile = profile
        self.kills = 0
        self._command = [sys.executable, "-m", "ptychoseg_stream", *arguments]
        self._folder = folder
        self._env = {**os.environ, profile.tiled.api_key_env: api_key, "COLUMNS": "500"}
        self._lives: list[Path] = []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin another life."""
        path = self._folder / f"life-{len(self._lives)}.log"
        self._lives.append(path)
        with path.open("wb") as out:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._env
            )

    @property
    def said(self) -> str:
        """All that was said in this life."""
        return self._lives[-1].read_text()

    @property
    def all_said(self) -> str:
        return "\n".join(path.read_text() for path in self._lives)

    @property
    def resumed_from(self) -> list[int]:
        """Frames that lives went on from."""
        return [int(n) for n in re.findall(r"goes on from frame (\d+)", self.all_said)]

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end; return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def kill_at(self, moment: Moment, ready: str) -> bool:
        """Kill it at a moment; False if it had ended by itself before."""
        if moment.started:
            self._wait(lambda: ready in self.said, LIMIT)
        self._wait(lambda: checkpoint_of(self.profile) >= moment.checkpoint, LIMIT)
        if moment.touch:
            self._wait(lambda: any(self._folder.glob(moment.touch)), 1.0)
        self._wait(lambda: False, moment.seconds)
        if not self.running:
            return False
        self.kill()
        self.kills += 1
        last = self.said.strip().splitlines()[-1:]
        log.warning(
            "killed at %s, checkpoint %d, after saying %s",
            moment,
            checkpoint_of(self.profile),
            last,
        )
        return True

    def live_through(self, kills: Sequence[Moment], ready: str) -> int:
        """Start it, kill it at each moment, and let it end; return its exit code."""
        for moment in kills:
            self.start()
            if not self.kill_at(moment, ready) or self.done:
                break
        if self.kills and not self.done:
            self.start()
        return self.end()

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        assert self.process is not None
        code = self.process.wait(LIMIT)
        log.warning("ended with %d after %d kills, saying %s", code, self.kills, self.said)
        return code

    @property
    def done(self) -> bool:
        """Whether there is nothing to go on with."""
        runs = self.profile.spool.runs
        return (runs / "finished").exists() and not any(runs.glob("*/run.json"))

    def _wait(self, condition: Callable[[], bool], limit: float) -> None:
        end = time.monotonic() + limit
        while self.running and not condition() and time.monotonic() < end:
            time.sleep(0.001)


@contextlib.contextmanager
def running_proxy() -> Iterator[tuple[str, str]]:
    """A 0MQ proxy in a process of its own: (in address, out address)."""
    command = [sys.executable, "-u", "-m", "bluesky.commandline.zmq_proxy", *LOOPBACK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            text = ""
            while "Ctrl+C" not in text and process.poll() is None:
                text += process.stdout.readline()
            into, out = re.findall(r"tcp://127.0.0.1:\d+", text)
            yield into, out
        finally:
            process.kill()


def interleaved(one: Path, other: Path, both: Path) -> None:
    """Write the documents of two files in turn."""
    pairs = zip(read_msgpack(one, pytest.fail), read_msgpack(other, pytest.fail), strict=True)
    both.write_bytes(b"".join(encode([*each]) for pair in pairs for each in pair))


@contextlib.contextmanager
def doomed(
    arguments: Sequence[str], profile: Profile, folder: Path, api_key: str
) -> Iterator[DoomedNode]:
    """Make a node, and see to it that none is left."""
    node = DoomedNode(arguments, profile, folder, api_key)
    try:
        yield node
    finally:
        if node.running:
            node.kill()
