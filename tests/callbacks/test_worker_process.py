"""The worker in a process of its own, from end to end."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky.run_engine import RunEngine
from callbacks_support import InlineDetector, StreamDetector, fly
from ptychoseg_callbacks.ingress import Ingress
from ptychoseg_callbacks.workers.process import ProcessWorker
from ptychoseg_callbacks.workers.worker import WorkerOptions

from ptychoseg_stream.errors import PtychosegError

HERE = Path(__file__).parent
CHILD = [sys.executable, "-m", "callbacks_child"]
ENV = {"PYTHONPATH": str(HERE)}


@pytest.fixture
def start(tmp_path: Path, RE: RunEngine) -> Iterator[Callable[..., ProcessWorker]]:
    """Attach a worker to the RunEngine."""
    opened: list[tuple[Ingress, ProcessWorker]] = []

    def start(options: WorkerOptions | None = None, **setup: Any) -> ProcessWorker:
        worker = ProcessWorker(CHILD, {"folder": str(tmp_path), **setup}, ENV, options)
        opened.append((Ingress(worker), worker))
        RE.subscribe(opened[-1][0])
        return worker

    yield start
    (tmp_path / "hold").unlink(missing_ok=True)
    for ingress, worker in opened:
        ingress.close(20.0)
        assert worker.pid is None


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket, as that of `tmp_path` is not."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def stored(folder: Path, uid: str) -> Any:
    return json.loads((folder / f"{uid}.json").read_text())


def wait_until(condition: Callable[[], Any], what: str) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail(f"waited in vain until {what}")


def is_running(pid: int) -> bool:
    """Whether a process does anything; a zombie does not."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_masks_of_all_flavours_are_those_of_their_frames(
    RE: RunEngine, start: Callable[..., ProcessWorker], tmp_path: Path
) -> None:
    worker = start()
    plans = [
        bp.count([InlineDetector(per_event=2)], 10),
        bp.count([StreamDetector(tmp_path)], 20),
        fly(StreamDetector(tmp_path), [7, 13]),
    ]
    uids = [RE(plan).run_start_uids[0] for plan in plans]
    assert worker.drain(20.0)
    for uid in uids:
        assert stored(tmp_path, uid)["rows"] == [[n, n, "ok", ""] for n in range(20)]
    vitals = worker.vitals()
    assert (vitals.run, vitals.received, vitals.written) == (uids[-1], 20, 20)
    assert (vitals.backlog, vitals.index, vitals.fault) == (0, 19, "")
    assert worker.lost == 0


def test_scan_ends_while_the_child_still_works_on_its_first_frame(
    RE: RunEngine, start: Callable[..., ProcessWorker], tmp_path: Path
) -> None:
    (tmp_path / "hold").touch()
    worker = start()
    (uid,) = RE(bp.count([InlineDetector()], 30)).run_start_uids
    assert not worker.drain(0.01)
    assert worker.vitals().backlog > 20
    (tmp_path / "hold").unlink()
    assert worker.drain(20.0)
    assert stored(tmp_path, uid)["rows"] == [[n, n, "ok", ""] for n in range(30)]
    assert worker.vitals().backlog == 0


def test_images_beyond_the_memory_limit_are_accounted_for_as_lost(
    RE: RunEngine, start: Callable[..., ProcessWorker], tmp_path: Path
) -> None:
    worker = start(WorkerOptions(max_bytes=20 * 12 * 16 * 2))
    wait_until(lambda: (tmp_path / "pid").exists(), "the child is there")
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    (uid,) = RE(bp.count([InlineDetector()], 40)).run_start_uids
    os.kill(worker.pid, signal.SIGCONT)
    assert worker.drain(20.0)
    rows = stored(tmp_path, uid)["rows"]
    kept = [status for _, _, status, _ in rows].count("ok")
    assert 0 < kept < 20
    assert [status for _, _, status, _ in rows] == ["ok"] * kept + ["lost"] * (40 - kept)
    assert "memory limit" in rows[-1][3]


def test_child_killed_in_mid_run_costs_that_run_only(
    RE: RunEngine,
    start: Callable[..., ProcessWorker],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = start()
    detector = InlineDetector()

    def plan() -> Iterator[Any]:
        for point in range(10):
            yield from bps.trigger_and_read([detector])
            if point == 4:
                assert worker.drain(20.0)
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGKILL)
                wait_until(lambda: worker.pid is None, "the death of the child is noticed")

    result = RE(bpp.run_wrapper(plan()))
    assert result.exit_status == "success"
    assert worker.lost == 6  # five events and the stop document
    assert caplog.text.count("SIGKILL") == 1
    assert "the next run starts a new worker process" in worker.vitals().fault
    assert not worker.drain(20.0)

    (uid,) = RE(bp.count([InlineDetector()], 3)).run_start_uids
    assert worker.drain(20.0)
    assert stored(tmp_path, uid)["rows"] == [[n, n, "ok", ""] for n in range(3)]
    assert worker.vitals().fault == ""


def test_documents_waiting_for_a_child_that_dies_are_lost_and_nobody_waits_for_them(
    RE: RunEngine, start: Callable[..., ProcessWorker], tmp_path: Path
) -> None:
    (tmp_path / "hold").touch()
    worker = start()
    RE(bp.count([InlineDetector()], 30))
    wait_until(lambda: (tmp_path / "pid").exists(), "the child is there")
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGTERM)
    assert not worker.drain(60.0)
    assert worker.lost > 20
    assert worker.vitals().backlog == 0


def test_why_there_is_no_node_is_said_once(
    RE: RunEngine, start: Callable[..., ProcessWorker], caplog: pytest.LogCaptureFixture
) -> None:
    worker = start(broken=True)
    wait_until(lambda: "ended" in caplog.text, "the end of the child is noticed")
    assert "exit code 1: cannot build the node: ValueError: the profile is" in caplog.text
    assert len(caplog.records) == 1
    assert "the profile is broken" in worker.vitals().fault


def test_command_that_does_not_exist_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no_such_program"):
        ProcessWorker([str(tmp_path / "no_such_program")], {})


def test_temporary_folder_too_deep_for_a_socket_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(PtychosegError, match="TMPDIR"):
        ProcessWorker(CHILD, {})
    assert list(deep.iterdir()) == []


def test_sockets_are_in_a_private_folder_that_does_not_outlive_the_worker(
    start: Callable[..., ProcessWorker], short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short_folder))
    worker = start()
    (folder,) = short_folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    worker.close(20.0)
    assert list(short_folder.iterdir()) == []
    with pytest.raises(PtychosegError, match="closed"):
        worker.submit("start", {})


def test_control_c_does_not_reach_the_child(
    RE: RunEngine, start: Callable[..., ProcessWorker], tmp_path: Path
) -> None:
    worker = start()
    wait_until(lambda: (tmp_path / "pid").exists(), "the child is there")
    assert worker.pid is not None
    assert os.getpgid(worker.pid) != os.getpgid(0)
    os.kill(worker.pid, signal.SIGINT)
    (uid,) = RE(bp.count([InlineDetector()], 3)).run_start_uids
    assert worker.drain(20.0)
    assert len(stored(tmp_path, uid)["rows"]) == 3


_PARENT = """
import sys, time
from pathlib import Path
import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.run_engine import RunEngine
from callbacks_support import InlineDetector
from ptychoseg_callbacks.ingress import Ingress
from ptychoseg_callbacks.workers.process import ProcessWorker

def plan(detector):
    for _ in range(5):
        yield from bps.trigger_and_read([detector])
    print(ingress._worker.drain(20.0), flush=True)
    if sys.argv[2] == "killed":
        time.sleep(60)

command = [sys.executable, "-m", "callbacks_child"]
ingress = Ingress(ProcessWorker(command, {"folder": sys.argv[1]}))
RE = RunEngine({})
RE.subscribe(ingress)
(uid,) = RE(bpp.run_wrapper(plan(InlineDetector())))
"""


@pytest.mark.parametrize("end", ["killed", "exits"])
def test_child_ends_with_its_parent_and_leaves_no_run_open(
    tmp_path: Path, short_folder: Path, end: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path), end],
        env={**os.environ, **ENV, "TMPDIR": str(short_folder)},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "True\n"
        child = int((tmp_path / "pid").read_text())
        if end == "killed":
            assert is_running(child)
            parent.kill()
    wait_until(lambda: not is_running(child), "the child has ended")
    assert list(short_folder.glob("ptychoseg-*")) == []  # where the sockets were
    (left,) = tmp_path.glob("*.json")
    told = json.loads(left.read_text())
    assert told["rows"] == [[n, n, "ok", ""] for n in range(5)]
    assert told["exit_status"] == ("fail" if end == "killed" else "success")
