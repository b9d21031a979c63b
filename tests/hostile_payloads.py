"""Bytes that reach a port, alone or as the second half of ``[name, document]``."""

import pickle
import struct
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
from hostile_support import Case, Group, Stage
from ptychoseg_callbacks.documents import encode

Make = Callable[[Stage], Any]


def _noise(size: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def _array(data: bytes, **changes: Any) -> bytes:
    """Return an event whose image is an array as msgpack_numpy writes it, changed."""
    array = {b"nd": True, b"type": "<u2", b"kind": b"", b"shape": [2, 2], b"data": data}
    array.update({key.encode(): value for key, value in changes.items()})
    event = {"uid": "hostile", "descriptor": "descriptor", "seq_num": 2, "data": {"image": array}}
    return msgpack.packb(event)


def _pickled(stage: Stage, protocol: int) -> bytes:
    return pickle.dumps({"uid": "hostile", "data": stage.bomb()}, protocol)


_BODIES: list[tuple[str, Make]] = [
    ("nothing", lambda stage: b""),
    ("noise", lambda stage: _noise(10_000)),
    ("three megabytes of noise", lambda stage: _noise(3_000_000)),
    ("msgpack that was cut off", lambda stage: encode(stage.run().event()[1])[:-100]),
    ("msgpack with something behind it", lambda stage: encode(stage.run().event()[1]) + b"\0" * 9),
    ("a pickle of protocol 0", lambda stage: _pickled(stage, 0)),
    ("a pickle of protocol 2", lambda stage: _pickled(stage, 2)),
    ("a pickle of protocol 5", lambda stage: _pickled(stage, 5)),
    ("an array of Python objects", lambda stage: _array(
        pickle.dumps(np.array([stage.bomb()], object)), type="|O", kind=b"O", shape=[1]
    )),
    ("an array of objects that calls itself numbers", lambda stage: _array(
        pickle.dumps(stage.bomb()), kind=b"O"
    )),
    ("an array of a dtype that hides objects", lambda stage: _array(
        pickle.dumps(stage.bomb()), type=[["a", "|O"]], kind=b"V"
    )),
    ("an array of a dtype that is code", lambda stage: _array(
        b"", type=f"__import__('os').mkdir({str(stage.executed)!r})"
    )),
    ("an array that is larger than its bytes", lambda stage: _array(b"12", shape=[10**6, 10**6])),
    ("an array of negative sides", lambda stage: _array(b"12345678", shape=[-1, -1])),
    ("an array of a hundred dimensions", lambda stage: _array(b"12", shape=[1] * 100)),
    ("an array of elements of a gigabyte", lambda stage: _array(b"", type="|V1000000000")),
    ("an array without a dtype", lambda stage: _array(b"12345678", type=None)),
    ("a complex number that is code", lambda stage: msgpack.packb(
        {b"complex": True, b"data": "__import__('os')"}
    )),
    ("an extension type", lambda stage: msgpack.packb({"uid": msgpack.ExtType(42, b"payload")})),
    ("a time of msgpack's own", lambda stage: b"\x81\xa3uid\xd6\xff" + bytes(4)),
    ("lists nested a hundred thousand deep", lambda stage: b"\x91" * 100_000),
    ("maps nested a thousand deep", lambda stage: b"\x81\xa1a" * 1000 + b"\xc0"),
    ("a list of four billion declared", lambda stage: b"\xdd\xff\xff\xff\xff"),
    ("a map of four billion declared", lambda stage: b"\xdf\xff\xff\xff\xff"),
    ("bytes of four gigabytes declared", lambda stage: b"\xc6\xff\xff\xff\xff" + bytes(100)),
    ("text of four gigabytes declared", lambda stage: b"\xdb\xff\xff\xff\xff" + bytes(100)),
    ("text that is no UTF-8", lambda stage: b"\x81\xa3uid\xa3\xff\xfe\xfd"),
    ("a map with lists as keys", lambda stage: b"\x81\x91\x01\x02"),
    ("a list in place of a document", lambda stage: msgpack.packb([1, 2, 3])),
    ("a number in place of a document", lambda stage: msgpack.packb(7)),
    ("a byte that msgpack never uses", lambda stage: b"\xc1"),
]  # fmt: skip


def _spoiling(name: str, group: Group, make: Make) -> Case:
    def feed(stage: Stage) -> None:
        run = stage.run()
        run.begin()
        run.good()
        made = make(stage)
        stage.raw(*made) if isinstance(made, tuple) else stage.raw(made)
        run.good()
        run.end()

    return Case(name, group, feed)


def _named(make: Make, name: bytes = b"event") -> Make:
    return lambda stage: b" " + name + b" " + make(stage)


def _good(stage: Stage) -> bytes:
    return encode({"uid": "x"})


def _many_parts(stage: Stage) -> tuple[bytes, ...]:
    return tuple(b"part" for _ in range(1000))


_MESSAGES: list[tuple[str, Make]] = [
    ("no bytes", lambda stage: b""),
    ("one space", lambda stage: b" "),
    ("a thousand spaces", lambda stage: b" " * 1000),
    ("a name and no document", lambda stage: b" event"),
    ("the HTTP of a scanner", lambda stage: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a document of an unknown name", _named(_good, b"__class__")),
    ("a name that is no text", _named(_good, b"\xff\xfe")),
    ("a name of a megabyte", _named(_good, b"n" * 2**20)),
    ("a pickle as the name", lambda stage: b" " + pickle.dumps(stage.bomb()) + b" x"),
    ("a message of two parts", lambda stage: (b"one", b"two")),
    ("a message of three parts", lambda stage: (b"raw", b"event", _good(stage))),
    ("a message of a thousand parts", _many_parts),
    ("a number in front", lambda stage: struct.pack("<Q", 2**63) + b" event " + _good(stage)),
]  # fmt: skip

_PAIRS: list[tuple[str, Make]] = [
    ("a document alone", lambda stage: msgpack.packb({"uid": "x"})),
    ("a triple", lambda stage: msgpack.packb(["event", {}, {}])),
    ("a name that is a map", lambda stage: msgpack.packb([{"event": 1}, {}])),
    ("a name that is not known", lambda stage: msgpack.packb(["eval", {}])),
]


def _pair(make: Make) -> Make:
    return lambda stage: b"\x92\xa5event" + make(stage)


PAYLOADS = (
    *(_spoiling(f"an event of {name}", "bytes", _named(make)) for name, make in _BODIES),
    *(_spoiling(name, "bytes", make) for name, make in _MESSAGES),
    *(_spoiling(f"an event of {name}", "pairs", _pair(make)) for name, make in _BODIES),
    *(_spoiling(name, "pairs", make) for name, make in _PAIRS),
)
