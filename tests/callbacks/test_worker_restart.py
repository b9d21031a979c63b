"""A child process that dies costs nothing: the next one goes on with what was written down."""

import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky.run_engine import RunEngine
from callbacks_support import InlineDetector
from callbacks_targets import counted, documents
from ptychoseg_callbacks.ingress import Ingress
from ptychoseg_callbacks.workers.process import ProcessWorker
from ptychoseg_callbacks.workers.unacknowledged import Unacknowledged
from ptychoseg_callbacks.workers.worker import WorkerOptions

HERE = Path(__file__).parent
CHILD = [sys.executable, "-m", "counting_child"]
IMAGE = 12 * 16 * 2

Start = Callable[..., ProcessWorker]


@pytest.fixture
def start(tmp_path: Path, RE: RunEngine) -> Iterator[Start]:
    """Attach a worker with journals, and a target that counts, to the RunEngine."""
    opened: list[tuple[Ingress, ProcessWorker]] = []

    def start(options: WorkerOptions | None = None, **setup: Any) -> ProcessWorker:
        spool = {"folder": str(tmp_path / "spool"), "min_free_bytes": 0}
        setup = {"folder": str(tmp_path), "spool": spool, **setup}
        worker = ProcessWorker(CHILD, setup, {"PYTHONPATH": str(HERE)}, options, resumes=True)
        opened.append((Ingress(worker), worker))
        RE.subscribe(opened[-1][0])
        return worker

    yield start
    (tmp_path / "hold").unlink(missing_ok=True)
    for ingress, worker in opened:
        ingress.close(20.0)
        assert worker.pid is None


def wait_until(condition: Callable[[], Any], what: str) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail(f"waited in vain until {what}")


def kill(worker: ProcessWorker, number: int = signal.SIGKILL) -> int:
    pid = worker.pid
    assert pid is not None
    with contextlib.suppress(ProcessLookupError):  # it may have been killed just before
        os.kill(pid, number)
    return pid


def journals(folder: Path) -> list[Path]:
    """Return the journals; one whose name begins with a dot was being made when a child died."""
    found = (folder / "spool" / "runs").glob("*/run.json")
    return [path for path in found if not path.parent.name.startswith(".")]


@pytest.mark.parametrize("point", [1, 19])
@pytest.mark.parametrize("ready", [False, True])
def test_child_killed_in_mid_scan_costs_nothing(
    RE: RunEngine, start: Start, tmp_path: Path, point: int, ready: bool
) -> None:
    worker = start()
    if ready:
        wait_until(lambda: (tmp_path / "pid").exists(), "the child is there")

    def plan() -> Iterator[Any]:
        detector = InlineDetector()
        for n in range(20):
            if n == point:
                kill(worker)
            yield from bps.trigger_and_read([detector])

    result = RE(bpp.run_wrapper(plan()))
    assert result.exit_status == "success"
    assert worker.drain(60.0)
    (run,) = counted(tmp_path)
    assert run["raw"] == result.run_start_uids[0]
    assert run["marks"] == list(range(20))
    assert run["end"] == "success"
    assert worker.lost == 0
    assert worker.unacknowledged == (0, 0)
    assert journals(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_children_killed_at_random_moments_cost_nothing(
    RE: RunEngine, start: Start, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    worker = start(overload={"memory_bytes": chance.choice([1, 5 * IMAGE, 1 << 28])})
    kills = sorted(chance.sample(range(60), 3))

    def plan(frames: range) -> Iterator[Any]:
        detector = InlineDetector()
        for n in frames:
            if n in kills:
                time.sleep(chance.choice([0.0, 0.3, 0.8]))  # before, while, after it starts
                wait_until(lambda: worker.pid is not None, "there is a child")
                kill(worker)
            yield from bps.trigger_and_read([detector])

    uids = [RE(bpp.run_wrapper(plan(range(n, n + 30)))).run_start_uids[0] for n in (0, 30)]
    assert worker.drain(60.0)
    runs = counted(tmp_path)
    assert sorted(run["raw"] for run in runs) == sorted(uids)
    assert [run["marks"] for run in runs] == [list(range(30))] * 2
    assert worker.lost == 0
    assert journals(tmp_path) == []


@pytest.mark.parametrize("call", [0, 5, 11])
def test_child_that_dies_while_it_labels_begins_the_run_again(
    RE: RunEngine, start: Start, tmp_path: Path, call: int
) -> None:
    worker = start(die_at=call)
    RE(bp.count([InlineDetector()], 12))
    assert worker.drain(60.0)
    (run,) = counted(tmp_path)
    assert run["marks"] == list(range(12))
    assert run["resumed"]
    assert (tmp_path / "died").exists()
    assert "another one goes on" in worker.vitals().fault


def test_runs_that_were_stored_before_the_death_are_not_processed_again(
    RE: RunEngine, start: Start, tmp_path: Path
) -> None:
    worker = start()
    RE(bp.count([InlineDetector()], 3))
    assert worker.drain(60.0)
    (tmp_path / "hold").touch()
    RE(bp.count([InlineDetector()], 4))
    wait_until(lambda: worker.unacknowledged == (0, 0), "the child has written all down")
    dead = kill(worker)
    wait_until(lambda: worker.pid not in (None, dead), "there is a new child")
    RE(bp.count([InlineDetector()], 5))
    (tmp_path / "hold").unlink()
    assert worker.drain(60.0)
    assert sorted(len(run["marks"]) for run in counted(tmp_path)) == [3, 4, 5]
    assert worker.vitals().backlog == 0


def test_run_engine_never_waits_for_a_child_that_labels_nothing(
    RE: RunEngine, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "hold").touch()
    worker = start(overload={"memory_bytes": 10 * IMAGE})
    RE(bp.count([InlineDetector()], 200))  # returns although not one frame is labelled
    assert counted(tmp_path) == []
    wait_until(lambda: worker.unacknowledged == (0, 0), "the child has taken all documents")
    assert worker.vitals().backlog > 200
    assert not worker.drain(0.01)
    (tmp_path / "hold").unlink()
    assert worker.drain(60.0)
    (run,) = counted(tmp_path)
    assert run["marks"] == list(range(200))  # what did not fit into memory was on disk
    assert worker.vitals().backlog == 0


def test_memory_of_the_run_engine_is_bounded_when_the_child_takes_nothing(
    RE: RunEngine, start: Start, tmp_path: Path
) -> None:
    worker = start(WorkerOptions(max_bytes=20 * IMAGE))
    wait_until(lambda: (tmp_path / "pid").exists(), "the child is there")
    kill(worker, signal.SIGSTOP)
    RE(bp.count([InlineDetector()], 100))
    documents, size = worker.unacknowledged
    assert documents > 95
    assert size < 20 * IMAGE + 100 * 1000  # notes instead of images
    kill(worker, signal.SIGCONT)
    assert worker.drain(60.0)
    (run,) = counted(tmp_path)
    assert len(run["marks"]) == 100
    assert run["marks"][0] == 0
    assert "memory limit" in run["marks"][-1]
    assert worker.lost == 0


def test_wait_goes_on_over_the_death_of_a_child(
    RE: RunEngine, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "hold").touch()
    worker = start()
    ticket: list[bool] = []
    RE(bp.count([InlineDetector()], 5))
    waiter = Thread(target=lambda: ticket.append(worker.drain(60.0)))
    waiter.start()
    wait_until(lambda: (tmp_path / "pid").exists(), "the child is there")
    kill(worker)
    (tmp_path / "hold").unlink()
    waiter.join(60)
    assert ticket == [True]
    assert len(counted(tmp_path)) == 1


def test_next_node_goes_on_with_what_a_closed_one_could_not_label(
    RE: RunEngine, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "hold").touch()
    worker = start()
    RE(bp.count([InlineDetector()], 6))
    wait_until(lambda: worker.unacknowledged == (0, 0), "the child has written all down")
    worker.close(0.1)  # it does not end, and is killed
    assert counted(tmp_path) == []
    (tmp_path / "hold").unlink()
    assert start().drain(60.0)
    (run,) = counted(tmp_path)
    assert (run["marks"], run["resumed"]) == (list(range(6)), True)


def test_child_empties_its_socket_while_it_reads_what_an_earlier_one_has_left(
    RE: RunEngine, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "hold").touch()
    first = start()
    RE(bp.count([InlineDetector()], 4))
    wait_until(lambda: first.unacknowledged == (0, 0), "the child has written all down")
    first.close(0.1)  # it does not end, and is killed
    (tmp_path / "hold").unlink()
    (tmp_path / "reading").touch()
    worker = start(WorkerOptions(max_bytes=30 * IMAGE))
    for n in range(6):
        RE(bp.count([InlineDetector()], 10))
        wait_until(lambda: worker.unacknowledged == (0, 0), f"the child has taken run {n}")
    assert counted(tmp_path) == []
    assert worker.vitals().backlog == 6 * 13
    kill(worker)
    wait_until(lambda: worker.pid is not None, "there is a new child")
    (tmp_path / "reading").unlink()
    assert worker.drain(60.0)
    runs = counted(tmp_path)
    assert sorted(len(run["marks"]) for run in runs) == [4, *[10] * 6]
    assert all(run["marks"] == list(range(len(run["marks"]))) for run in runs)
    assert worker.lost == 0
    assert journals(tmp_path) == []


_DIES = "import sys, pathlib; open(sys.argv[1], 'a').write('x'); sys.exit(3)"


def test_child_that_dies_at_once_is_not_started_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    births = tmp_path / "births"
    worker = ProcessWorker(
        [sys.executable, "-S", "-c", _DIES, str(births)],
        {},
        monotonic=lambda: now[0],
        resumes=True,
    )

    def born() -> int:
        return len(births.read_text()) if births.exists() else 0

    def given_up(times: int) -> bool:
        return caplog.text.count("the next run starts a new worker process") == times

    wait_until(lambda: given_up(1), "the worker gives up")
    assert born() == 6
    assert not worker.drain(1.0)
    docs = documents("a", 2)
    worker.submit(*docs[0])
    wait_until(lambda: given_up(2), "the worker gives up again")
    assert born() == 7
    worker.submit(*docs[1])
    assert worker.unacknowledged[0] == 2  # kept for a child that lives
    now[0] = 100.0
    worker.submit(*documents("b", 0)[0])
    wait_until(lambda: given_up(3), "the worker gives up once more")
    assert born() == 13
    worker.close(20.0)


def test_folder_of_the_sockets_of_a_dead_child_is_removed(
    RE: RunEngine, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        worker = start()
        dead = kill(worker)
        wait_until(lambda: worker.pid not in (None, dead), "there is a new child")
        assert len(list(Path(short).iterdir())) == 1
        worker.close(20.0)
        assert list(Path(short).iterdir()) == []


def test_messages_are_kept_until_they_are_acknowledged_and_no_longer() -> None:
    kept = Unacknowledged(1 << 20)
    for number in range(1, 6):
        assert kept.add(number, b"x" * 100)
    kept.acknowledge(3)
    assert [number for number, _ in kept.after(0)] == [4, 5]
    assert [number for number, _ in kept.after(4)] == [5]
    kept.acknowledge(9)
    assert (len(kept), kept.size) == (0, 0)


def test_whole_documents_are_refused_when_even_notes_are_too_many() -> None:
    kept = Unacknowledged(1000)
    number = 0
    while kept.add(number, b"x" * 10_000):
        number += 1
    assert 100 < number < 110
    assert kept.clear() == number
    assert kept.add(0, b"")
