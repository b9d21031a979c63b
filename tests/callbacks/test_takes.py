"""Events that are counted, and those that come again."""

import random

import pytest
from ptychoseg_callbacks.frames.takes import Takes


def test_events_that_come_again_are_told_by_how_often_they_came() -> None:
    takes = Takes()
    seq_nums = [1, 2, 3, 4, 5, 4, 5, 6, 7, 4, 5, 5, 6, 7, 8]
    assert [takes.take(n) for n in seq_nums] == [0, 0, 0, 0, 0, 1, 1, 0, 0, 2, 2, 3, 1, 1, 0]
    assert (takes.last, takes.events) == (8, len(seq_nums))
    assert takes.counted(8) == len(seq_nums)


def test_attempt_is_the_number_of_earlier_takes_for_any_plan_with_checkpoints() -> None:
    """A plan goes back to its checkpoint, and that never moves back."""
    chance = random.Random(5)
    takes, came = Takes(), list[int]()
    checkpoint = seq_num = 1
    for _ in range(3000):
        assert takes.take(seq_num) == came.count(seq_num)
        came.append(seq_num)
        seq_num += 1
        if chance.random() < 0.2:
            checkpoint = seq_num
        elif chance.random() < 0.2:
            seq_num = checkpoint
    assert takes.retaken == len(came) - takes.last
    assert takes.counted(takes.last) == len(came)


@pytest.mark.parametrize(
    ("last", "seq_num", "missing"), [(0, 1, 0), (0, 4, 3), (7, 8, 0), (7, 3, 0)]
)
def test_numbers_that_are_left_out_are_missing(last: int, seq_num: int, missing: int) -> None:
    takes = Takes()
    for n in range(1, last + 1):
        takes.take(n)
    assert takes.missing(seq_num) == missing


def test_run_that_counts_fewer_than_were_taken_is_not_believed() -> None:
    takes = Takes()
    for n in (1, 2, 3):
        takes.take(n)
    assert [takes.counted(n) for n in (0, 2, 3, 5)] == [-1, -1, 3, 5]


def test_plan_that_goes_back_for_ever_is_remembered_in_bounded_memory() -> None:
    takes = Takes()
    attempts = [takes.take(1 + n % 2) for n in range(10_000)]
    assert max(attempts) == 1000
