"""A node that is killed at any moment, and started again, leaves what an undisturbed one leaves."""

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky.callbacks.zmq import Publisher
from bluesky.run_engine import RunEngine
from doomed_node import LIMIT, Moment, checkpoint_of, doomed, moments, wait_until
from kills_support import (
    FRAMES,
    STAGES,
    Recorded,
    assert_nothing_left,
    assert_same,
    content,
    interleaved,
    kill_profile,
    label_undisturbed,
    pace,
    record,
    write_profile,
)
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, init_devices
from ptychoseg_callbacks.documents import encode
from zmq_proxy import ON_LOOPBACK, running_proxy

from ptychoseg_stream.assemble import attach_to
from ptychoseg_stream.sim.detectors import PlayedDetector, PlayedHDF5Detector
from ptychoseg_stream.sim.plans import take_frames
from ptychoseg_stream.sinks.embedded import EmbeddedTiled

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(4))
def test_a_replay_that_is_killed_and_started_again_ends_as_if_nothing_had_happened(
    recorded: Recorded, tiled: EmbeddedTiled, tmp_path: Path, seed: int
) -> None:
    profile = kill_profile(tmp_path, tiled, f"killed/seed{seed}")
    path = write_profile(profile, tmp_path / "kills.yml")
    command = ["replay", str(recorded.file), "--pace", pace(recorded), "--profile", path]
    with doomed(command, profile, tmp_path, tiled.api_key) as node:
        code = node.live_through(moments(seed, 4, recorded.duration), "replaying")
    assert code in (0, -9)
    assert node.kills >= 3
    assert max(node.resumed_from) > 0
    assert_same(content(tiled, profile.tiled.container, recorded.raw), recorded.expected)
    assert_nothing_left(profile, [recorded.raw])


def test_a_replay_of_a_file_of_frames_is_gone_on_with(
    recorded: Recorded, tiled: EmbeddedTiled, tmp_path: Path
) -> None:
    np.save(tmp_path / "frames.npy", recorded.frames)
    profile = kill_profile(tmp_path, tiled, "killed/frames")
    path = write_profile(profile, tmp_path / "kills.yml")
    command = ["replay", str(tmp_path / "frames.npy"), "--profile", path]
    with doomed([*command, "--pace", pace(recorded)], profile, tmp_path, tiled.api_key) as node:
        code = node.live_through(moments(10, 3, recorded.duration), "replaying")
    assert code == 0
    assert node.kills >= 2
    (raw,) = set(re.findall(r"run (\S+): goes on from frame", node.all_said))
    found = content(tiled, profile.tiled.container, raw)
    assert_same(found, recorded.expected)
    assert_nothing_left(profile, [raw])


def test_two_runs_that_overlap_are_gone_on_with_each_where_it_was(
    recorded: Recorded, engine: RunEngine, tiled: EmbeddedTiled, tmp_path: Path
) -> None:
    other = record(engine, recorded.frames[:, ::-1], tmp_path / "other.msgpack")
    both = tmp_path / "both.msgpack"
    interleaved(recorded.file, tmp_path / "other.msgpack", both)
    # Both find what an earlier run has fitted, as at any beamline but on its first day.
    shutil.copytree(recorded.cache, tmp_path / "cache")
    undisturbed = kill_profile(tmp_path, tiled, "undisturbed/two")
    label_undisturbed(undisturbed, both, tiled.api_key)
    profile = kill_profile(tmp_path, tiled, "killed/two")
    path = write_profile(profile, tmp_path / "kills.yml")
    command = ["replay", str(both), "--pace", pace(recorded), "--profile", path]
    with doomed(command, profile, tmp_path, tiled.api_key) as node:
        code = node.live_through(moments(20, 4, recorded.duration), "replaying")
    assert code == 0
    assert node.kills >= 3
    assert max(node.resumed_from) > 0
    for raw in (recorded.raw, other):
        expected = content(tiled, "undisturbed/two", raw)
        assert_same(content(tiled, profile.tiled.container, raw), expected)
    assert_nothing_left(profile, [recorded.raw, other])


def test_students_that_are_learned_beside_the_stream_are_told_once_each(
    recorded: Recorded, tiled: EmbeddedTiled, tmp_path: Path
) -> None:
    profile = kill_profile(tmp_path, tiled, "killed/background", trainer="background")
    path = write_profile(profile, tmp_path / "kills.yml")
    command = ["replay", str(recorded.file), "--pace", pace(recorded), "--profile", path]
    with doomed(command, profile, tmp_path, tiled.api_key) as node:
        code = node.live_through(moments(30, 4, recorded.duration), "replaying")
    assert code == 0
    assert node.kills >= 3
    found = content(tiled, profile.tiled.container, recorded.raw)
    assert found.table["raw_index"].tolist() == list(range(FRAMES))
    stages = found.stages["stage"].tolist()
    assert stages == list(range(len(stages)))
    assert len(stages) <= len(STAGES)
    serving = found.table["student_hash"].tolist()
    assert set(serving) - {""} <= set(found.stages["student_hash"])
    # When a student serves is by chance; which one it is, is not.
    learned = recorded.expected.stages["student_hash"].tolist()
    assert found.stages["student_hash"].tolist() == learned[: len(stages)]
    assert found.account["received"] == FRAMES
    assert_nothing_left(profile, [recorded.raw])


@pytest.mark.parametrize("flavour", ["inline", "swmr"])
def test_a_scan_never_notices_that_its_node_is_killed_again_and_again(
    recorded: Recorded,
    engine: RunEngine,
    tiled: EmbeddedTiled,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    flavour: str,
) -> None:
    chance = random.Random(flavour)
    detector: Any = PlayedDetector(recorded.frames, name="det")
    if flavour == "swmr":
        provider = StaticPathProvider(UUIDFilenameProvider(), tmp_path)
        with init_devices():
            detector = PlayedHDF5Detector(recorded.frames, provider, name="det")
    profile = kill_profile(tmp_path, tiled, f"killed/{flavour}", own_process=True)
    attachment = attach_to(profile, tiled.api_key)
    pids: list[int] = []

    def kill(checkpoint: int, seconds: float) -> Callable[[], None]:
        def now() -> None:
            wait_until(lambda: attachment.worker.pid not in (None, *pids), "there is a child")
            wait_until(lambda: checkpoint_of(profile) >= checkpoint, f"checkpoint {checkpoint}")
            time.sleep(seconds)
            pids.append(attachment.worker.pid)
            os.kill(pids[-1], signal.SIGKILL)

        return now

    kills = {
        0: kill(0, chance.uniform(0, 2.0)),
        chance.randint(2, 5): kill(0, chance.uniform(0, 1.0)),
        chance.randint(11, 13): kill(1, chance.uniform(0, 1.0)),
        chance.randint(19, 21): kill(chance.randint(2, 8), chance.uniform(0, 0.3)),
        FRAMES - 1: kill(chance.randint(9, 12), chance.uniform(0, 0.3)),
    }
    try:
        engine.subscribe(attachment)
        (raw,) = engine(interrupted(take_frames(detector, FRAMES), kills))
        assert attachment.wait(LIMIT)
        assert attachment.worker.lost == 0
    finally:
        attachment.close()
    assert len(set(pids)) == 5
    resumed = re.findall(r"goes on from frame (\d+)", capfd.readouterr().err)
    assert max(map(int, resumed)) > 0
    assert_same(content(tiled, profile.tiled.container, raw), recorded.expected)
    assert_nothing_left(profile, [raw])


def test_what_a_lossy_way_loses_while_a_node_is_dead_is_read_from_the_file(
    recorded: Recorded, engine: RunEngine, tiled: EmbeddedTiled, tmp_path: Path
) -> None:
    provider = StaticPathProvider(UUIDFilenameProvider(), tmp_path)
    with init_devices():
        detector = PlayedHDF5Detector(recorded.frames, provider, name="det")
    profile = kill_profile(tmp_path, tiled, "killed/zmq")
    path = write_profile(profile, tmp_path / "kills.yml")
    with running_proxy(*ON_LOOPBACK) as (into, out):
        command = ["run", "--source", out.replace("tcp", "zmq"), "--profile", path]
        publisher = Publisher(into.removeprefix("tcp://"), serializer=encode)
        with closing(publisher), doomed(command, profile, tmp_path, tiled.api_key) as node:

            def start() -> None:
                node.start()
                wait_until(lambda: "connected" in node.said, "the node is connected")
                time.sleep(0.5)  # a proxy learns a little later what is asked for

            def kill(moment: Moment) -> Callable[[], None]:
                return lambda: node.kill_at(moment, "connected")

            start()
            engine.subscribe(publisher)
            kills = {
                5: kill(Moment(0, "spool/runs/*/documents.log", 0.7)),
                9: start,
                16: kill(Moment(1)),
                19: start,
                25: kill(Moment(9)),
                26: start,
            }
            (raw,) = engine(interrupted(take_frames(detector, FRAMES), kills))
            wait_until(lambda: node.done, "all is stored")
            assert node.kill(signal.SIGTERM) == 0
            assert node.kills == 3
            assert max(node.resumed_from) > 0
    found = content(tiled, profile.tiled.container, raw)
    assert_same(found, recorded.expected, "refilled", "raw_seq_num")
    refilled = found.table["refilled"].tolist()
    assert set(refilled) == {"", "file"}
    assert refilled[0] == ""
    assert found.account["refilled"] == refilled.count("file")
    assert_nothing_left(profile, [raw])


def interrupted(plan: Any, at: Mapping[int, Callable[[], object]]) -> Any:
    """Return a plan in which something is done right before some of its points."""
    point = -1

    def look(message: Any) -> Any:
        nonlocal point
        if message.command == "checkpoint":
            point += 1
            at.get(point, lambda: None)()
        return message

    return bpp.msg_mutator(plan, look)
