"""Segments and folders of the spool: no server."""

import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from sinks_support import alarm_of, bits_of, mask_of, run_info

from ptychoseg_stream.errors import StoreError
from ptychoseg_stream.node.ports import Account
from ptychoseg_stream.sinks.batch import Batch, alike, conformed, joined, make_batch, resized
from ptychoseg_stream.sinks.derived import Derived
from ptychoseg_stream.sinks.ending import Ending
from ptychoseg_stream.sinks.rows import Row
from ptychoseg_stream.sinks.segment import load, save
from ptychoseg_stream.sinks.side_tables import Notebook
from ptychoseg_stream.sinks.spool import SpoolFolder, leftovers, waiting

ARRAYS = ("mask", "valid_bits")


def batch(first: int, last: int) -> Batch:
    masks = [mask_of(i, valid_bits=bits_of(i), alarms=(alarm_of(i),)) for i in range(first, last)]
    rows = [Row(mask, 5.0) for mask in masks]
    notebook = Notebook()
    notebook.take(rows)
    return make_batch(first, rows, (6, 8), ARRAYS, notebook.tear_off())


def check_same(one: Batch, other: Batch) -> None:
    assert (one.first, one.last, dict(one.raw)) == (other.first, other.last, dict(other.raw))
    assert one.table.schema.equals(other.table.schema)
    assert repr(one.table.to_pydict()) == repr(other.table.to_pydict())
    assert {n: repr(t.to_pydict()) for n, t in one.notes.items()} == {
        n: repr(t.to_pydict()) for n, t in other.notes.items()
    }
    assert set(one.arrays) == set(other.arrays)
    for name, block in one.arrays.items():
        assert block.dtype == other.arrays[name].dtype
        assert np.array_equal(block, other.arrays[name])


def test_a_segment_gives_back_what_it_was_given(tmp_path):
    for given in (batch(3, 20), make_batch(20, [], (6, 8), ARRAYS)):
        save(tmp_path / "rows.h5", given)
        check_same(load(tmp_path / "rows.h5"), given)


def test_a_batch_is_cut_and_joined_without_losing_a_row_or_a_note():
    whole, halves = batch(0, 20), [batch(0, 8), batch(8, 20)]
    assert alike(*halves)
    together = joined(halves)
    assert np.array_equal(together.arrays["mask"], whole.arrays["mask"])
    assert together.table["raw_index"].to_pylist() == list(range(20))
    assert together.notes["alarms"]["raw_index"].to_pylist() == list(range(20))
    rest = whole.since(15)
    assert (rest.first, rest.last) == (15, 20)
    assert rest.notes["alarms"].num_rows == 20
    assert (whole.until(15).last, whole.since(99).table.num_rows) == (15, 0)


def test_a_batch_of_another_size_says_so_in_each_row():
    other = resized(batch(0, 3), (4, 4))
    assert other.arrays["mask"].shape == (3, 4, 4)
    assert (other.arrays["mask"] == 255).all()
    assert other.table["status"].to_pylist() == ["refused"] * 3
    assert other.table["reason"][0].as_py() == "mask is (6, 8), those of this run are (4, 4)"


def test_rows_of_another_version_take_the_form_of_the_table_that_is_there():
    table = batch(0, 3).table
    older = table.drop_columns(["attempt", "refilled"]).schema
    assert conformed(table, older).schema.equals(older)
    newer = conformed(table.drop_columns(["attempt", "refilled"]), table.schema)
    assert newer["attempt"].to_pylist() == [0, 0, 0]
    assert newer["refilled"].to_pylist() == [""] * 3


def test_text_and_numbers_that_no_store_takes_are_made_harmless(tmp_path):
    odd = mask_of(0, reason="a\0b\udcff")
    row = Row(odd, 5.0)
    object.__setattr__(odd.frame, "seq_num", 2**70)
    given = make_batch(0, [row], (6, 8), ARRAYS)
    save(tmp_path / "rows.h5", given)
    table = load(tmp_path / "rows.h5").table
    assert table["reason"].to_pylist() == ["ab?"]
    assert table["raw_seq_num"].to_pylist() == [2**63 - 1]


def test_a_segment_is_synced_before_it_has_its_name_and_its_folder_after(tmp_path, monkeypatch):
    """Watches the real calls."""
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_sync(handle: int) -> None:
        events.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().name}")
        fsync(handle)

    def watched_replace(path: Path, target: Path) -> Path:
        events.append(f"name {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    save(tmp_path / "rows.h5", batch(0, 3))
    assert events == ["sync .rows.h5.part", "name rows.h5", f"sync {tmp_path.name}"]


def test_a_disk_that_breaks_off_leaves_no_segment_and_no_part_of_one(tmp_path):
    """The kernel refuses to let a file grow: what a full disk does in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            save(tmp_path / "rows.h5", batch(0, 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
    save(tmp_path / "rows.h5", batch(0, 20))
    check_same(load(tmp_path / "rows.h5"), batch(0, 20))


def test_a_damaged_segment_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "rows.h5"
    for content in (b"", b"no HDF5"):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"rows\.h5 cannot be read"):
            load(path)


def test_a_folder_belongs_to_one_owner_at_a_time_and_is_found_when_that_is_gone(spool):
    derived = Derived.of(run_info(), lambda: 5.0)
    first = SpoolFolder(spool.masks / derived.uid)
    first.begin(derived, "http://host", "a/b")
    first.add(batch(0, 8), 0)
    first.add(batch(8, 20), 0)
    first.end(Ending(Account(20, 20, {"too dark. x/y": 1}), 9.0, {"repeated": 1}), derived)
    with pytest.raises(BlockingIOError, match="belongs to another process"):
        SpoolFolder(first.path)
    assert list(leftovers(spool)) == []
    first.release()
    (found,) = leftovers(spool)
    again = found.derived("")
    assert again.start() == derived.start()
    assert found.target() == ("http://host", "a/b")
    assert [(s.first, s.last) for s in found.segments()] == [(0, 8), (8, 20)]
    ending = found.ending()
    assert ending is not None
    assert ending.account == Account(20, 20, {"too dark. x/y": 1})
    found.remove()
    assert waiting(spool) == []
    assert list(spool.masks.iterdir()) == []


def test_a_folder_on_a_disk_that_is_too_full_takes_no_segment(spool):
    derived = Derived.of(run_info(), lambda: 5.0)
    folder = SpoolFolder(spool.masks / derived.uid)
    with pytest.raises(OSError, match=r"free space on the disk of .* is .* MB"):
        folder.add(batch(0, 3), 1 << 60)
    assert folder.segments() == []
    folder.release()
