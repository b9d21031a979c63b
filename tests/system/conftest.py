"""A real Tiled server in its own process, shared by the tests of this folder."""

import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from bluesky.run_engine import RunEngine
from kills_support import Recorded, content, kill_frames, kill_profile, label_undisturbed, record

from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.profile import Profile, load_profile
from ptychoseg_stream.science.learning import StudentOptions
from ptychoseg_stream.sim import GoldBalls, Scan, simulate
from ptychoseg_stream.sinks.embedded import EmbeddedTiled


@pytest.fixture(scope="session")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Generator[EmbeddedTiled]:
    with EmbeddedTiled(tmp_path_factory.mktemp("tiled")) as server:
        yield server


@pytest.fixture(scope="session")
def scan() -> Scan:
    """A short strong-sample scan with a drifting beam."""
    return simulate(GoldBalls(n_frames=24, strong=True, drift=(2.0, -1.0)))


@pytest.fixture
def profile(tiled: EmbeddedTiled, tmp_path: Path) -> Profile:
    """Deterministic, with training cut short: what is tested here is the way, not the figures."""
    base = load_profile("demo")
    student = StudentOptions(first_steps=12, steps=6, rounds=1, round_steps=3)
    return replace(
        base,
        node=NodeOptions(stages=(0, 5, 10), student=student),
        tiled=replace(base.tiled, uri=tiled.uri),
        spool=replace(base.spool, folder=str(tmp_path / "spool")),
    )


@pytest.fixture(scope="session")
def recorded(tiled: EmbeddedTiled, tmp_path_factory: pytest.TempPathFactory) -> Generator[Recorded]:
    folder = tmp_path_factory.mktemp("recorded")
    engine = RunEngine({}, context_managers=[])
    frames, file = kill_frames(), folder / "run.msgpack"
    raw = record(engine, frames, file)
    began = time.monotonic()
    label_undisturbed(kill_profile(folder, tiled, "undisturbed"), file, tiled.api_key)
    duration = time.monotonic() - began + 2.0
    expected = content(tiled, "undisturbed", raw)
    assert len(expected.table) == len(frames)
    assert len(expected.alarms) > 1
    assert expected.stages["promoted"].tolist() == [True] * 3
    yield Recorded(frames, file, raw, expected, duration, folder / "cache")
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(10)
    engine.loop.close()


@pytest.fixture
def engine() -> Generator[RunEngine]:
    run_engine = RunEngine({}, context_managers=[])
    yield run_engine
    run_engine.loop.call_soon_threadsafe(run_engine.loop.stop)
    run_engine._th.join(10)
    run_engine.loop.close()
