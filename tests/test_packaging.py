"""What is installed is what was meant to be installed."""

import re
import subprocess
import sys
from importlib.metadata import distribution, entry_points, requires
from pathlib import Path

import ptychoseg_stream

ROOT = Path(__file__).parents[1]


def test_version_of_the_distribution_is_that_of_the_package():
    assert distribution("ptychoseg-stream").version == ptychoseg_stream.__version__


def test_command_is_installed():
    (command,) = entry_points(group="console_scripts", name="ptychoseg")
    assert command.value == "ptychoseg_stream.cli:app"


def test_packages_of_the_seed_are_dependencies():
    needed = {
        line.split(">")[0].split("[")[0].strip() for line in requires("ptychoseg-stream") or []
    }
    assert needed >= {
        "bluesky", "h5py", "minisom", "numpy", "ophyd", "pyzmq", "scikit-learn", "tiled", "torch",
    }  # fmt: skip


def test_every_tested_version_is_pinned():
    pinned = {
        line.split("==")[0].strip().lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    needed = {
        re.split(r"[<>=\[; ]", line)[0].lower() for line in requires("ptychoseg-stream") or []
    }
    assert needed <= pinned


def test_package_and_its_command_start_without_the_heavy_libraries():
    """`--help` answers at once, and a profile can be named before torch is loaded."""
    code = (
        "import sys, ptychoseg_stream, ptychoseg_stream.cli\n"
        "heavy = {'torch', 'tiled', 'sklearn', 'matplotlib', 'bluesky'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_unknown_names_of_the_package_are_attribute_errors():
    assert ptychoseg_stream.__all__ == ["attach"]
    assert not hasattr(ptychoseg_stream, "attack")
