"""What a command ends with tells a supervisor whether to start it again."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from bluesky_tiled_plugins import TiledWriter
from endings_support import detector_of, points
from faulty_proxy import FaultyProxy
from ptychoseg_callbacks.journals.folder import Journals
from typer.testing import CliRunner
from ways_support import Recorder, run_engine

from ptychoseg_stream.cli import app, reports_errors
from ptychoseg_stream.errors import ProfileError, SourceError, SourceLost
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.sinks.embedded import EmbeddedTiled


@pytest.mark.parametrize(("error", "code"), [(ProfileError, 2), (SourceError, 2), (SourceLost, 1)])
def test_bad_input_is_2_and_a_source_that_was_lost_is_1(
    error: type[SourceError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @reports_errors
    def command() -> None:
        raise error("this is why")

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == code
    assert "this is why" in capsys.readouterr().err


@pytest.fixture
def proxy(tiled: EmbeddedTiled, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    monkeypatch.setenv("TILED_API_KEY", tiled.api_key)
    with FaultyProxy(tiled.uri) as proxy:
        yield proxy


@pytest.fixture
def command(tiled: EmbeddedTiled, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    settings = {
        "name": "codes",
        "tiled": {"uri": tiled.uri, "container": f"processed/{tmp_path.name}"},
        "spool": {"folder": str(tmp_path / "spool"), "min_free_bytes": 0},
        "sources": {"tiled": {"poll_seconds": 0.1, "websocket": False, "since": "1h"}},
    }
    profile = tmp_path / "codes.yml"
    profile.write_text(yaml.safe_dump(settings))

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*arguments, "--profile", str(profile)])
        assert "Traceback" not in result.output
        return result.exit_code, result.output

    return run


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    path = tmp_path / "frames.npy"
    np.save(path, np.random.default_rng(5).poisson(20.0, (5, 64, 64)).astype(np.uint16))
    return path


def test_where_masks_go_is_said_first_and_a_replay_whose_masks_are_there_ends_with_0(
    tiled: EmbeddedTiled,
    command: Callable[..., tuple[int, str]],
    proxy: FaultyProxy,
    frames: Path,
    tmp_path: Path,
) -> None:
    code, output = command("replay", str(frames))
    assert code == 0, output
    where = f"{tiled.uri}/processed/{tmp_path.name}"
    assert output.startswith(f"profile codes: masks go to {where}\n")
    assert "waits" not in output


def test_a_replay_whose_masks_wait_for_tiled_says_so_and_ends_with_1(
    command: Callable[..., tuple[int, str]], frames: Path, tmp_path: Path, tiled: EmbeddedTiled
) -> None:
    profile = tmp_path / "codes.yml"
    wrong = profile.read_text().replace(tiled.uri, "http://127.0.0.1:9")
    profile.write_text(wrong)
    code, output = command("replay", str(frames))
    assert code == 1, output
    last = output.splitlines()[-1]
    assert last.startswith(f"1 run (5 rows) waits in {tmp_path / 'spool' / 'masks'} for Tiled")
    assert last.endswith(f"then `ptychoseg upload --profile {profile}`")
    # A node that is told to end has done all it can: they are safe.
    code, output = command("run", "--source", "zmq://127.0.0.1:9", "--seconds", "0.2")
    assert code == 0, output
    assert output.splitlines()[-1] == last


def test_a_replay_of_a_damaged_file_labels_the_rest_and_ends_with_1(
    command: Callable[..., tuple[int, str]], proxy: FaultyProxy, tmp_path: Path
) -> None:
    lines = [json.dumps(each, default=np.ndarray.tolist) for each in documents_of_a_scan(tmp_path)]
    path = tmp_path / "damaged.jsonl"
    path.write_text("\n".join([*lines[:3], lines[3][:20], *lines[4:]]) + "\n")
    code, output = command("replay", str(path))
    assert code == 1, output
    assert f"1 record was left out: {path}" in output


def test_another_node_of_the_same_name_is_told_at_start(
    command: Callable[..., tuple[int, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = SpoolOptions(str(tmp_path / "spool"), min_free_bytes=0)
    journal = Journals(spool, owner="codes").create("raw")
    assert journal is not None
    told = "another node with the name codes works on this machine"
    listening = ("run", "--source", "zmq://127.0.0.1:9", "--seconds", "0.2")
    assert command(*listening)[0] == 0
    assert told in caplog.text
    journal.finish()
    caplog.clear()
    assert command(*listening)[0] == 0
    assert told not in caplog.text


def documents_of_a_scan(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    recorder = Recorder()
    with run_engine() as engine:
        engine.subscribe(recorder)
        engine(points(detector_of("inline", folder), 3))
    return recorder.documents


def scanned(tiled: EmbeddedTiled, folder: Path, count: int) -> tuple[str, list[str]]:
    """Take scans into a container of their own; return its name, and the uids."""
    root: Any = tiled.client()
    container = root.create_container(f"raw-{folder.name}")
    with run_engine() as engine:
        engine.subscribe(TiledWriter(container, batch_size=1))
        taken = [engine(points(detector_of("inline", folder), 3)) for _ in range(count)]
    uids = [str(uid) for (uid,) in taken]
    return container.item["id"], uids


def test_a_node_whose_key_is_refused_at_start_ends_with_2(
    proxy: FaultyProxy, command: Callable[..., tuple[int, str]]
) -> None:
    proxy.status = 401
    address = proxy.uri.replace("http", "tiled", 1) + "/raw"
    code, output = command("run", "--source", address, "--seconds", "60")
    assert code == 2
    assert "set TILED_API_KEY" in output


@pytest.mark.slow
def test_a_node_that_is_refused_later_goes_on_until_it_is_told_to_end(
    proxy: FaultyProxy,
    tiled: EmbeddedTiled,
    command: Callable[..., tuple[int, str]],
    tmp_path: Path,
) -> None:
    name, _ = scanned(tiled, tmp_path, 1)
    asked: list[str] = []

    def later(method: str, path: str) -> bool:
        asked.append(path)
        return len(asked) > 3

    proxy.chosen, proxy.status = later, 404
    address = proxy.uri.replace("http", "tiled", 1) + f"/{name}"
    code, output = command("run", "--source", address, "--seconds", "8")
    assert code == 0, output
    assert len(asked) > 10


@pytest.mark.slow
def test_a_replay_that_had_to_leave_out_a_run_labels_the_others_and_ends_with_1(
    proxy: FaultyProxy,
    tiled: EmbeddedTiled,
    command: Callable[..., tuple[int, str]],
    tmp_path: Path,
) -> None:
    name, uids = scanned(tiled, tmp_path, 2)
    lock, failed = threading.Lock(), list[str]()

    def first(method: str, path: str) -> bool:
        with lock:
            failed.extend([path] if f"/{uids[0]}" in path else [])
        return f"/{uids[0]}" in path

    proxy.chosen, proxy.status = first, 500
    address = proxy.uri.replace("http", "tiled", 1) + f"/{name}"
    code, output = command("replay", address)
    assert code == 1, output
    assert len(failed) == 5  # so often it is asked
    assert f"not replayed: run {uids[0]}" in output
    derived: Any = tiled.client()["processed"][tmp_path.name]
    runs = [run.metadata["start"]["original_run_uid"] for run in derived.values()]
    assert runs == [uids[1]]
    assert derived.values().first().metadata["stop"]["account"]["received"] == 3
