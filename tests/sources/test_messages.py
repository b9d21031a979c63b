import logging
import pickle
import random
from typing import Any

import msgpack
import numpy as np
import pytest
from ptychoseg_callbacks.documents import encode

from ptychoseg_stream.sources.messages import DOCUMENT_NAMES, Messages

log = logging.getLogger("test")

EVENT: dict[str, Any] = {
    "uid": "e1",
    "seq_num": 1,
    "data": {"image": np.arange(12, dtype=np.uint16).reshape(3, 4), "x": np.float64(0.5)},
    "timestamps": {"image": 0.0, "x": 0.0},
    "filled": {},
}


class Harm:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was opened",)


UNREADABLE = {
    "nothing": b"",
    "one word": b"event",
    "no document": b" event ",
    "noise": random.Random(1).randbytes(2_000_000),
    "noise behind a name": b" event " + random.Random(2).randbytes(2_000_000),
    "truncated": b" event " + encode(EVENT)[:-3],
    "too long": b" event " + encode(EVENT) + b"x",
    "pickle": b" event " + pickle.dumps(Harm()),
    "pickle of objects in an array": b" event "
    + encode({b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": b"x"}),
    "short array": b" event "
    + encode({"a": {b"nd": True, b"type": "<u2", b"kind": b"", b"shape": [9], b"data": b"x"}}),
    "absurd array": b" event "
    + encode({"a": {b"nd": True, b"type": "<u2", b"kind": b"", b"shape": [2**62], b"data": b""}}),
    "absurd type": b" event "
    + encode({"a": {b"nd": True, b"type": "U" * 999, b"kind": b"", b"shape": [1], b"data": b""}}),
    "empty number": b" event " + encode({"a": {b"nd": False, b"type": "<u2", b"data": b""}}),
    "not a complex number": b" event " + encode({"a": {b"complex": True, b"data": "__import__"}}),
    "a list as key": b" event " + b"\x81\x90\x01",
    "very deep": b" event " + b"\x91" * 100_000,
    "another name": b" shutdown " + encode({}),
    "a name of other bytes": b" \xff\xfe " + encode({}),
    "a long name": b" " + b"n" * 5000 + b" " + encode({}),
    "a list": b" event " + encode([1, 2]),
    "a number": b" event \x01",
    "json": b' event {"uid": "1"}',
}


@pytest.fixture
def messages() -> Messages:
    return Messages("zmq://somewhere", "send msgpack", log)


@pytest.mark.parametrize("message", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_message_that_cannot_be_read_is_counted_and_logged_with_advice(
    messages: Messages, message: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert messages.read_named(message) is None
    assert messages.unreadable == 1
    (line,) = caplog.messages
    assert line.startswith("zmq://somewhere: left out ")
    assert "send msgpack" in line
    assert len(line) < 400
    assert line.isascii()


def test_each_kind_is_logged_once_and_the_next_document_is_read(
    messages: Messages, caplog: pytest.LogCaptureFixture
) -> None:
    for message in [*UNREADABLE.values(), *UNREADABLE.values()]:
        messages.read_named(message)
    assert messages.unreadable == 2 * len(UNREADABLE)
    assert len(caplog.messages) == 5
    read = messages.read_named(b"prefix event " + encode(EVENT))
    assert read is not None
    assert read[0] == "event"
    np.testing.assert_array_equal(read[1]["data"]["image"], EVENT["data"]["image"])


@pytest.mark.parametrize("name", sorted(DOCUMENT_NAMES))
def test_every_document_of_bluesky_is_known_by_name(messages: Messages, name: str) -> None:
    assert messages.read_named(f" {name} ".encode() + encode({"uid": "1"})) == (name, {"uid": "1"})
    assert messages.read_pair(encode([name, {"uid": "1"}])) == (name, {"uid": "1"})


def test_spaces_within_a_document_do_not_split_it(messages: Messages) -> None:
    read = messages.read_named(b"a start " + encode({"plan": "a b  c"}))
    assert read == ("start", {"plan": "a b  c"})


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc1",
        encode(["event"]),
        encode(["event", {}, 1]),
        encode({"event": {}}),
        encode([1, {}]),
        encode([["event"], {}]),
        encode(["event", [1]]),
        encode(["halt", {}]),
        pickle.dumps(["event", Harm()]),
        msgpack.packb(None),
    ],
)
def test_a_pair_that_is_none_is_left_out(messages: Messages, value: bytes) -> None:
    assert messages.read_pair(value) is None
    assert messages.unreadable == 1


def test_no_cut_or_flipped_byte_gets_through_as_an_exception(messages: Messages) -> None:
    random_ = random.Random(3)
    good = encode(["event", EVENT])
    read = 0
    for _ in range(5000):
        damaged = bytearray(good[: random_.randrange(1, len(good) + 1)])
        for _ in range(random_.randrange(4)):
            damaged[random_.randrange(len(damaged))] = random_.randrange(256)
        pair = messages.read_pair(bytes(damaged))
        assert pair is None or isinstance(pair[1], dict)
        read += pair is not None
    assert messages.unreadable == 5000 - read
    assert messages.unreadable > 4000
