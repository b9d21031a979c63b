"""Frames of a file that no document named."""

import random

import pytest
from ptychoseg_callbacks.frames.shelves import Shelf, size


def test_frames_between_two_of_ours_are_free_unless_another_stream_has_them() -> None:
    shelf = Shelf()
    shelf.use(0, 2)
    shelf.claim(3, 4)
    shelf.claim(4, 5)
    assert shelf.before(7) == [(2, 3), (5, 7)]
    assert shelf.before(2) == []
    assert shelf.before(0) == []
    shelf.use(7, 8)
    assert shelf.before(9) == [(8, 9)]


@pytest.mark.parametrize(
    ("count", "free"), [(1, [(2, 3)]), (2, [(2, 3), (5, 6)]), (4, [(2, 3), (5, 8)])]
)
def test_next_frames_of_ours_are_the_first_free_ones(
    count: int, free: list[tuple[int, int]]
) -> None:
    shelf = Shelf()
    shelf.use(0, 2)
    shelf.claim(3, 5)
    assert shelf.after(count) == free


def test_free_frames_are_those_nobody_claimed_in_any_order() -> None:
    chance = random.Random(1)
    for _ in range(100):
        shelf, free = Shelf(), set(range(5, 60))
        shelf.use(0, 5)
        for _ in range(chance.randrange(8)):
            start = chance.randrange(60)
            stop = start + chance.randrange(1, 6)
            shelf.claim(start, stop)
            free -= set(range(start, stop))
        ranges = shelf.before(60)
        assert {n for first, stop in ranges for n in range(first, stop)} == free
        assert size(ranges) == len(free)
        assert size(shelf.after(70)) == 70


def test_claims_take_bounded_memory() -> None:
    shelf = Shelf()
    for n in range(5000):
        shelf.claim(2 * n, 2 * n + 1)
    assert len(shelf.before(10_000)) <= 1001
