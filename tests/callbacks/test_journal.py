"""The documents of an open run on disk."""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from callbacks_targets import documents
from ptychoseg_callbacks.journals.finished import FinishedRuns
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_callbacks.journals.journal import Journal
from ptychoseg_callbacks.journals.machine import Machine, this_machine

from ptychoseg_stream.node.disk import is_locked, locked
from ptychoseg_stream.node.spool import SpoolOptions


@pytest.fixture
def options(tmp_path: Path) -> SpoolOptions:
    return SpoolOptions(str(tmp_path / "spool"), min_free_bytes=0)


def made(journals: Journals, raw: str = "raw") -> Journal:
    journal = journals.create(raw)
    assert journal is not None
    return journal


def filled(journals: Journals, raw: str = "raw", frames: int = 3) -> Journal:
    journal = made(journals, raw)
    for number, (name, doc) in enumerate(documents(raw, frames)):
        assert journal.append(name, doc, 5.0 + number, number)[0] >= 0
    return journal


def test_documents_come_back_as_they_were_after_the_process_has_gone(options: SpoolOptions) -> None:
    first = filled(Journals(options, lambda: 77.0))
    derived = first.derived
    first.release()

    (journal,) = Journals(options).unfinished()
    assert (journal.raw, journal.derived, journal.began) == ("raw", derived, 77.0)
    assert journal.resumed
    entries = [entry for _, entry, _ in journal.recover()]
    assert [entry.name for entry in entries] == ["start", "descriptor", *["event"] * 3, "stop"]
    assert [entry.arrived for entry in entries] == [5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    assert [entry.sender for entry in entries] == list(range(6))
    np.testing.assert_array_equal(
        entries[4].doc["data"]["image"], documents("raw", 3)[4][1]["data"]["image"]
    )
    journal.release()


def test_what_is_processed_now_is_what_is_read_later(options: SpoolOptions) -> None:
    journal = made(Journals(options))
    offset, entry = journal.append("start", {"uid": "raw", "path": Path("a/b"), "t": (1,)}, 1.0, 0)
    assert entry.doc == {"uid": "raw", "path": "a/b", "t": [1]}
    assert journal.read(offset)[0] == entry
    journal.release()


def test_journal_of_a_living_process_is_left_alone(
    options: SpoolOptions, caplog: pytest.LogCaptureFixture
) -> None:
    journal = filled(Journals(options))
    with caplog.at_level(logging.INFO):
        assert Journals(options).unfinished() == []
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert f"{journal.folder} is left to the process that works on it" in record.message
    journal.release()
    (found,) = Journals(options).unfinished()
    assert Journals(options).unfinished() == []
    found.release()


def test_who_only_looks_at_a_journal_does_not_keep_it_from_being_gone_on_with(
    options: SpoolOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(Journals(options)).release()
    (folder,) = options.runs.glob("*-*")
    monkeypatch.setattr("ptychoseg_callbacks.journals.folder._PATIENCE", 60.0)
    looks = locked(folder / "lock")
    assert is_locked(folder / "lock")
    done = threading.Timer(0.1, os.close, [looks])
    done.start()
    (journal,) = Journals(options).unfinished()
    done.join()
    journal.release()


_KILLED = """
import os, sys
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_stream.node.spool import SpoolOptions
from test_journal import filled
journal = filled(Journals(SpoolOptions(sys.argv[1], min_free_bytes=0)), frames=5)
journal.save_checkpoint(b"after frame 2")
os.kill(os.getpid(), 9)
"""


def test_journal_of_a_killed_process_is_found_with_all_that_it_wrote(options: SpoolOptions) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, options.folder], cwd=Path(__file__).parent, check=False
    )
    assert killed.returncode == -9
    (journal,) = Journals(options).unfinished()
    assert len(list(journal.recover())) == 8
    assert journal.load_checkpoint() == b"after frame 2"
    journal.release()


def test_finished_run_leaves_nothing_but_its_uid(options: SpoolOptions) -> None:
    journals = Journals(options)
    journal = filled(journals)
    assert not journals.is_finished("raw")
    journal.finish()
    journal.finish()
    assert not journal.folder.exists()
    assert journals.is_finished("raw")
    assert Journals(options).is_finished("raw")
    assert Journals(options).unfinished() == []
    assert journal.append("event", {}, 0.0, 0)[0] == -1
    assert journal.read(0)[0].name == "start"  # who still has a place in it can read it


def test_discarded_run_is_not_remembered(options: SpoolOptions) -> None:
    journals = Journals(options)
    filled(journals).discard()
    assert not journals.is_finished("raw")
    assert Journals(options).unfinished() == []


def test_runs_of_another_owner_are_left_alone(options: SpoolOptions) -> None:
    theirs = filled(Journals(options, owner="theirs"))
    theirs.release()
    assert Journals(options, owner="ours").unfinished() == []
    (found,) = Journals(options, owner="theirs").unfinished()
    found.finish()
    assert not Journals(options, owner="ours").is_finished("raw")
    assert Journals(options, owner="theirs").is_finished("raw")


def test_runs_come_in_the_order_in_which_they_began(options: SpoolOptions) -> None:
    for began in (3.0, 1.0, 2.0):
        filled(Journals(options, lambda: began), f"raw{began}").release()  # noqa: B023
    found = Journals(options).unfinished()
    assert [journal.raw for journal in found] == ["raw1.0", "raw2.0", "raw3.0"]
    for journal in found:
        journal.release()


def test_checkpoint_is_replaced_whole_or_not_at_all(options: SpoolOptions) -> None:
    journal = made(Journals(options))
    assert journal.load_checkpoint() == b""
    journal.save_checkpoint(b"one")
    journal.save_checkpoint(b"two")
    (journal.folder / ".checkpoint.part").mkdir()  # nobody can write there now
    with pytest.raises(OSError):
        journal.save_checkpoint(b"three")
    assert journal.load_checkpoint() == b"two"
    journal.release()


def test_too_little_room_is_one_clear_line_and_no_journal(
    options: SpoolOptions, caplog: pytest.LogCaptureFixture
) -> None:
    full = SpoolOptions(options.folder, min_free_bytes=1 << 62)
    assert Journals(full).create("raw") is None
    (record,) = caplog.records
    assert options.folder in record.message
    assert "spool.min_free_bytes" in record.message
    assert "The run goes on" in record.message
    assert Journals(full).unfinished() == []


def test_folder_that_cannot_be_made_is_one_clear_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    journals = Journals(SpoolOptions(str(tmp_path / "file"), min_free_bytes=0))
    assert journals.create("raw") is None
    assert len(caplog.records) == 1
    assert "choose another folder (spool.folder)" in caplog.text
    assert not journals.is_finished("raw")
    caplog.clear()
    assert journals.unfinished() == []
    assert "are not gone on with" in caplog.text


def test_disk_that_fills_up_ends_the_journal_and_not_the_run(
    options: SpoolOptions, caplog: pytest.LogCaptureFixture
) -> None:
    journal = filled(Journals(SpoolOptions(options.folder, min_free_bytes=0)), frames=1)
    journal._options = SpoolOptions(options.folder, min_free_bytes=1 << 62)
    large = {"uid": "e", "data": {"image": np.zeros((800, 800), np.uint16)}}
    journal.append("event", large, 0.0, 0)  # the disk is looked at every MiB
    offset, entry = journal.append("event", large, 0.0, 0)
    assert offset == -1
    assert entry.doc["uid"] == "e"
    assert "spool.min_free_bytes" in journal.broken
    journal.append("event", large, 0.0, 0)
    assert len(caplog.records) == 1
    assert str(journal.folder) in caplog.text
    journal.release()


@pytest.mark.parametrize(
    "about",
    [b"", b"{}", b"[]", b'{"raw": 1}', b'{"raw":"r","derived":"../..","began":0,"owner":""}'],
)
def test_damaged_journal_is_named_and_left_where_it_is(
    options: SpoolOptions, caplog: pytest.LogCaptureFixture, about: bytes
) -> None:
    journal = filled(Journals(options))
    journal.release()
    (journal.folder / "run.json").write_bytes(about)
    assert Journals(options).unfinished() == []
    assert str(journal.folder) in caplog.text
    assert journal.folder.exists()


def test_folders_that_are_no_journals_are_left_alone(options: SpoolOptions) -> None:
    strange = options.runs / "photographs"
    strange.mkdir(parents=True)
    (strange / "cat.jpg").touch()
    (options.runs / "file").touch()
    assert Journals(options).unfinished() == []
    assert (strange / "cat.jpg").exists()


def test_what_was_left_of_a_run_that_was_being_removed_goes(options: SpoolOptions) -> None:
    journal = filled(Journals(options))
    journal.release()
    (journal.folder / "run.json").unlink()
    assert Journals(options).unfinished() == []
    assert not journal.folder.exists()


def test_only_this_user_may_read_the_documents(options: SpoolOptions) -> None:
    journal = made(Journals(options))
    assert options.runs.stat().st_mode & 0o077 == 0
    assert journal.folder.stat().st_mode & 0o077 == 0
    journal.release()


def test_finished_runs_are_forgotten_when_there_are_too_many(tmp_path: Path) -> None:
    runs = FinishedRuns(tmp_path / "finished", "me")
    lines = [json.dumps(["me", f"run {n}"]) for n in range(9_998)]
    (tmp_path / "finished").write_text("\n".join([*lines, "torn ["]))
    assert "run 0" in runs
    runs.add("one more")
    assert "run 0" in runs
    runs.add("and another")
    assert "run 0" not in runs
    assert "run 9997" in runs
    assert "one more" in runs
    assert "and another" in runs
    assert (tmp_path / "finished").read_text().count("\n") == 5000


def test_nothing_is_left_open(options: SpoolOptions) -> None:
    def files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    if not Path("/proc/self/fd").exists():
        pytest.skip("open files can only be counted on Linux")
    before = files()
    for n in range(5):
        filled(Journals(options), f"a{n}").finish()
        filled(Journals(options), f"b{n}").release()
    for journal in Journals(options).unfinished():
        journal.finish()
    del journal
    assert files() == before


def test_sync_that_fails_is_one_line(options: SpoolOptions, caplog: Any) -> None:
    journal = filled(Journals(options))
    journal.sync()
    journal.append("event", {"uid": "x"}, 0.0, 0)
    journal._log.close()
    with caplog.at_level(logging.ERROR):
        journal.sync()
    assert len(caplog.records) == 1
    assert journal.broken
    journal.discard()


HERE, SPARE = Machine("beamline", "aaaa"), Machine("spare", "bbbb")


def test_runs_of_another_machine_are_left_alone_until_somebody_hands_them_over(
    options: SpoolOptions, caplog: pytest.LogCaptureFixture
) -> None:
    filled(Journals(options, machine=HERE)).release()
    spare = Journals(options, machine=SPARE)
    assert spare.unfinished() == []
    (record,) = caplog.records
    (folder,) = options.runs.glob("*-*")
    for said in ("begun on beamline, this is spare", f"make an empty file {folder / 'adopt'}"):
        assert said in record.message
    (folder / "adopt").touch()
    (journal,) = spare.unfinished()
    assert journal.raw == "raw"
    journal.release()
    assert Journals(options, machine=HERE).unfinished() == []
    (journal,) = spare.unfinished()
    journal.release()


@pytest.mark.parametrize("unknown", [Machine("container 1"), Machine()])
def test_machines_without_an_identity_go_on_with_all_runs(
    options: SpoolOptions, unknown: Machine
) -> None:
    filled(Journals(options, machine=unknown)).release()
    for machine in (HERE, Machine("container 2"), unknown):
        (journal,) = Journals(options, machine=machine).unfinished()
        assert journal.raw == "raw"
        journal.release()


def test_machine_is_the_same_each_time_and_keeps_its_id_to_itself() -> None:
    machine = this_machine()
    assert machine == this_machine()
    assert not machine.is_other(machine.mark)
    path = Path("/etc/machine-id")
    if path.exists():
        assert path.read_text().strip() not in (machine.mark or "none")


def test_what_is_damaged_in_a_journal_costs_itself_and_one_line(
    options: SpoolOptions, caplog: pytest.LogCaptureFixture
) -> None:
    first = filled(Journals(options))
    offsets = [offset for offset, _, _ in first.recover()]
    first.release()
    log = first.folder / "documents.log"
    data = bytearray(log.read_bytes())
    data[offsets[3] + 100] ^= 1
    log.write_bytes(data)
    (journal,) = Journals(options).unfinished()
    names = [entry.name for _, entry, _ in journal.recover()]
    assert names == ["start", "descriptor", "event", "event", "stop"]
    (record,) = caplog.records
    assert "1 are left out" in record.message
    assert str(journal.folder) in record.message
    journal.release()


def left_by_a_death(journals: Journals, replayed: int) -> Journal:
    """Replay documents of the only journal, and end as a process does that dies."""
    (journal,) = journals.unfinished()
    for _ in range(replayed):
        journal.attempt()
    left = (journal.folder / "attempts.at").read_bytes()
    journal.release()
    (journal.folder / "attempts.at").write_bytes(left)
    return journal


def test_deaths_at_one_document_leave_a_run_aside_and_deaths_elsewhere_do_not(
    options: SpoolOptions, caplog: pytest.LogCaptureFixture
) -> None:
    filled(Journals(options)).release()
    for life in range(30):  # as if killed from outside, at any moment
        left_by_a_death(Journals(options), 1 + life % 4)
    for _ in range(9):
        left_by_a_death(Journals(options), 3)
    (journal,) = Journals(options).unfinished()
    journal.attempt()
    journal.release()  # in good order: it counts neither way
    journal = left_by_a_death(Journals(options), 3)
    assert "left aside" not in caplog.text
    for _ in range(2):  # a node that leaves it aside changes nothing
        caplog.clear()
        (journal,) = Journals(options).unfinished()
        assert journal.aside
        assert "each of the last 10 times" in caplog.text
        assert str(journal.folder / "attempts") in caplog.text
        journal.attempt()
        journal.release()


def test_deaths_are_forgotten_when_the_run_comes_further(options: SpoolOptions) -> None:
    filled(Journals(options)).release()
    for _ in range(5):
        left_by_a_death(Journals(options), 3)
    (journal,) = Journals(options).unfinished()
    journal.attempt()
    assert (journal.folder / "attempts").read_text() == "5 3"
    journal.save_checkpoint(b"further than before")
    assert not [*journal.folder.glob("attempts*")]
    journal.release()


@pytest.mark.parametrize("text", [b"", b"\xff", b"-1", b"2", b"many"])
def test_number_of_attempts_that_makes_no_sense_is_none(options: SpoolOptions, text: bytes) -> None:
    journal = filled(Journals(options))
    (journal.folder / "attempts").write_bytes(text)
    journal.release()
    (journal,) = Journals(options).unfinished()
    assert not journal.aside
    journal.release()


def test_run_that_cannot_be_opened_is_tried_three_times(
    options: SpoolOptions, caplog: pytest.LogCaptureFixture
) -> None:
    journal = filled(Journals(options))
    for _ in range(3):
        assert not journal.aside
        journal.refuse()
        journal.refuse()
        journal.attempt()
        assert journal.aside
        assert not journal.finished
        journal.release()
        caplog.clear()
        (journal,) = Journals(options).unfinished()
    assert journal.aside
    (record,) = caplog.records
    assert "is left aside" in record.message
    (journal.folder / "attempts").unlink()
    journal.release()
    (journal,) = Journals(options).unfinished()
    assert not journal.aside
    journal.release()


def test_documents_of_a_run_that_cannot_be_opened_are_still_written_down(
    options: SpoolOptions, caplog: pytest.LogCaptureFixture
) -> None:
    first = made(Journals(options))
    docs = documents("raw", 3)
    first.append(*docs[0], 0.0, 0)
    first.refuse()
    assert Journals(options).unfinished() == []  # nobody else goes on with it meanwhile
    for name, doc in docs[1:]:
        assert first.append(name, doc, 0.0, 0)[0] > 0
    first.tell_aside()
    first.release()
    (record,) = caplog.records
    assert "run raw is not processed" in record.message
    assert f"Its 6 documents wait in {first.folder}" in record.message
    assert f"remove {first.folder / 'attempts'}" in record.message
    (journal,) = Journals(options).unfinished()
    assert len(list(journal.recover())) == 6
    journal.release()
