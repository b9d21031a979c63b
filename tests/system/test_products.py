"""From a scan to what it says as a whole, to a file, and to an image of the sample."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bluesky.run_engine import RunEngine
from tiled.queries import Key

from ptychoseg_stream.assemble import attach_to
from ptychoseg_stream.cli import app
from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.node.trainer import InlineTrainer
from ptychoseg_stream.profile import Profile
from ptychoseg_stream.science.frame import Frame
from ptychoseg_stream.sim import Scan
from ptychoseg_stream.sim.detectors import PlayedDetector
from ptychoseg_stream.sim.plans import ptycho_scan, sample_stage
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.tiled_products import read_products

GEOMETRY = {"detector_distance_m": 0.168, "detector_pixel_size_m": [180e-6, 180e-6]}


@pytest.fixture
def measured(engine: RunEngine, scan: Scan, profile: Profile, tiled: EmbeddedTiled) -> Any:
    """The derived run of a scan whose start document says all."""
    x, y = sample_stage()
    detector = PlayedDetector(scan.frames, name="det")
    plan = ptycho_scan(detector, x, y, scan.positions, energy=scan.energy_eV, md=GEOMETRY)
    attachment = attach_to(profile, tiled.api_key)
    try:
        engine.subscribe(attachment)
        (uid,) = engine(plan)
        assert attachment.wait(120)
        assert attachment.vitals().fault == ""
    finally:
        attachment.close()
    runs: Any = tiled.client()[profile.tiled.container]
    return runs.search(Key("start.original_run_uid") == uid).values().first()


def offline(scan: Scan, profile: Profile) -> Any:
    options = profile.node
    node = Node(
        options, lambda: InlineTrainer(options.student, promotion=options.promotion), MemoryStore()
    )
    node.open("run")
    node.process([Frame("run", i, f, f.shape) for i, f in enumerate(scan.frames)])
    return node.products("run")


def test_a_scan_says_as_a_whole_what_its_frames_say_offline(
    measured: Any, scan: Scan, profile: Profile, tiled: EmbeddedTiled
) -> None:
    found, expected = read_products(measured), offline(scan, profile)
    assert found is not None
    assert found.final
    for name in ("pixel_mask", "background", "background_samples", "pupil", "mean", "sums"):
        one, other = getattr(found.of_frames, name), getattr(expected, name)
        assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), name
    assert np.allclose(found.positions, scan.positions, atol=1e-15)
    assert found.experiment == scan.experiment
    uid = str(measured.metadata["start"]["uid"])
    beside: Any = tiled.client()[f"{profile.tiled.container}_products"][uid]
    about = beside.metadata
    assert about["original_run_uid"] == measured.metadata["start"]["original_run_uid"]
    shape = about["map_rows"], about["map_columns"]
    assert np.asarray(beside["scan_map"].read()).shape[1:] == shape


@pytest.mark.slow
def test_a_run_is_exported_and_reconstructed_by_two_commands(
    measured: Any, profile: Profile, tiled: EmbeddedTiled, tmp_path: Path, monkeypatch: Any
) -> None:
    pytest.importorskip("cdtools")
    from typer.testing import CliRunner

    monkeypatch.setenv(profile.tiled.api_key_env, tiled.api_key)
    settings = tmp_path / "p.yml"
    settings.write_text(yaml.safe_dump({"tiled": {"uri": tiled.uri}}))
    uid = str(measured.metadata["start"]["uid"])
    address = f"{tiled.uri}/{profile.tiled.container}/{uid}"
    target, picture = tmp_path / "scan.cxi", tmp_path / "object.png"
    frames = tmp_path / "frames.npy"
    np.save(frames, np.zeros(0))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "--profile", str(settings)])
        assert result.exit_code == 0, result.output
        return result.output

    with pytest.raises(AssertionError, match="--frames"):  # they came in events
        run("export", address, "-o", str(target))
    np.save(frames, measured_frames(measured))
    run("export", address, "-o", str(target), "--frames", str(frames))
    said = run("reconstruct", "--file", str(target), "--epochs", "2", "-o", str(picture))
    assert "epoch" in said
    assert picture.stat().st_size > 10_000


def measured_frames(run: Any) -> Any:
    """Frames of the size of the run's masks; what they show does not matter here."""
    shape = run["primary"].base["mask"].shape
    return np.random.default_rng(0).poisson(3.0, shape).astype(np.uint16)
