"""`ptychoseg audit RUN` counts what is stored: in Tiled, in files, and what the raw run has."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import h5py
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from bluesky_tiled_plugins import TiledWriter
from endings_support import Line, detector_of, interrupted, points
from ptychoseg_callbacks.journals.journal import LOCK
from typer.testing import CliRunner
from ways_support import Recorder, emit, find_derived, run_engine

from ptychoseg_stream.cli import app
from ptychoseg_stream.node.disk import locked, make_folder
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.profile import Profile
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.hdf5 import HDF5Sink
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.tiled import TiledSink


@dataclass
class Place:
    """A server, the profile that names it, and what was labelled into it."""

    tiled: EmbeddedTiled
    profile: Profile
    folder: Path

    def audit(self, target: Any, raw: str = "") -> tuple[int, str]:
        """Return exit code and output of the command."""
        uri = self.tiled.uri.replace("http", "tiled", 1)
        told = {
            "tiled": {"uri": self.tiled.uri, "container": self.profile.tiled.container},
            "raw": {"uri": uri if raw else "", "path": raw},
            "spool": {"folder": str(self.folder / "spool")},
        }
        path = self.folder / "audit.yml"
        path.write_text(yaml.safe_dump(told))
        result = CliRunner().invoke(app, ["audit", str(target), "--profile", str(path)])
        assert self.tiled.api_key not in result.output
        assert "Traceback" not in result.output
        return result.exit_code, result.output

    def sink(self) -> TiledSink:
        spool = SpoolOptions(str(self.folder / "spool"), min_free_bytes=0)
        return TiledSink(self.profile.tiled, spool, api_key=self.tiled.api_key)

    def labelled(self, scan: Recorder) -> Any:
        """Label a scan into Tiled; return the node of the derived run."""
        line = Line(self.sink(), self.folder / "line")
        emit(scan.documents, line)
        line.close()
        run = find_derived(self.tiled, self.profile, scan.uid)
        assert run is not None
        return run


@pytest.fixture
def place(tiled: EmbeddedTiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("TILED_API_KEY", tiled.api_key)
    options = TiledOptions(tiled.uri, container=f"processed/{tmp_path.name}", arrays=("mask",))
    return Place(tiled, Profile(tiled=options), tmp_path)


def taken(folder: Path, *callbacks: Callable[[str, Any], Any], count: int = 7) -> Recorder:
    """Take a scan in which two points are taken again."""
    recorder = Recorder()
    with run_engine() as engine:
        for callback in (*callbacks, recorder):
            engine.subscribe(callback)
        plan = points(detector_of("inline", folder), count, every=3, at={5: bps.pause})
        assert interrupted(engine, plan)
        engine.resume()
    return recorder


@pytest.fixture
def scan(tmp_path: Path) -> Recorder:
    return taken(tmp_path)


def test_a_good_run_adds_up_by_its_address_its_uid_and_that_of_the_raw_run(
    place: Place, scan: Recorder
) -> None:
    run = place.labelled(scan)
    for target in (run.uri, run.metadata["start"]["uid"], scan.uid):
        code, output = place.audit(target)
        assert code == 0, output
        assert "9 rows, one for each frame" in output
        assert "received 9 = written 9 + refused 0 + lost 0" in output
        assert "it has 9 frames by its own stop document" in output
        assert "FAIL" not in output


def test_the_raw_run_in_tiled_is_counted(place: Place, tmp_path: Path) -> None:
    root: Any = place.tiled.client()
    container = root.create_container(f"raw-{tmp_path.name}")
    scan = taken(tmp_path, TiledWriter(container, batch_size=1))
    place.labelled(scan)
    code, output = place.audit(scan.uid, container.item["id"])
    assert code == 0, output
    assert "it has 9 frames in the raw store, and so many rows are there" in output


def test_a_raw_run_with_more_frames_than_rows_is_told(place: Place, tmp_path: Path) -> None:
    root: Any = place.tiled.client()
    container = root.create_container(f"raw-{tmp_path.name}")
    scan = taken(tmp_path, TiledWriter(container, batch_size=1))
    # All of the end was lost on the way, and the stop document's counts as well.
    stop = {key: value for key, value in scan.documents[-1][1].items() if key != "num_events"}
    scan.documents[-4:] = [("stop", stop)]
    place.labelled(scan)
    code, output = place.audit(scan.uid)
    assert code == 0, output  # nobody knows of more
    code, output = place.audit(scan.uid, container.item["id"])
    assert code == 1
    assert "FAIL raw run: it has 9 frames in the raw store, there are 6 rows" in output


def test_a_run_without_a_stop_document_is_told(place: Place, scan: Recorder) -> None:
    line = Line(place.sink(), place.folder / "line")
    emit(scan.documents[:-1], line)
    line.settle()
    code, output = place.audit(scan.uid)
    assert code == 1
    assert "the run has no stop document: it is open, or its node died" in output
    assert "start the node again" in output
    line.close()
    code, output = place.audit(scan.uid)  # closed as failed: it adds up
    assert code == 0, output


def test_a_run_that_a_node_has_open_is_waited_for(place: Place, scan: Recorder) -> None:
    spool = SpoolOptions(str(place.folder / "spool"), min_free_bytes=0)
    line = Line(place.sink(), place.folder / "line")
    emit(scan.documents[:-1], line)
    line.settle()
    run = find_derived(place.tiled, place.profile, scan.uid)
    assert run is not None
    folder = spool.runs / run.metadata["start"]["uid"]
    make_folder(folder)
    lock = locked(folder / LOCK, os.O_CREAT)
    code, output = place.audit(scan.uid)
    assert code == 1
    assert "a node on this machine has it open" in output
    assert "closes it after 86400 s without one" in output
    assert "start the node again" not in output
    os.close(lock)
    assert "start the node again" in place.audit(scan.uid)[1]
    line.close()


def test_of_several_derived_runs_the_newest_is_audited_and_their_number_told(
    place: Place, scan: Recorder
) -> None:
    first = place.labelled(scan)
    assert "derived runs" not in place.audit(scan.uid)[1]
    line = Line(place.sink(), place.folder / "again")
    emit(scan.documents, line)
    line.close()
    code, output = place.audit(scan.uid)
    assert code == 0, output
    assert "note derived runs: there are 2 of this raw run; this is the newest" in output
    older = first.metadata["start"]["uid"]
    assert f"derived run {older} " not in output
    assert "note derived runs" not in place.audit(older)[1]


def test_who_only_reads_is_asked_for_a_key_that_only_reads(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TILED_API_KEY")
    code, output = place.audit("no-such-uid")
    assert code == 2
    assert "set TILED_API_KEY to a key with the scopes read:metadata, read:data\n" in output


def test_a_doubled_row_in_tiled_is_told(place: Place, scan: Recorder) -> None:
    run = place.labelled(scan)
    table = run["primary"].base["internal"]
    last: pd.DataFrame = table.read().tail(1)
    schema = table.structure().arrow_schema_decoded
    table.append_partition(0, pa.Table.from_pandas(last, schema=schema, preserve_index=False))
    code, output = place.audit(scan.uid)
    assert code == 1
    assert "frames with more than one: 8" in output
    assert "the table has 10 rows, mask has 9" in output


def test_a_wrong_account_in_tiled_is_told(place: Place, scan: Recorder) -> None:
    run = place.labelled(scan)
    stop = json.loads(json.dumps(dict(run.metadata["stop"]), default=dict))
    stop["account"] |= {"received": 11, "lost": 2}
    run.update_metadata({"stop": stop})
    code, output = place.audit(scan.uid)
    assert code == 1
    assert "the stop document says received 11, lost 2" in output


@pytest.fixture
def file(scan: Recorder, tmp_path: Path) -> Path:
    line = Line(HDF5Sink(tmp_path / "masks", arrays=("mask",)), tmp_path / "line")
    emit(scan.documents, line)
    line.close()
    (path,) = (tmp_path / "masks").glob("*.h5")
    return path


def test_a_good_file_adds_up(place: Place, file: Path) -> None:
    code, output = place.audit(file)
    assert code == 0, output
    assert "FAIL" not in output


def test_a_row_that_is_missing_in_a_file_is_told(place: Place, file: Path) -> None:
    with h5py.File(file, "a") as opened:
        for column in opened["internal"].values():
            column[4:8] = column[5:9]
            column.resize(8, axis=0)
        opened["mask"].resize(8, axis=0)
    code, output = place.audit(file)
    assert code == 1
    assert "FAIL rows: 8 rows; frames with more than one: none; frames without any: 4" in output
    assert "FAIL account: received 8" in output
    assert "FAIL raw run: it has 9 frames by its own stop document, there are 8 rows" in output


def test_a_file_cut_off_at_its_end_is_told(place: Place, file: Path) -> None:
    with h5py.File(file, "a") as opened:
        opened["mask"].resize(6, axis=0)
    code, output = place.audit(file)
    assert code == 1
    assert "FAIL arrays: the table has 9 rows, mask has 6" in output


@pytest.mark.parametrize("kind", ["Tiled", "file"])
def test_a_run_that_had_no_frames_adds_up(kind: str, place: Place, scan: Recorder) -> None:
    stop = {**scan.documents[-1][1], "num_events": {}}
    folder = place.folder / "empty"
    line = Line(place.sink() if kind == "Tiled" else HDF5Sink(folder), place.folder / "line")
    emit([scan.documents[0], ("stop", stop)], line)
    line.close()
    code, output = place.audit(scan.uid if kind == "Tiled" else next(folder.glob("*.h5")))
    assert code == 0, output
    assert "received 0 = written 0" in output


def test_what_is_no_run_is_refused_with_2(place: Place, tmp_path: Path) -> None:
    code, output = place.audit("no-such-uid")
    assert code == 2
    assert "has no masks of a run no-such-uid" in output
    code, output = place.audit(tmp_path / "nothing.h5")
    assert code == 2
    assert "no such file" in output
