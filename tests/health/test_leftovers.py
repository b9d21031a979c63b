"""Who works on which run can be seen on the disk."""

from pathlib import Path

from ptychoseg_callbacks.journals.folder import Journals

from ptychoseg_stream.health.leftovers import REPLAY, at_work, is_held, leftover_checks
from ptychoseg_stream.node.spool import SpoolOptions


def test_open_runs_of_a_living_node_are_known_by_its_name(tmp_path: Path) -> None:
    spool = SpoolOptions(str(tmp_path), min_free_bytes=0)
    assert at_work(spool, "one") == 0
    journal = Journals(spool, owner="one").create("raw")
    assert journal is not None
    assert (at_work(spool, "one"), at_work(spool, "two")) == (1, 0)
    assert is_held(spool, journal.derived)
    assert not is_held(spool, "another")
    assert not is_held(spool, f"../{tmp_path.name}")
    journal.release()
    assert at_work(spool, "one") == 0
    assert not is_held(spool, journal.derived)


def test_runs_of_a_replay_that_was_cut_off_are_told_from_those_of_other_profiles(
    tmp_path: Path,
) -> None:
    spool = SpoolOptions(str(tmp_path), min_free_bytes=0)
    for owner in (f"one {REPLAY}", f"two {REPLAY}"):
        journal = Journals(spool, owner=owner).create("raw")
        assert journal is not None
        journal.release()
    replay, other = leftover_checks(spool, "one")
    assert replay.text.startswith("1 run of a replay with profile one that was cut off")
    assert "replay again with the same profile, or remove the folders" in replay.advice
    assert other.text.startswith("1 run left by nodes of other profiles")
