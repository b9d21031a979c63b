"""Recording runs: a real RunEngine writes what a replay gives back."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.plans import count
from bluesky.preprocessors import run_decorator, set_run_key_decorator
from replay_support import asymmetric, documents_of, images_of, names_of, replayed

from ptychoseg_stream.errors import SourceError
from ptychoseg_stream.sim.detectors import PlayedDetector
from ptychoseg_stream.sources.recorded.document_writer import DocumentWriter
from ptychoseg_stream.sources.recorded.replay import open_replay

FRAMES = asymmetric(4)


def played() -> PlayedDetector:
    return PlayedDetector(FRAMES, name="det")


def test_a_run_recorded_by_the_run_engine_is_replayed_bit_by_bit(tmp_path: Path) -> None:
    run_engine, seen = RunEngine({}), []
    run_engine.subscribe(DocumentWriter(tmp_path / "recorded"))
    run_engine.subscribe(lambda name, doc: seen.append((name, doc["uid"])))
    (uid,) = run_engine(count([played()], 4))
    (path,) = (tmp_path / "recorded").iterdir()
    assert path.name.endswith(f"-{uid[:8]}.msgpack")
    fed = replayed(path)
    assert [(name, doc["uid"]) for name, doc in fed] == seen
    assert np.array_equal(images_of(fed), FRAMES)


def test_each_run_gets_a_file_of_its_own(tmp_path: Path) -> None:
    run_engine = RunEngine({})
    run_engine.subscribe(DocumentWriter(tmp_path))
    for _ in range(3):
        run_engine(count([played()], 1))
    assert len(list(tmp_path.iterdir())) == 3
    assert names_of(replayed(tmp_path)) == ["start", "descriptor", "event", "stop"] * 3


def test_runs_that_overlap_share_a_file(tmp_path: Path) -> None:
    @set_run_key_decorator("outer")
    @run_decorator(md={"which": "outer"})
    def outer() -> Any:
        yield from inner()

    @set_run_key_decorator("inner")
    @run_decorator(md={"which": "inner"})
    def inner() -> Any:
        yield from bps.trigger_and_read([played()])

    run_engine = RunEngine({})
    run_engine.subscribe(DocumentWriter(tmp_path))
    run_engine(outer())
    (path,) = tmp_path.iterdir()
    assert names_of(replayed(path)) == ["start", "start", "descriptor", "event", "stop", "stop"]


def test_one_file_may_be_named_for_all_runs(tmp_path: Path) -> None:
    run_engine = RunEngine({})
    writer = DocumentWriter(tmp_path / "all.msgpack")
    run_engine.subscribe(writer)
    for _ in range(2):
        run_engine(count([played()], 1))
    writer.close()
    run_engine(count([played()], 1))  # nobody listens any more, and the scan runs
    assert names_of(replayed(tmp_path / "all.msgpack")).count("start") == 2


def test_a_file_that_is_there_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "all.msgpack").write_bytes(b"precious")
    with pytest.raises(SourceError, match="there is such a file already"):
        DocumentWriter(tmp_path / "all.msgpack")
    (tmp_path / "file").write_bytes(b"precious")
    with pytest.raises(SourceError, match="there is such a file already"):
        DocumentWriter(tmp_path / "file")
    assert (tmp_path / "all.msgpack").read_bytes() == b"precious"


def test_a_run_that_is_recorded_again_gets_another_file(tmp_path: Path) -> None:
    writer = DocumentWriter(tmp_path)
    for _ in range(2):
        writer("start", {"uid": "../../a/run", "time": 0.0})
        writer("stop", {"uid": "s", "run_start": "../../a/run", "time": 1.0})
    assert len(list(tmp_path.iterdir())) == 2
    assert names_of(replayed(tmp_path)) == ["start", "stop"] * 2


def test_what_is_written_is_there_at_once(tmp_path: Path) -> None:
    writer = DocumentWriter(tmp_path)
    writer("start", {"uid": "a", "time": 0.0})
    (path,) = tmp_path.iterdir()
    assert names_of(replayed(path)) == ["start"]
    writer.close()


SCAN_WITH_FULL_DISK = """
import resource, sys
from bluesky import RunEngine
from bluesky.plans import count
from ophyd.sim import det
from ptychoseg_stream.sources.recorded.document_writer import DocumentWriter

resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # writing on fails, as on a full disk
run_engine, stops = RunEngine({}), []
run_engine.subscribe(DocumentWriter(sys.argv[1]))
run_engine.subscribe(lambda name, doc: stops.append(doc["exit_status"]), "stop")
run_engine(count([det], 100))
print(stops)
"""


def test_a_full_disk_costs_neither_the_scan_nor_what_was_recorded(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCAN_WITH_FULL_DISK, str(tmp_path / "recorded")]
    scan = subprocess.run(command, capture_output=True, text=True, check=True)
    assert scan.stdout.strip() == "['success']"
    assert scan.stderr.count("cannot record documents in") == 1
    (path,) = (tmp_path / "recorded").iterdir()
    replay = open_replay(path)
    assert names_of(documents_of(replay))[:3] == ["start", "descriptor", "event"]
    assert replay.left_out == 0  # no half record at its end


class Unspeakable:
    def __str__(self) -> str:
        raise ZeroDivisionError("no words")


def test_a_document_that_cannot_be_written_is_left_out_and_the_next_run_is_recorded(
    tmp_path: Path, caplog: Any
) -> None:
    run_engine = RunEngine({})
    writer = DocumentWriter(tmp_path / "all.msgpack")
    run_engine.subscribe(writer)
    writer("start", {"uid": "a", "time": 0.0, "operator": Unspeakable()})
    assert "cannot record documents in" in caplog.text
    run_engine(count([played()], 4))
    writer.close()
    assert np.array_equal(images_of(replayed(tmp_path / "all.msgpack")), FRAMES)
