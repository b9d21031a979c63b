"""Derived runs read back from wherever they are stored."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from sinks_support import (
    account_of,
    bits_of,
    classes_of,
    mask_of,
    masks_of,
    run_info,
)

from ptychoseg_stream.errors import StoreError
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.science.frame import Mask
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.hdf5 import HDF5Sink
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.rows import COLUMNS
from ptychoseg_stream.sinks.stored import StoredRun, open_stored
from ptychoseg_stream.sinks.tiled import TiledSink

ORIGIN = "/data/raw.h5:/entry/data"


def masks(n: int) -> list[Mask]:
    """Masks of frames that came from a file."""
    plain = [mask_of(i, valid_bits=bits_of(i)) for i in range(n)]
    return [replace(mask, frame=replace(mask.frame, origin=ORIGIN)) for mask in plain]


def refused(target: object, options: TiledOptions | None = None, key: str = "") -> str:
    with (
        pytest.raises(StoreError) as caught,
        open_stored(str(target), options or TiledOptions(), key),
    ):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_run(run: StoredRun, n: int, uid: str) -> None:
    """All that was stored of `masks(n)` is there."""
    assert run.uid == uid
    assert run.start["original_run_uid"] == "raw-1"
    assert json.loads(json.dumps(run.start))["processing"]["versions"] == {"torch": "2.6"}
    assert (run.raw_source, run.raw_stream, run.raw_data_key) == (ORIGIN, "primary", "image")
    assert set(run.arrays) == {"mask", "valid_bits"}
    assert run.lengths == {"mask": n, "valid_bits": n}
    assert json.loads(json.dumps(run.stop))["account"]["received"] == n
    assert run.stop["num_events"] == {"primary": n}
    assert set(COLUMNS) <= set(run.table)
    assert run.table["raw_index"] == list(range(n))
    assert run.table["shift_y"] == [0.25] * n
    assert run.table["centroids_hash"] == ["c0ffee"] * n
    for row in (0, n - 1):
        assert np.array_equal(run.read("mask", row), classes_of(row))
        assert np.array_equal(run.read("valid_bits", row), bits_of(row))
        assert run.read("valid_bits", row).dtype == np.uint16


# --- files ----------------------------------------------------------------------------------------


def written(folder: Path, n: int = 40) -> Path:
    sink = HDF5Sink(folder)
    sink.open(run_info())
    sink.write("raw-1", masks(n))
    sink.close("raw-1", account_of(n))
    return Path(sink.address("raw-1"))


def test_file_of_a_run_is_read_back(tmp_path):
    path = written(tmp_path)
    with open_stored(str(path), TiledOptions(), "") as run:
        check_run(run, 40, path.stem)


def test_file_may_be_called_otherwise(tmp_path):
    path = written(tmp_path)
    uid = path.stem
    with open_stored(str(path.rename(tmp_path / "mine.h5")), TiledOptions(), "") as run:
        assert run.uid == uid


def test_rows_never_announced_are_lost_rows(tmp_path):
    sink = HDF5Sink(tmp_path)
    sink.open(run_info())
    sink.write("raw-1", [mask_of(0), mask_of(3)])
    sink.close("raw-1", account_of(2))
    sink.shutdown()
    with open_stored(sink.address("raw-1"), TiledOptions(), "") as run:
        assert run.table["status"] == ["ok", "lost", "lost", "ok"]
        assert run.raw_source == ""


def test_run_without_an_end_has_no_stop_document(tmp_path):
    sink = HDF5Sink(tmp_path)
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(2)))
    with open_stored(sink.address("raw-1"), TiledOptions(), "") as run:
        assert run.stop == {}


def test_file_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    assert "text.h5 cannot be read as HDF5" in refused(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["mask"] = np.zeros((2, 3, 3))
    assert "other.h5 holds no masks" in refused(tmp_path / "other.h5")
    assert "none.h5: no such file or folder" in refused(tmp_path / "none.h5")
    assert "holds no masks" in refused(tmp_path)


def test_what_goes_wrong_with_an_open_run_is_not_blamed_on_its_store(tmp_path):
    path = written(tmp_path, 2)
    with pytest.raises(ValueError, match="mine"), open_stored(str(path), TiledOptions(), ""):
        raise ValueError("mine")


# --- Tiled ----------------------------------------------------------------------------------------


def send(server: EmbeddedTiled, options: TiledOptions, n: int) -> str:
    """Store a run of n rows; return its uid."""
    spool = SpoolOptions(str(server.folder.parent / "spool"), min_free_bytes=0)
    sink = TiledSink(options, spool, api_key=server.api_key)
    sink.open(run_info())
    sink.write("raw-1", masks(n))
    sink.close("raw-1", account_of(n))
    assert sink.drain(60)
    uid = sink.address("raw-1").rsplit("/", 1)[-1]
    sink.shutdown()
    return uid


@dataclass(frozen=True)
class Served:
    """Two derived runs of one raw run on a server of its own."""

    folder: Path
    server: EmbeddedTiled
    options: TiledOptions
    uids: tuple[str, ...]

    def address(self, uid: str) -> str:
        return f"{self.server.uri}/api/v1/metadata/{self.options.container}/{uid}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("demo")
    with EmbeddedTiled(folder / "tiled") as server:
        options = TiledOptions(uri=server.uri)
        uids = tuple(send(server, options, n) for n in (3, 20))
        yield Served(folder, server, options, uids)


@pytest.mark.parametrize("by", ["address", "derived uid", "raw uid"])
def test_run_in_tiled_is_found_by_address_and_by_either_uid(served, by):
    first, newest = served.uids
    target, uid, n = {
        "address": (served.address(first), first, 3),
        "derived uid": (first, first, 3),
        "raw uid": ("raw-1", newest, 20),
    }[by]
    with open_stored(target, served.options, served.server.api_key) as run:
        check_run(run, n, uid)


def test_what_is_not_in_tiled_is_refused(served):
    key = served.server.api_key
    message = refused("0815", served.options, key)
    assert message.startswith(f"{served.server.uri} has no masks of a run 0815 in processed/")
    elsewhere = replace(served.options, container="processed/others")
    assert "has no masks of a run raw-1 in processed/others" in refused("raw-1", elsewhere, key)
    assert "holds no masks" in refused(served.server.uri, served.options, key)
    assert "no such node" in refused(served.address("0815"), served.options, key)
    mask = served.address(served.uids[0]) + "/primary/mask"
    assert "holds no masks" in refused(mask, served.options, key)


def test_server_that_refuses_the_key_or_is_not_there_is_named(served):
    assert "TILED_API_KEY" in refused("raw-1", served.options, "wrong")
    assert "cannot be reached" in refused("http://127.0.0.1:1/x", served.options)
    embedded = replace(served.options, uri="embedded")
    assert "the profile names no server" in refused("raw-1", embedded)


def test_mistakes_with_a_run_in_tiled_are_not_blamed_on_the_server(served):
    target, key = served.address(served.uids[0]), served.server.api_key
    with pytest.raises(ValueError, match="mine"), open_stored(target, served.options, key):
        raise ValueError("mine")


@pytest.mark.slow
def test_folder_of_a_demo_gives_its_newest_run_once_nobody_else_serves_it(tmp_path):
    folder = tmp_path / "demo" / "tiled"
    with EmbeddedTiled(folder) as server:
        assert f"{folder} holds no run" in refused(folder)
        options = TiledOptions(uri=server.uri)
        _, newest = (send(server, options, n) for n in (3, 20))
        busy = refused(folder)
        assert f"{folder}: its tables cannot be read; if another program serves them" in busy
    with open_stored(str(folder.parent), TiledOptions(container="other"), "") as run:
        check_run(run, 20, newest)


def test_masks_without_an_origin_have_no_raw_source(tmp_path):
    sink = HDF5Sink(tmp_path)
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(2)))
    sink.close("raw-1", account_of(2))
    sink.shutdown()
    with open_stored(sink.address("raw-1"), TiledOptions(), "") as run:
        assert run.raw_source == ""
