"""Masks of a scan made again: RunEngine, file of a detector, node in its own process, Tiled."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bluesky.run_engine import RunEngine
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, init_devices
from tiled.queries import Key
from typer.testing import CliRunner

from ptychoseg_stream.assemble import attach_to
from ptychoseg_stream.cli import app
from ptychoseg_stream.profile import Profile
from ptychoseg_stream.sim import Scan
from ptychoseg_stream.sim.detectors import PlayedDetector, PlayedHDF5Detector
from ptychoseg_stream.sim.plans import take_frames
from ptychoseg_stream.sinks.embedded import EmbeddedTiled


def scanned(engine: RunEngine, plan: Any, profile: Profile, tiled: EmbeddedTiled) -> Any:
    """Run a plan with a node attached; return uid of the raw run, address and table of the masks.

    The server still has what the attachment wrote.
    """
    attachment = attach_to(profile, tiled.api_key)
    try:
        engine.subscribe(attachment)
        (uid,) = engine(plan)
        assert attachment.wait(120)
        address = attachment.vitals().derived
    finally:
        attachment.close()
    runs: Any = tiled.client()[profile.tiled.container]
    (run,) = runs.search(Key("start.original_run_uid") == uid).values()
    return uid, address, run["primary"].base["internal"].read()


def reproduced(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["reproduce", *map(str, arguments)])


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["inline", "background"])
def test_masks_of_a_scan_are_made_again_bit_by_bit(
    trainer: Any,
    engine: RunEngine,
    scan: Scan,
    profile: Profile,
    tiled: EmbeddedTiled,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TILED_API_KEY", tiled.api_key)
    frames = scan.frames.astype(np.float32)
    frames[4] = np.nan
    with init_devices():
        folder = StaticPathProvider(UUIDFilenameProvider(), tmp_path / "raw")
        detector = PlayedHDF5Detector(frames, folder, name="det", exposure=0.05)
    (tmp_path / "raw").mkdir()
    kept = replace(profile, trainer=trainer, cache=str(tmp_path / "cache"))
    uid, address, table = scanned(engine, take_frames(detector, len(frames)), kept, tiled)
    assert table["status"][4] == "refused"

    last = len(frames) - 1
    result = reproduced(address, "--row", last)
    assert result.exit_code == 0, result.output
    assert "identical" in result.output
    assert "note: " not in result.output

    named = tmp_path / "server.yml"
    named.write_text(yaml.safe_dump({"tiled": {"uri": tiled.uri}}))
    result = reproduced(uid, "--profile", named, "--row", last, "--retrain")
    assert result.exit_code == 0, result.output
    if table["student_hash"][last]:
        assert "learned again" in result.output
    assert "note: " not in result.output


@pytest.mark.slow
def test_masks_of_frames_that_came_in_events_are_made_again_from_a_file(
    engine: RunEngine,
    scan: Scan,
    profile: Profile,
    tiled: EmbeddedTiled,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The demo keeps nothing between runs: centroids and students are made again, too."""
    monkeypatch.setenv("TILED_API_KEY", tiled.api_key)
    plan = take_frames(PlayedDetector(scan.frames, name="det"), 8)
    _, address, _ = scanned(engine, plan, profile, tiled)
    result = reproduced(address, "--row", 7, "--cache", tmp_path / "nothing")
    assert result.exit_code == 2
    assert "--frames" in result.output
    np.save(tmp_path / "raw.npy", scan.frames[:8])
    frames = ("--frames", tmp_path / "raw.npy", "--cache", tmp_path / "nothing")
    result = reproduced(address, "--row", 7, *frames)
    assert result.exit_code == 0, result.output
    assert "learned again" in result.output
