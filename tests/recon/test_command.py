"""`ptychoseg reconstruct`, and what it says without the extra."""

import subprocess
import sys
from pathlib import Path

import pytest
from recon_support import Small
from test_files import write
from typer.testing import CliRunner

from ptychoseg_stream.cli import app
from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.reconstruction import (
    ReconstructArguments,
    run_live,
    run_reconstruction,
    server_of,
)

WITHOUT = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "cdtools":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
from ptychoseg_stream.cli import start
start(["reconstruct", "--file", "run.cxi"])
"""


def test_without_the_extra_it_says_what_to_run(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "ptychoseg: reconstruction needs cdtools-py; run: pip install 'ptychoseg_stream[recon]'\n"
    )


def test_a_file_is_reconstructed_and_drawn(small: Small, tmp_path: Path) -> None:
    path, picture = write(tmp_path / "run.cxi", small), tmp_path / "object.png"
    arguments = ["reconstruct", "--file", str(path), "-o", str(picture), "--epochs", "2"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert picture.stat().st_size > 10000


def test_it_wants_a_feed_or_a_file() -> None:
    for arguments in (
        ReconstructArguments(),
        ReconstructArguments("zmq://127.0.0.1:1", Path("a.cxi")),
    ):
        with pytest.raises(DatasetError, match="either --follow ADDRESS or --file"):
            run_reconstruction(arguments)


def test_a_live_run_is_told_drawn_and_what_is_not_stored_is_said(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yml").write_text("tiled:\n  uri: http://127.0.0.1:9\n")
    arguments = ReconstructArguments(
        "any", output=tmp_path / "o.png", epochs=1, profile=str(tmp_path / "p.yml")
    )
    assert not run_live(arguments, lambda *_, **__: small.items())
    told = capsys.readouterr().out
    assert f"frames {len(small.frames)} of {len(small.frames)}/{len(small.frames)}" in told
    assert "not in Tiled: Tiled at http://127.0.0.1:9 cannot be reached" in " ".join(told.split())
    assert (tmp_path / "o.png").is_file()


def test_the_server_of_an_address_is_what_stands_before_its_path() -> None:
    assert server_of("http://host:8000/api/v1/metadata/a/b") == "http://host:8000"
    assert server_of("") == ""
