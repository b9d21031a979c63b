"""A run that ends the process that goes on with it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from dying_node import DEADLY
from ptychoseg_callbacks.journals.attempts import MOST_DEATHS

HERE = Path(__file__).parent


def life(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "dying_node.py"), str(folder), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_run_that_kills_the_node_is_left_aside_in_the_end_and_costs_no_other(
    tmp_path: Path,
) -> None:
    assert life(tmp_path, "first").returncode == -signal.SIGABRT
    assert life(tmp_path).returncode == -signal.SIGABRT
    (place,) = (tmp_path / "runs").glob("*/attempts.at")
    died_at, attempts = int(place.read_text()), place.with_name("attempts")
    attempts.write_text(f"{MOST_DEATHS - 2} {died_at}")  # the lives between are all the same
    assert life(tmp_path).returncode == -signal.SIGABRT

    last = life(tmp_path)
    assert last.returncode == 0, last.stderr
    assert json.loads(last.stdout) == {"harmless": [0, 1, 2]}
    assert last.stderr.count("ERROR") == 1
    assert "run deadly is left aside" in last.stderr
    assert f"each of the last {MOST_DEATHS} times" in last.stderr
    assert f"remove {attempts} and start the node again" in last.stderr
    assert str(DEADLY) not in last.stdout

    attempts.unlink()
    assert life(tmp_path).returncode == -signal.SIGABRT
