"""Malformed documents and frames."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from hostile_support import DROP, KEY, SIDE, Case, Group, Named, Run, Stage, images

Hostile = Callable[[Run], Named]
NAN = float("nan")


def _within(
    name: str,
    *hostile: Hostile,
    masks: int = 2,
    imbalance: str = "",
    group: Group = "documents",
) -> Case:
    """Return a case in the middle of a good run."""

    def feed(stage: Stage) -> None:
        run = stage.run()
        run.begin()
        run.good()
        for each in hostile:
            run.send(each(run))
        run.good()
        run.end()

    return Case(name, group, feed, masks, imbalance)


def _begins(
    name: str,
    begin: Callable[[Run], list[Named]],
    masks: int = 2,
    imbalance: str = "",
    uid: Any = "spoiled",
    live_only: bool = False,
) -> Case:
    """Return a case whose run begins badly."""

    def feed(stage: Stage) -> None:
        run = stage.run(uid)
        run.send(*begin(run))
        run.good()
        run.good()
        run.end()

    return Case(name, "documents", feed, masks, imbalance, live_only)


def _uid(name: str, uid: Any, masks: int = 2) -> Case:
    return _begins(name, lambda run: [run.start(), run.descriptor()], masks, uid=uid)


def _cyclic() -> Any:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    return loop


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


class _Unshown:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def _ends(name: str, *end: Hostile, masks: int = 2, imbalance: str = "") -> Case:
    def feed(stage: Stage) -> None:
        run = stage.run()
        run.begin()
        run.good()
        run.good()
        for each in end:
            run.send(each(run))

    return Case(name, "documents", feed, masks, imbalance)


def _page(run: Run, **changes: Any) -> Named:
    events = [run.event()[1] for _ in range(3)]
    page = {
        "uid": [event["uid"] for event in events],
        "descriptor": "descriptor",
        "seq_num": [event["seq_num"] for event in events],
        "time": [2.0] * 3,
        "data": {"image": [event["data"]["image"] for event in events]},
        "timestamps": {"image": [2.0] * 3},
        "filled": {"image": [True] * 3},
    }
    return "event_page", {**page, **changes}


def _no_documents(stage: Stage) -> None:
    """Values that are no documents, under every name."""
    run = stage.run()
    run.begin()
    run.good()
    names = ("start", "descriptor", "event", "event_page", "resource", "datum", "datum_page")
    names += ("stream_resource", "stream_datum", "bulk_events", "bulk_datum", "odd", "", "\0")
    for name in (*names, "stop", None, 5, b"event", ("event",)):
        for doc in ({}, None, 5, "text", b"\x80", [], [1], {5: 6}, {"uid": {}}, {"uid": None}):
            run.send((name, doc))
    run.good()
    run.end()


_RUNS = [
    Case("values that are no documents at all", "documents", _no_documents),
    _begins("a start without uid", lambda run: [run.start(uid=DROP), run.descriptor()], 0),
    _uid("a uid that is a number", 5, masks=0),
    _uid("a uid that is a list", ["a"], masks=0),
    _uid("a uid that is NaN", NAN, masks=0),
    _uid("an empty uid", "", masks=0),
    _uid("a uid that leads up the folders", "../../../../escaped"),
    _uid("a uid that is an absolute path", "/etc/passwd"),
    _uid("a uid with a NUL in it", "a\0b"),
    _uid("a uid with half a surrogate", "a\ud800b"),
    _uid("a uid of one megabyte", "u" * 2**20, masks=0),
    _begins(
        "the same start twice", lambda run: [run.start(), run.start(), run.descriptor()], masks=2
    ),
    _begins("metadata that hold themselves", lambda run: [
        run.start(sample=_cyclic()), run.descriptor()
    ], live_only=True),
    _begins("metadata nested a thousand deep", lambda run: [
        run.start(sample=_nested(1000)), run.descriptor()
    ]),
    _begins("metadata of forty megabytes", lambda run: [
        run.start(sample="x" * 40_000_000), run.descriptor()
    ]),
    _begins("metadata with odd keys and values", lambda run: [
        run.start(**{"a.b": NAN, "c/d": None, "tiled_access_tags": 5, "scan_id": "../x", "e": {5}}),
        run.descriptor(),
    ]),
    _begins("metadata with an object that cannot be shown", lambda run: [
        run.start(sample=_Unshown()), run.descriptor()
    ], masks=0, live_only=True),
]  # fmt: skip


_DESCRIPTORS = [
    _begins("an event before its descriptor", lambda run: [
        run.start(), run.event(), run.descriptor()
    ]),
    _begins("a descriptor without data_keys", lambda run: [
        run.start(), run.descriptor(uid="bad", data_keys=DROP), run.descriptor()
    ]),
    _begins("data_keys that are no mapping", lambda run: [
        run.start(), run.descriptor(uid="bad", data_keys=[KEY]), run.descriptor()
    ]),
    _begins("a data key that is nothing", lambda run: [
        run.start(), run.descriptor(data_keys={"other": None, 5: 5, "image": KEY})
    ]),
    _begins("a descriptor of a run that nobody knows", lambda run: [
        run.start(), run.descriptor(run_start="nobody", uid="x"), run.descriptor()
    ]),
    _begins("a descriptor without the uid of its run", lambda run: [
        run.start(), run.descriptor(run_start=DROP)
    ]),
    _begins("a uid of a descriptor that is a list", lambda run: [
        run.start(), run.descriptor(uid=["a"]), run.descriptor()
    ]),
    _begins("a declared shape of ten to the tenth pixels", lambda run: [
        run.start(), run.descriptor({**KEY, "shape": [10**5, 10**5]})
    ]),
    _begins("declared images without number", lambda run: [
        run.start(), run.descriptor({**KEY, "shape": [10**12, SIDE, SIDE]})
    ]),
    _begins("a declared shape of negative, odd and endless sides", lambda run: [
        run.start(), run.descriptor({**KEY, "shape": [-1, NAN, "x", 2**70, SIDE, SIDE]})
    ]),
    _begins("a declared dtype of Python objects", lambda run: [
        run.start(), run.descriptor({**KEY, "dtype_numpy": "object"})
    ]),
    _begins("a declared dtype of a hundred megabytes", lambda run: [
        run.start(), run.descriptor({**KEY, "dtype_numpy": "|V100000000"})
    ]),
    _within("a descriptor that changes the shape in the middle", lambda run: run.descriptor(
        {**KEY, "shape": [7, 9]}
    )),
    _within("a second descriptor that takes the key away", lambda run: run.descriptor(
        uid="other", data_keys={"motor": {"dtype": "number", "shape": []}}
    ), lambda run: run.event(descriptor="other", data={"motor": 1.0})),
    _within("twenty thousand descriptors", lambda run: (run.send(*(
        run.descriptor(uid=f"d{n}") for n in range(20_000)
    )), run.descriptor())[1]),
]  # fmt: skip

_EVENTS = [
    *(
        _within(f"an event without {key}", lambda run, key=key: run.event(**{key: DROP}), masks=n)
        for key, n in (("uid", 3), ("descriptor", 2), ("seq_num", 2), ("data", 2), ("time", 3))
    ),
    *(
        _within(f"a seq_num of {text}", lambda run, value=value: run.event(seq_num=value))
        for text, value in (
            ("NaN", NAN),
            ("nothing", None),
            ("text", "3"),
            ("zero", 0),
            ("less than zero", -(10**12)),
            ("ten to the twelfth", 10**12),
            ("two to the seventieth", 2**70),
            ("an array", np.arange(3)),
        )
    ),
    _within("timestamps of NaN and text", lambda run: run.event(
        timestamps={"image": NAN}, time="noon"
    ), masks=3),
    _within("data that are a list", lambda run: run.event(data=[1, 2])),
    _within("data without the image", lambda run: run.event(data={"motor": 1.0})),
    _within("an event of a descriptor that nobody knows", lambda run: run.event(descriptor="?")),
    _within("the same uid for two events", lambda run: run.event(uid="event 1")),
    _within("an image that is the name of a datum that never came", lambda run: run.event(
        "nobody/0", filled={"image": False}
    )),
    _within("a page of columns of unequal lengths", lambda run: _page(run, seq_num=[2], time=[]),
            masks=3),
    _within("a page without columns", lambda run: _page(run, data=None)),
    _within("a page of one good and two bad numbers", lambda run: _page(run, seq_num=[2, None, {}]),
            masks=3),
]  # fmt: skip

_ENDS = [
    _ends("two stop documents", lambda run: run.stop(), lambda run: run.stop(uid="again")),
    _ends("no stop document"),
    _ends("a stop that counts frames beyond belief", lambda run: run.stop(
        num_events={"primary": 10**12}
    ), imbalance="the raw run counts"),
    _ends("a stop that counts fewer than came", lambda run: run.stop(num_events={"primary": 1})),
    _ends("a stop that counts in words", lambda run: run.stop(num_events={"primary": "two"})),
    _ends("a stop that counts nothing", lambda run: run.stop(num_events=None, exit_status=5)),
    _ends("a stop of a run that nobody knows", lambda run: run.stop(run_start="nobody")),
    Case("a stop before any start", "documents", lambda stage: stage.run().end(), masks=0),
    Case("an event in the middle of a run that nobody saw begin", "documents",
         lambda stage: stage.run().good(), masks=0),
    _within("a start in the middle of its run", lambda run: run.start()),
    _ends("a stop whose reason is no text", lambda run: run.stop(reason={"a": [NAN] * 10})),
]  # fmt: skip


def _datum(run: Run, **changes: Any) -> Named:
    name, doc = run.datum("resource", 1, 2)
    return name, {**doc, **changes}


_DATUMS = [
    _within("a datum before its resource", lambda run: (
        "datum", {"datum_id": "r/0", "resource": "r", "datum_kwargs": {"point_number": 0}}
    )),
    _within("a datum without an end", lambda run: (
        "datum", {"datum_id": None, "resource": {}, "datum_kwargs": 5}
    )),
    _within("a stream_datum before its resource", lambda run: run.datum("nobody", 0, 1)),
    _within("a stream_datum that ends before it begins", lambda run: run.datum("nobody", 5, 1)),
    _within("a stream_datum of ten to the twelfth frames", lambda run: run.datum(
        "nobody", 0, 10**12
    )),
    _within("a stream_datum of negative frames", lambda run: run.datum("nobody", -9, -1)),
    _within("a stream_datum without indices", lambda run: _datum(run, indices=None)),
    _within("a page of datums of unequal lengths", lambda run: (
        "datum_page",
        {"resource": "r", "datum_id": ["r/0"], "datum_kwargs": {"point_number": [1, 2, 3], "x": []}}
    )),
    _within("resources that name nothing", lambda run: (
        "resource", {"uid": "r", "spec": 5, "root": None, "resource_path": {}, "run_start": run.uid}
    ), lambda run: run.event("r/0")),
]  # fmt: skip

DOCUMENTS = (*_RUNS, *_DESCRIPTORS, *_EVENTS, *_ENDS, *_DATUMS)


def _frame(name: str, image: Any, masks: int = 2, live_only: bool = False) -> Case:
    make = image if callable(image) else lambda: image
    case = _within(name, lambda run: run.event(make()), masks=masks, group="frames")
    return replace(case, live_only=live_only)


def _big(frame: Any) -> Any:
    return np.asarray(frame).astype(">u2")


FRAMES = (
    _frame("NaN only", np.full((SIDE, SIDE), np.nan)),
    _frame("infinity only", np.full((SIDE, SIDE), np.inf)),
    _frame("zeros only", np.zeros((SIDE, SIDE), np.uint16)),
    _frame("negative counts", np.full((SIDE, SIDE), -7, np.int32)),
    _frame("counts whose squares overflow", lambda: images()[0] * 1e20),
    _frame("the largest numbers there are", np.full((SIDE, SIDE), 2**64 - 1, np.uint64)),
    _frame("complex numbers", lambda: images()[0] * 1j),
    _frame("Python objects", np.full((SIDE, SIDE), None, object)),
    _frame("text", np.full((SIDE, SIDE), "x")),
    _frame("no pixels", np.zeros((0, 0))),
    _frame("no rows", np.zeros((0, SIDE))),
    _frame("one pixel", np.ones((1, 1))),
    _frame("a line", np.ones((1, SIDE * SIDE))),
    _frame("a number", 5),
    _frame("five dimensions", np.ones((1, 1, 1, SIDE, SIDE))),
    _frame("another size", np.ones((31, 47), np.uint16)),
    _frame("booleans", np.ones((SIDE, SIDE), bool)),
    _frame("big-endian numbers", lambda: _big(images()[0]), masks=3),
    _frame("float16", lambda: images()[0].astype(np.float16), masks=3),
    _frame("a view of every other pixel, backwards", lambda: np.repeat(
        np.repeat(images()[0], 2, 0), 2, 1
    )[::-2, ::-2], masks=3),
    _frame("records", np.zeros((SIDE, SIDE), [("a", "u2"), ("b", "f8")])),
    _frame("times", np.zeros((SIDE, SIDE), "M8[s]")),
    _frame("lists of unequal lengths", [[1, 2], [3]]),
    _frame("lists nested a hundred deep", lambda: _nested(100)),
    _frame("four megapixels of noise", lambda: np.random.default_rng(1).integers(
        0, 9, (2048, 2048)
    )),
    _frame("a masked array", lambda: np.ma.MaskedArray(np.zeros((SIDE, SIDE)), mask=True)),
    _frame("one pixel repeated without memory", lambda: np.broadcast_to(np.uint8(1), (10**6,) * 2),
           live_only=True),
    _frame("the bytes of anything", lambda: np.frombuffer(
        np.random.default_rng(2).bytes(8 * SIDE * SIDE), np.float64
    ).reshape(SIDE, SIDE)),
)  # fmt: skip
