import sys
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from ptychoseg_stream.node.graph import DTYPES, Layout, Reader, Writer
from ptychoseg_stream.node.hints import fits


@dataclass(frozen=True)
class Pair:
    left: Any
    right: Any = None


class Counted:
    """A plain class that declares its attributes."""

    total: int
    _last: NDArray[np.float32] | None

    def __init__(self) -> None:
        self.total = 0
        self._last = None


class Colour(IntEnum):
    RED = 1


LAYOUTS = {kind: Layout.of(kind) for kind in (Pair, Counted)}


def there_and_back(value, given=()):
    writer = Writer(LAYOUTS, given)
    tree = writer.tree(value)
    return Reader(LAYOUTS, given, [b.copy() for b in writer.blobs]).value(tree)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, -(2**63), 2**64 - 1, 0.1, -0.0, float("inf"), "", "Å"),
        *([], [1, [2.0, None]], (), (1, "a"), (((1,),),), {}, {"a": [1], 2: (3,)}),
        *(deque([1, 2], maxlen=4), deque(), [deque([()], maxlen=1)]),
    ],
    ids=repr,
)
def test_plain_value_comes_back_with_its_type(value):
    back = there_and_back(value)
    assert repr(back) == repr(value)
    assert type(back) is type(value)
    assert getattr(back, "maxlen", None) == getattr(value, "maxlen", None)


def test_nan_comes_back():
    assert np.isnan(there_and_back(float("nan")))


@pytest.mark.parametrize("dtype", DTYPES)
def test_array_and_number_come_back_bit_by_bit(dtype):
    array = np.arange(24).astype(dtype).reshape(2, 3, 4)
    back = there_and_back(array)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, (2, 3, 4), array.tobytes())
    assert back.flags.writeable
    number = there_and_back(array[1, 2, 3])
    assert (type(number), number) == (type(array[1, 2, 3]), array[1, 2, 3])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(()),
        np.zeros((0, 3)),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(12.0).reshape(3, 4)[:, 1:3],
        np.arange(12.0)[::-2],
    ],
    ids=["0-d", "empty", "Fortran", "cut", "backwards"],
)
def test_array_of_any_layout_comes_back(array):
    back = there_and_back(array)
    assert back.shape == array.shape
    assert np.array_equal(back, array)
    if array.flags.f_contiguous:
        assert back.flags.f_contiguous


def test_what_is_shared_is_written_once_and_shared_again():
    array, shared = np.arange(6.0), [1]
    writer = Writer(LAYOUTS)
    tree = writer.tree([array, array[None], array, Pair(shared, shared)])
    assert sum(blob.size for blob in writer.blobs) == array.nbytes
    one, row, again, pair = Reader(LAYOUTS, (), [b.copy() for b in writer.blobs]).value(tree)
    assert one is again
    assert pair.left is pair.right
    one[2] = 7
    assert row[0, 2] == 7


def test_what_the_reader_has_is_named_only():
    given = Pair(1, 2)
    back = there_and_back([given, Pair(given)], [given])
    assert back[0] is given
    assert back[1].left is given


def test_plain_object_comes_back_without_its_constructor():
    counted = Counted()
    counted.total, counted._last = 5, np.ones(3, np.float32)
    back = there_and_back(counted)
    assert type(back) is Counted
    assert back.total == 5
    assert np.array_equal(back._last, counted._last)


def test_attribute_that_is_missing_or_not_declared_is_refused():
    counted = Counted()
    counted.extra = 1
    del counted.total
    with pytest.raises(TypeError, match="Counted: annotate extra, total in the class"):
        there_and_back(counted)


def test_attribute_of_another_type_is_refused():
    counted = Counted()
    counted._last = np.ones(3, np.int32)
    with pytest.raises(TypeError, match=r"Counted\._last is a ndarray"):
        there_and_back(counted)


@pytest.mark.parametrize(
    "value",
    [
        *(object(), b"x", {1}, Counter("aa"), Colour.RED, 1j, print, Pair),
        *(np.array([object()]), np.zeros(2, complex), np.array(["a"]), np.ma.masked_array([1])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_that_is_not_listed_is_refused(value):
    with pytest.raises(TypeError, match=r"can(not)? be written"):
        there_and_back([Pair(value)])


@pytest.mark.parametrize(
    "tree",
    [
        *(["object", "Popen", []], ["object", "Pair", [1]], ["object", "Counted", ["a", None]]),
        *(["array", "|O", [1], "C", 0], ["array", "<f8", [-1], "C", 0], ["array", "<f8"]),
        *(["array", "<f8", [2**40], "C", 0], ["array", "<f8", [3], "C", 9], ["number", "|O", b""]),
        *(["same", 0], ["same", -1], ["same", True], ["same"], [], ["list", 3], {"a": 1}, b"x"),
        *(["dict", [[["list", []], 1]]], ["deque", -1, []], ["number", "<f8", b"1"]),
    ],
    ids=str,
)
def test_tree_that_no_writer_made_is_refused(tree):
    with pytest.raises((ValueError, TypeError, LookupError)):
        Reader(LAYOUTS, (), [np.zeros(24, np.uint8)]).value(tree)


def test_tree_that_is_too_deep_is_refused():
    tree = None
    for _ in range(sys.getrecursionlimit() // 2):
        tree = ["list", [tree]]
    with pytest.raises(ValueError, match="too deep"):
        Reader(LAYOUTS, (), []).value(tree)


# --- annotations ----------------------------------------------------------------------------------

HALF = np.zeros(2, np.float32)


def shown(part):
    """Return a name that is the same in every process: no address."""
    return type(part).__name__ if " at 0x" in str(part) else str(part)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        *((1, int), (np.int64(1), int), (1, float), (np.float32(1), float), (True, bool)),
        *((None, None), (None, int | None), ("a", Literal["a", "b"]), ([1], list[int])),
        *(((1, 2.0), tuple[int, float]), ((1, 2, 3), tuple[int, ...]), ((), tuple[int, ...])),
        *(((1,), Sequence[int]), (deque([1.0]), deque[float]), ({"a": 1}, Mapping[str, int])),
        *((HALF, NDArray[np.floating]), (HALF, NDArray), (HALF, NDArray[np.float32] | None)),
        *((Pair(1), Pair), (object(), Any)),
    ],
    ids=shown,
)
def test_value_fits_what_is_declared(value, hint):
    assert fits(value, hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        *((True, int), (1.0, int), ("1", int), (True, float), (1, bool), (0, None), (0, str)),
        *((None, int), ("c", Literal["a", "b"]), ((1,), list[int]), (["a"], list[int])),
        *(((1,), tuple[int, float]), ([1], tuple[int, ...]), ("ab", Sequence[str])),
        *(([1.0], deque[float]), ({1: 1}, dict[str, int]), ({"a": "b"}, Mapping[str, int])),
        *((HALF, NDArray[np.float64]), ([1.0], NDArray[np.floating]), (Counted(), Pair)),
    ],
    ids=shown,
)
def test_value_does_not_fit_what_is_declared(value, hint):
    assert not fits(value, hint)


def test_annotation_that_is_not_understood_is_a_mistake():
    with pytest.raises(TypeError, match="not understood"):
        fits({1}, set[int])
