"""What a newcomer types, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from bluesky.run_engine import RunEngine
from ptychoseg_stream.sim import GoldBalls, simulate
from ptychoseg_stream.sim.detectors import PlayedDetector
from ptychoseg_stream.sim.plans import take_frames

RE = RunEngine({})
detector = PlayedDetector(simulate(GoldBalls(n_frames=3)).frames, name="detector")

from ptychoseg_stream import attach
RE.subscribe(attach("demo"))

RE(take_frames(detector, 3))
"""


@pytest.mark.slow
def test_the_demo_prints_a_table_and_draws_its_report_and_can_be_verified(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ptychoseg_stream"]
    demo = [*command, "demo", "--count", "22", "--exposure", "0"]
    done = subprocess.run(demo, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    for word in (
        "teacher",
        "student",
        "fused",
        "Otsu",
        "constant mask",
        "EmbeddedTiled",
        "report.png",
    ):
        assert word in done.stdout
    assert (tmp_path / "demo-output" / "report.png").stat().st_size > 50_000
    assert "'written': 22" in done.stdout

    again = [*command, "reproduce", "demo-output", "--row", "21"]
    done = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "valid_bits  identical" in done.stdout


@pytest.mark.slow
def test_three_lines_attach_a_node_and_python_waits_for_its_masks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "embedded Tiled" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_refuses_a_file_that_is_not_there_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ptychoseg_stream", "demo", "--frames", "nothing.h5:/frames"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("ptychoseg: nothing.h5: no such file")
    assert "Traceback" not in done.stderr
