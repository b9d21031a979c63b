"""Messages as bytes: what goes in comes out, and nothing else does."""

import json
import pickle
import zlib
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from feed_support import SHAPE, products_of

from ptychoseg_stream.errors import FeedError
from ptychoseg_stream.feed import (
    FrameItem,
    Item,
    PositionsItem,
    ProductsItem,
    Revision,
    Start,
    Stop,
)
from ptychoseg_stream.science.experiment import Experiment
from ptychoseg_stream.sinks.feed.messages import decode, encode
from ptychoseg_stream.sinks.feed.wire import join, pack, split, unpack

BITS = np.arange(48, dtype=np.uint16).reshape(SHAPE)
CLASSES = np.full(SHAPE, 255, np.uint8)


def frame_item(image: Any) -> FrameItem:
    return FrameItem(3, "raw", 2, 1.5, 3, 0, image, CLASSES, BITS, 1, "ok", "disc")


ITEMS: list[Item] = [
    Start(0, "raw", "derived", SHAPE, 40, Experiment(800.0, 0.1, (1e-5, 2e-5)), tiled="http://a/b"),
    Start(0, "raw", "", (0, 0), positions=np.array([[1.0, 2.0], [np.nan, np.nan]])),
    frame_item(np.arange(48, dtype=">u2").reshape(SHAPE)),
    frame_item(np.full(SHAPE, np.nan, np.float32)),
    frame_item(np.zeros((2, 3), bool)),
    frame_item(None),
    Revision(4, "raw", 0, 7, BITS, 1),
    PositionsItem(5, "raw", 3, np.array([[1e-9, np.nan]])),
    ProductsItem(6, "raw", products_of(3, [(1, 2)], 2)),
    Stop(7, "raw", "fail", "Übel", {"received": 2, "refused": {"why": 1}}),
]


def plain(value: Any) -> Any:
    """Return an item as values that can be compared."""
    if is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.newbyteorder("<").str, value.astype("<f8").tobytes()
    return repr(value)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: type(item).__name__)
def test_an_item_comes_out_as_it_went_in(item: Item) -> None:
    assert plain(decode(unpack(encode(item)))) == plain(item)
    assert plain(decode(unpack(split(join(encode(item)))))) == plain(item)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: type(item).__name__)
def test_a_header_is_json_that_every_language_reads(item: Item) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    header = json.loads(encode(item)[1], parse_constant=refuse)
    assert header["version"] == 1
    assert header["run"] == "raw"
    assert header["seq"] == item.seq


def test_masks_take_a_small_part_of_a_message() -> None:
    image = np.ones((104, 104), np.uint16)
    bits, classes = np.zeros((104, 104), np.uint16), np.ones((104, 104), np.uint8)
    parts = encode(FrameItem(1, "raw", 0, 0.0, 1, 0, image, classes, bits, 0, "ok", "disc"))
    assert len(parts[2]) == image.nbytes
    assert sum(map(len, parts[3:])) < 500


def changed(**more: Any) -> list[bytes]:
    """Return the message of an array whose description is another."""
    parts = pack("mask", {"run": "raw", "seq": 0}, {"bits": BITS})
    header = json.loads(parts[1])
    header["arrays"][0].update(more)
    return [parts[0], json.dumps(header).encode(), *parts[2:]]


HOSTILE = {
    "nothing": [],
    "one part": [b"frame"],
    "a pickle": [b"frame", pickle.dumps({"version": 1})],
    "a pickle in place of an array": [*pack("mask", {}, {"bits": BITS})[:2], pickle.dumps(BITS)],
    "no JSON": [b"frame", b"\xff\xfe{"],
    "JSON that is no object": [b"frame", b"[1]"],
    "JSON without end": [b"frame", b"[" * 100_000],
    "JSON with NaN": [b"frame", b'{"version": 1, "a": NaN}'],
    "a long header": [b"frame", b" " * (1 << 21)],
    "no version": [b"frame", b"{}"],
    "another version": [b"frame", b'{"version": 2}'],
    "too few arrays": pack("mask", {}, {"bits": BITS})[:2],
    "too many arrays": [*pack("mask", {}), b"more"],
    "very many parts": [b"frame", b"{}", *[b""] * 1000],
    "arrays that are none": [b"frame", b'{"version": 1, "arrays": [3]}', b""],
    "a huge shape": changed(shape=[1 << 30, 1 << 30]),
    "a shape that overflows": changed(shape=[1 << 40, 1 << 40, 1 << 40]),
    "a negative shape": changed(shape=[-6, -8]),
    "a shape of words": changed(shape=["6", "8"]),
    "a shape of truth": changed(shape=[True, 48]),
    "another shape": changed(shape=[6, 9]),
    "objects": changed(dtype="|O"),
    "records": changed(dtype="i4,i4"),
    "a type that is none": changed(dtype=[1]),
    "a name of the type that numpy would evaluate": changed(dtype="<u2,(2,)<u2"),
    "another coding": changed(coding="pickle"),
    "raw that is compressed": changed(coding="raw"),
    "a bomb": [*changed(shape=[2, 2])[:2], zlib.compress(bytes(1 << 24))],
    "a torn stream": [*changed()[:2], pack("mask", {}, {"bits": BITS})[2][:-6]],
}


@pytest.mark.parametrize("parts", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_message_is_refused_in_words(parts: list[bytes]) -> None:
    with pytest.raises(FeedError, match=r"malformed|version"):
        unpack(parts)


WRONG = {
    "unknown": (b"evil", {}, "unknown kind"),
    "no run": (b"stop", {"run": None}, "run"),
    "no number": (b"stop", {"seq": "1"}, "seq"),
    "true is no number": (b"stop", {"seq": True}, "seq"),
    "below zero": (b"stop", {"seq": -1}, "seq"),
    "no account": (b"stop", {"account": []}, "account"),
    "frame without arrays": (b"frame", {}, "classes"),
}


@pytest.mark.parametrize(("kind", "fields", "word"), WRONG.values(), ids=WRONG)
def test_a_message_that_lacks_something_says_what(
    kind: bytes, fields: dict[str, Any], word: str
) -> None:
    header = {"run": "raw", "seq": 0, "exit_status": "", "reason": "", "account": {}, **fields}
    with pytest.raises(FeedError, match=word):
        decode(unpack([kind, *pack("x", header)[1:]]))


def test_arrays_of_one_frame_have_one_size() -> None:
    arrays = {"classes": CLASSES, "valid_bits": BITS[:2]}
    with pytest.raises(FeedError, match="classes, valid_bits"):
        decode(unpack(pack("frame", {"run": "raw", "seq": 0}, arrays)))


@pytest.mark.parametrize("record", [b"", b"\xff\xff\xff\xff", b"\x02\0\0\0\x01\0\0\0\x01\0\0\0a"])
def test_what_is_no_record_is_refused(record: bytes) -> None:
    with pytest.raises(FeedError, match="add up"):
        split(record)
