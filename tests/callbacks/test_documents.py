from collections import ChainMap, OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from ptychoseg_callbacks.documents import (
    array_bytes,
    copied,
    decode,
    drop_reason,
    dropped,
    encode,
    without_arrays,
)

ODD: dict[str, Any] = {
    "text": "é",
    "numpy text": np.str_("x"),
    "float": np.float64(1.5),
    "single": np.float32(1.5),
    "int": np.int16(-3),
    "flag": np.bool_(True),
    "none": None,
    "nan": float("nan"),
    "complex": 1 + 2j,
    "path": Path("a/b"),
    "tuple": (1, (2, 3)),
    "set": {7},
    "ordered": OrderedDict(a=1),
    "proxy": MappingProxyType({"b": 2}),
    "chain": ChainMap({"c": 3}),
    "bytes": b"\x00\xff",
    "device": object,
    3: "a number as key",
    "date": np.datetime64("2024-01-01"),
}


def as_text(value: Any) -> str:
    return repr(value).replace("np.float64(1.5)", "1.5").replace("np.str_('x')", "'x'")


def test_both_workers_hand_over_the_same_document() -> None:
    assert as_text(decode(encode(ODD))) == as_text(copied(ODD))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.uint16).reshape(3, 4),
        np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2],
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.zeros((0, 4), np.float32),
        np.array(5, np.uint8),
        np.array([True, False]),
        np.array(["a", "bc"]),
        np.ma.masked_equal(np.arange(6).reshape(2, 3), 2),
        np.array(["2024-01-01"], "M8[D]"),
    ],
)
def test_arrays_arrive_as_they_were(array: np.ndarray) -> None:
    expected = array.astype(str) if array.dtype.kind == "M" else np.asarray(array)
    for arrived in (decode(encode({"a": array}))["a"], copied({"a": array})["a"]):
        assert type(arrived) is np.ndarray
        assert arrived.dtype == expected.dtype
        np.testing.assert_array_equal(arrived, expected)


def test_a_copy_shares_nothing_with_the_original() -> None:
    original = {"data": {"image": np.zeros((2, 2)), "list": [1]}}
    for arrived in (copied(original), decode(encode(original))):
        original["data"]["image"][:] = 1
        original["data"]["list"].append(2)
        assert arrived["data"]["image"].sum() == 0
        assert arrived["data"]["list"] == [1]
        original = {"data": {"image": np.zeros((2, 2)), "list": [1]}}


@pytest.mark.parametrize("dtype", [object, [("a", "O"), ("b", "f4")], [("a", "i4")]])
def test_arrays_of_objects_are_replaced_by_a_note(dtype: Any) -> None:
    doc = {"image": np.zeros((2, 3), dtype)}
    for arrived in (copied(doc), decode(encode(doc))):
        assert "send numbers" in drop_reason(arrived["image"])
        assert arrived["image"]["shape"] == [2, 3]


class Bomb:
    def __reduce__(self) -> Any:
        return print, ("a pickle was loaded",)


@pytest.mark.parametrize(
    "array",
    [
        {b"nd": True, b"type": "|O", b"kind": b"", b"shape": (1,), b"data": bytes(8)},
        {b"nd": False, b"type": "|O", b"data": bytes(8)},
        np.array([Bomb()], object),
        np.zeros(2, [("a", "i4")]),
    ],
)
def test_pickles_and_objects_are_refused_when_they_arrive(
    array: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = msgpack.packb({"image": array}, default=msgpack_numpy.encode)
    with pytest.raises(ValueError, match="refused an array"):
        decode(data)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01", b"\xc7\x01\x05x"])
def test_what_is_not_a_message_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode(data)


def test_size_counts_images_in_events_and_pages() -> None:
    image = np.zeros((4, 4), np.uint16)
    assert array_bytes({"data": {"image": image, "x": 1.0}}) == 32
    assert array_bytes({"data": {"image": [image, image], "x": [1.0, 2.0]}}) == 64 + 16
    assert array_bytes({"data": {"image": [[1, 2], [3, 4]]}}) == 32


def test_a_document_without_arrays_keeps_their_shapes() -> None:
    image = np.zeros((4, 5), np.uint16)
    doc = {"data": {"image": image, "x": 1.0, "lists": [[1, 2, 3], [4, 5, 6]]}, "seq_num": 3}
    assert without_arrays(doc, "no room") == {
        "data": {
            "image": dropped("no room", (4, 5)),
            "x": 1.0,
            "lists": dropped("no room", (2, 3)),
        },
        "seq_num": 3,
    }
    page = {"data": {"image": [image, image], "x": [1.0, 2.0]}}
    assert without_arrays(page, "no room")["data"] == {
        "image": [dropped("no room", (4, 5))] * 2,
        "x": [1.0, 2.0],
    }


def test_integer_beyond_64_bits_travels_as_text() -> None:
    assert decode(encode({"huge": 2**70})) == {"huge": str(2**70)}


def test_msgpack_itself_is_left_alone() -> None:
    with pytest.raises(TypeError):
        msgpack.packb(np.zeros(2))
