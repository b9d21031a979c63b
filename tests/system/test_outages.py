"""Tiled goes away, or the disk is full: the scan goes on, and afterwards nothing is missing."""

import logging
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from doomed_node import doomed, moments, wait_until
from faulty_proxy import FaultyProxy
from kills_support import (
    FRAMES,
    Recorded,
    assert_nothing_left,
    assert_same,
    content,
    kill_profile,
    pace,
    write_profile,
)
from ptychoseg_callbacks.feeder import Fed, FeedOptions, feed

from ptychoseg_stream.assemble import build_inbox, build_segmentation
from ptychoseg_stream.node.vitals import Vitals
from ptychoseg_stream.profile import Profile
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.spool import waiting
from ptychoseg_stream.sinks.upload import upload_all
from ptychoseg_stream.sources.recorded.replay import ReplayOptions, open_replay

pytestmark = pytest.mark.slow


@pytest.fixture
def faulty(tiled: EmbeddedTiled) -> Generator[FaultyProxy]:
    with FaultyProxy(tiled.uri) as proxy:
        yield proxy


def outage_profile(
    folder: Path, tiled: EmbeddedTiled, faulty: FaultyProxy, name: str, **spool: int
) -> Profile:
    """A profile of a node that reaches Tiled through the proxy."""
    profile = kill_profile(folder, tiled, f"outages/{name}")
    return replace(
        profile,
        tiled=replace(profile.tiled, uri=faulty.uri),
        spool=replace(profile.spool, **spool),
    )


def labelled(
    recorded: Recorded, profile: Profile, api_key: str, look: Callable[[Vitals], None]
) -> Fed:
    """Label the recorded run in this process; `look` is told how things stand."""
    source = open_replay(recorded.file, ReplayOptions(pace=pace(recorded)))
    target = build_segmentation(profile, api_key)
    return feed(target, source, build_inbox(profile, None), None, FeedOptions(), look)


def send_the_rest(profile: Profile, api_key: str) -> None:
    """Do what the next node, or `ptychoseg upload`, does."""
    end = time.monotonic() + 60
    while waiting(profile.spool) and time.monotonic() < end:
        upload_all(profile.tiled, profile.spool, api_key, 30.0)


@dataclass(frozen=True)
class Outage:
    """From when to when, in frames received, Tiled does what; 0 and below: nothing is answered."""

    name: str
    status: int
    first: int
    last: int
    delay: float = 0.0


OUTAGES = [
    Outage("start", -1, 0, 12),
    Outage("middle", -1, 6, 20),
    Outage("end", -1, 16, FRAMES + 1),
    Outage("throughout", -1, 0, FRAMES + 1),
    Outage("refuses the key", 401, 4, 18),
    Outage("broken", 500, 4, 18),
    Outage("overloaded", 503, 0, FRAMES + 1),
    Outage("slow", 0, 0, FRAMES + 1, delay=0.4),
]


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.name.replace(" ", "-"))
def test_masks_that_tiled_did_not_take_are_there_when_it_takes_them(
    recorded: Recorded, tiled: EmbeddedTiled, faulty: FaultyProxy, tmp_path: Path, outage: Outage
) -> None:
    profile = outage_profile(tmp_path, tiled, faulty, outage.name)
    seen: set[bool] = set()

    def look(vitals: Vitals) -> None:
        within = outage.first <= vitals.received < outage.last
        faulty.status = outage.status if within else 0
        faulty.delay = outage.delay if within else 0.0
        seen.add(within)

    look(Vitals())
    fed = labelled(recorded, profile, tiled.api_key, look)
    assert fed.complete
    assert True in seen
    faulty.mend()
    send_the_rest(profile, tiled.api_key)
    assert_same(content(tiled, profile.tiled.container, recorded.raw), recorded.expected)
    assert_nothing_left(profile, [recorded.raw])


def test_a_full_disk_is_told_and_costs_no_mask_while_tiled_is_there(
    recorded: Recorded,
    tiled: EmbeddedTiled,
    faulty: FaultyProxy,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    profile = outage_profile(tmp_path, tiled, faulty, "full", min_free_bytes=1 << 60)
    with caplog.at_level(logging.WARNING):
        fed = labelled(recorded, profile, tiled.api_key, lambda vitals: None)
    assert fed.complete
    (told,) = [r.getMessage() for r in caplog.records if "spool.min_free_bytes" in r.getMessage()]
    assert f"run {recorded.raw}: there is no journal" in told
    assert "Free space on that disk, or choose another folder (spool.folder)" in told
    send_the_rest(profile, tiled.api_key)
    assert_same(content(tiled, profile.tiled.container, recorded.raw), recorded.expected)
    assert not any(profile.spool.runs.glob("*"))


def test_a_full_disk_and_no_tiled_is_told_and_waits_in_memory(
    recorded: Recorded,
    tiled: EmbeddedTiled,
    faulty: FaultyProxy,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    profile = outage_profile(tmp_path, tiled, faulty, "both", min_free_bytes=1 << 60)

    def look(vitals: Vitals) -> None:
        faulty.status = -1 if 4 <= vitals.received < 20 else 0

    with caplog.at_level(logging.WARNING):
        fed = labelled(recorded, profile, tiled.api_key, look)
    assert fed.complete
    assert "are not safe" in caplog.text
    send_the_rest(profile, tiled.api_key)  # an end that came before all rows were there is on disk
    assert_same(content(tiled, profile.tiled.container, recorded.raw), recorded.expected)


@pytest.fixture
def frail(tmp_path: Path) -> Generator[EmbeddedTiled]:
    """A server that may be killed."""
    with EmbeddedTiled(tmp_path / "frail") as server:
        yield server


@pytest.mark.parametrize("seed", [40, 41])
def test_a_node_that_is_killed_while_tiled_comes_and_goes_loses_nothing(
    recorded: Recorded, frail: EmbeddedTiled, tmp_path: Path, seed: int
) -> None:
    profile = kill_profile(tmp_path, frail, "processed/frail")
    path = write_profile(profile, tmp_path / "kills.yml")
    command = ["replay", str(recorded.file), "--pace", pace(recorded), "--profile", path]
    there = seed % 2 == 1
    if not there:
        frail.kill()
    with doomed(command, profile, tmp_path, frail.api_key) as node:
        for moment in moments(seed, 4, recorded.duration):
            node.start()
            if not node.kill_at(moment, "replaying") or node.done:
                break
            there = not there
            if there:
                frail.start()
            else:
                frail.kill()
        frail.start()
        assert node.end_anew() == 0
    assert node.kills >= 3
    assert max(node.resumed_from) > 0
    send_the_rest(profile, frail.api_key)
    assert_same(content(frail, profile.tiled.container, recorded.raw), recorded.expected)
    assert_nothing_left(profile, [recorded.raw])


def test_a_node_that_is_told_to_end_leaves_the_open_run_to_the_next_one(
    recorded: Recorded, tiled: EmbeddedTiled, tmp_path: Path
) -> None:
    profile = kill_profile(tmp_path, tiled, "outages/told")
    path = write_profile(profile, tmp_path / "kills.yml")
    command = ["replay", str(recorded.file), "--pace", pace(recorded), "--profile", path]
    with doomed(command, profile, tmp_path, tiled.api_key) as node:
        node.start()
        wait_until(lambda: "frame 7" in node.said, "something was labelled")
        assert node.kill(signal.SIGTERM) == 1
        assert "broken off: start the same command again" in node.said
        assert "Traceback" not in node.said
        assert any(profile.spool.runs.glob("*/run.json"))
        node.start()
        assert node.end() == 0
        (first,) = node.resumed_from
        assert first > 7
    assert_same(content(tiled, profile.tiled.container, recorded.raw), recorded.expected)
    assert_nothing_left(profile, [recorded.raw])
