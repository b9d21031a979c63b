import random
import zlib

import pytest
from ptychoseg_callbacks.runs.resume import ENDED, Checkpoint, Receipts
from ptychoseg_callbacks.runs.tally import Tally

from ptychoseg_stream.errors import CheckpointError

DERIVED = "8f6f9d5e-4a8e-4b29-9a0e-000000000000"
SETTINGS = {"node": "digest", "version": "1"}


def test_a_checkpoint_comes_back_as_it_was():
    tally = Tally(received=5, written=3, lost=1)
    tally.refused["no beam"] += 1
    tally.verdicts.update({"annulus": 3, "none": 1})
    whole = Checkpoint(5, DERIVED, SETTINGS, "there", b"\x00state\n\xff", tally.plain())
    found = Checkpoint.unpack(whole.pack())
    assert found == whole
    assert Tally.of(found.tally) == tally


def test_whose_checkpoint_it_is_can_be_read_when_the_rest_is_damaged():
    packed = Checkpoint(5, DERIVED, SETTINGS, "there", bytes(200), Tally().plain()).pack()
    about = Checkpoint.about(packed[:-7])
    assert about == Checkpoint(5, DERIVED, SETTINGS, "there")
    with pytest.raises(CheckpointError, match="checksum"):
        Checkpoint.unpack(packed[:-7])


def test_a_damaged_checkpoint_says_so_and_nothing_else_happens():
    whole = Checkpoint(5, DERIVED, SETTINGS, "there", bytes(200), Tally().plain())
    packed = whole.pack()
    generator = random.Random(0)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(packed)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        cut = bytes(damaged[: generator.randint(0, len(damaged))])
        for read in (Checkpoint.unpack, Checkpoint.about):
            try:
                assert read(cut).derived == DERIVED
                outcomes.add("read")
            except CheckpointError:
                outcomes.add("refused")
    assert "refused" in outcomes


def test_a_checkpoint_of_another_version_is_refused():
    line = b'[3, 0, "a field that is new"]'
    packed = f"{zlib.crc32(line):08x} ".encode() + line + b"\n"
    with pytest.raises(CheckpointError, match="version 3"):
        Checkpoint.unpack(packed)


class Shelf:
    """Knows how many rows of each run are safe, and which runs are."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.settled: set[str] = set()

    def __call__(self, run: str, rows: int) -> bool:
        return run in self.settled if rows == ENDED else self.rows.get(run, 0) >= rows


def test_documents_are_told_as_stored_only_up_to_the_first_that_is_not():
    shelf, receipts = Shelf(), Receipts()
    for number, run, rows in [(1, "a", 0), (2, "a", 1), (3, "b", 0), (4, "a", 2), (5, "b", 1)]:
        receipts.add(number, run, rows)
    assert receipts.stored(shelf) == 1
    shelf.rows = {"a": 1, "b": 1}
    assert receipts.stored(shelf) == 3  # 4 is not, though 5 is
    shelf.rows = {"a": 2, "b": 1}
    assert receipts.stored(shelf) == 5


def test_a_stop_document_is_told_when_all_of_its_run_is_safe():
    shelf, receipts = Shelf(), Receipts()
    shelf.rows = {"a": 9}
    receipts.add(1, "a", 9)
    receipts.add(2, "a", ENDED)
    assert receipts.stored(shelf) == 1
    shelf.settled.add("a")
    assert receipts.stored(shelf) == 2


def test_documents_without_a_number_are_not_told():
    receipts = Receipts()
    receipts.add(0, "a", 3)
    assert receipts.stored(lambda run, rows: True) == 0


def test_what_is_remembered_is_bounded_and_never_told_too_early():
    shelf, receipts = Shelf(), Receipts(most=8)
    for number in range(1, 1001):
        receipts.add(number, "ab"[number % 2], number)
    assert receipts.stored(shelf) == 0
    shelf.rows = {"a": 4, "b": 3}
    assert receipts.stored(shelf) == 4
    shelf.rows = {"a": 999, "b": 999}
    assert receipts.stored(shelf) < 1000
    shelf.rows = {"a": 1000, "b": 999}
    assert receipts.stored(shelf) == 1000
