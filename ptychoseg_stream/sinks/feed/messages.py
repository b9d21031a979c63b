"""Items of the feed as messages, and messages as items."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ...errors import FeedError
from ...node.ports import Products
from ...science.experiment import Experiment
from ...science.products import RunProducts
from .fields import Fields
from .items import FrameItem, Item, PositionsItem, ProductsItem, Revision, Start, Stop
from .wire import Message, pack

_MAPS: dict[str, DTypeLike] = {
    "pixel_mask": np.uint16,
    "background": np.float32,
    "background_variance": np.float32,
    "background_samples": np.int32,
    "pupil": np.uint8,
    "mean": np.float32,
}
"""Arrays ``(H, W)`` of `RunProducts`."""


def encode(item: Item) -> list[bytes]:
    """Return the parts of an item's message."""
    common = {"run": item.run, "seq": item.seq}
    if isinstance(item, FrameItem):
        return _frame(item, common)
    if isinstance(item, Start):
        return _start(item, common)
    if isinstance(item, Revision):
        span = {"first": item.first, "last": item.last, "revision": item.revision}
        return pack("mask", {**common, **span}, {"bits": item.bits})
    if isinstance(item, PositionsItem):
        return pack("positions", {**common, "first": item.first}, {"positions": item.positions})
    if isinstance(item, ProductsItem):
        return _products(item.products, common)
    about = {"exit_status": item.exit_status, "reason": item.reason, "account": dict(item.account)}
    return pack("stop", {**common, **about})


def decode(message: Message) -> Item:
    """Return the item of a message.

    Raises
    ------
    FeedError
        If it is none: of an unknown kind, or something is missing or of another type.
    """
    reader = _READERS.get(message.kind)
    if reader is None:
        raise FeedError(f"a message of unknown kind {message.kind!r:.40} came through the feed")
    return reader(Fields(message))


def _start(item: Start, common: Mapping[str, Any]) -> list[bytes]:
    header = {
        **common,
        "derived": item.derived,
        "shape": list(item.shape),
        "num_points": item.num_points,
        "experiment": _plain(item.experiment),
        "classes": dict(item.classes),
        "bits": dict(item.bits),
        "start": dict(item.start),
        "tiled": item.tiled,
    }
    return pack("start", header, {} if item.positions is None else {"positions": item.positions})


def _read_start(fields: Fields) -> Start:
    return Start(
        seq=fields.seq,
        run=fields.run,
        derived=fields.text("derived"),
        shape=fields.shape("shape"),
        num_points=fields.count("num_points"),
        experiment=_experiment(fields),
        positions=fields.pairs("positions") if fields.has("positions") else None,
        classes=fields.mapping("classes"),
        bits=fields.mapping("bits"),
        start=fields.mapping("start"),
        tiled=fields.text("tiled"),
    )


def _frame(item: FrameItem, common: Mapping[str, Any]) -> list[bytes]:
    header = {
        **common,
        "index": item.index,
        "time": _known(item.time),
        "seq_num": item.seq_num,
        "attempt": item.attempt,
        "revision": item.revision,
        "status": item.status,
        "verdict": item.verdict,
    }
    image = {} if item.image is None else {"image": item.image}
    return pack("frame", header, {**image, "valid_bits": item.valid_bits, "classes": item.classes})


def _read_frame(fields: Fields) -> FrameItem:
    maps = fields.maps({"classes": np.uint8, "valid_bits": np.uint16})
    image = fields.array("image", 2) if fields.has("image") else None
    return FrameItem(
        seq=fields.seq,
        run=fields.run,
        index=fields.count("index"),
        time=fields.number("time"),
        seq_num=fields.count("seq_num"),
        attempt=fields.count("attempt"),
        image=image,
        classes=maps["classes"],
        valid_bits=maps["valid_bits"],
        revision=fields.count("revision"),
        status=fields.text("status"),
        verdict=fields.text("verdict"),
    )


def _read_revision(fields: Fields) -> Revision:
    return Revision(
        seq=fields.seq,
        run=fields.run,
        first=fields.count("first"),
        last=fields.count("last"),
        bits=fields.array("bits", 2, np.uint16),
        revision=fields.count("revision"),
    )


def _read_positions(fields: Fields) -> PositionsItem:
    return PositionsItem(fields.seq, fields.run, fields.count("first"), fields.pairs("positions"))


def _products(products: Products, common: Mapping[str, Any]) -> list[bytes]:
    of_frames = products.of_frames
    header = {
        **common,
        "frames": of_frames.frames,
        "used": of_frames.used,
        "centre": [_known(side) for side in of_frames.centre],
        "inner": _known(of_frames.inner),
        "outer": _known(of_frames.outer),
        "experiment": _plain(products.experiment),
        "final": products.final,
    }
    maps = {name: np.asarray(getattr(of_frames, name), kind) for name, kind in _MAPS.items()}
    tables = {"sums": of_frames.sums, "positions": products.positions}
    return pack("products", header, {**maps, **tables})


def _read_products(fields: Fields) -> ProductsItem:
    maps: dict[str, Any] = fields.maps(_MAPS)
    of_frames = RunProducts(
        frames=fields.count("frames"),
        used=fields.count("used"),
        centre=fields.numbers("centre"),
        inner=fields.number("inner"),
        outer=fields.number("outer"),
        sums=fields.array("sums", 2, np.float64),
        **maps,
    )
    final = fields.flag("final")
    products = Products(of_frames, fields.pairs("positions"), _experiment(fields), final)
    return ProductsItem(fields.seq, fields.run, products)


def _read_stop(fields: Fields) -> Stop:
    return Stop(
        seq=fields.seq,
        run=fields.run,
        exit_status=fields.text("exit_status"),
        reason=fields.text("reason"),
        account=fields.mapping("account"),
    )


def _plain(experiment: Experiment) -> dict[str, Any]:
    return {
        "energy": _known(experiment.energy),
        "distance": _known(experiment.distance),
        "pixel_size": [_known(side) for side in experiment.pixel_size],
    }


def _experiment(fields: Fields) -> Experiment:
    about = fields.mapping("experiment")
    return Experiment(
        energy=fields.number("energy", about),
        distance=fields.number("distance", about),
        pixel_size=fields.numbers("pixel_size", about),
    )


def _known(value: float) -> float | None:
    """Return a number as JSON has it: NaN and infinity are null."""
    return float(value) if math.isfinite(value) else None


_READERS: Mapping[str, Callable[[Fields], Item]] = {
    "start": _read_start,
    "frame": _read_frame,
    "mask": _read_revision,
    "positions": _read_positions,
    "products": _read_products,
    "stop": _read_stop,
}
