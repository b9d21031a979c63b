"""The same items out of Tiled: what is there, then what comes."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from feed_support import (
    ACCOUNT,
    DERIVED,
    SHAPE,
    START,
    Following,
    frame_of,
    info_of,
    mask_of,
    products_of,
)
from test_feed_server import in_order, indices, kinds, until

from ptychoseg_stream.errors import FeedError, SourceError
from ptychoseg_stream.feed import FrameItem, ProductsItem, Revision, Start, Stop, follow
from ptychoseg_stream.node.ports import Products
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.sinks.connection import open_container
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.tiled import TiledSink

NUMBERS = count()


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTiled]:
    with EmbeddedTiled(tmp_path_factory.mktemp("tiled")) as server:
        yield server


@pytest.fixture
def container() -> str:
    return f"processed/feed-{next(NUMBERS)}"


@pytest.fixture
def sink(tiled: EmbeddedTiled, container: str, tmp_path: Path) -> Iterator[TiledSink]:
    options = TiledOptions(uri=tiled.uri, container=container, batch_seconds=0.05)
    spool = SpoolOptions(str(tmp_path / "spool"), min_free_bytes=0)
    sink = TiledSink(options, spool, api_key=tiled.api_key)
    yield sink
    sink.shutdown()


def write(sink: TiledSink, first: int, last: int, origin: str = "") -> None:
    frames = [replace(frame_of(index), origin=origin) for index in range(first, last)]
    sink.write("raw-1", [mask_of(frame) for frame in frames])
    until(lambda: sink.stored("raw-1") >= last)


def test_a_late_consumer_catches_up_and_then_follows(
    tiled: EmbeddedTiled, container: str, sink: TiledSink, tmp_path: Path
) -> None:
    raw = tmp_path / "raw.h5"
    with h5py.File(raw, "w") as file:
        file["data"] = np.stack([frame_of(index).image for index in range(20)])
    sink.open(info_of())
    write(sink, 0, 20, f"{raw}:/data")
    consumer = Following(f"{tiled.uri}/{container}/{DERIVED}", api_key=tiled.api_key)
    until(lambda: len(consumer.items) >= 21)
    write(sink, 20, 23, f"{raw}:/data")
    sink.close("raw-1", ACCOUNT)
    items = consumer.result()
    assert in_order(items)
    assert indices(items) == list(range(23))
    assert kinds(items) == ["Start", "Stop"]
    start, stop = items[0], items[-1]
    assert isinstance(start, Start)
    assert isinstance(stop, Stop)
    assert (start.run, start.derived, start.shape) == ("raw-1", DERIVED, SHAPE)
    assert start.start["scan_id"] == START["scan_id"]
    assert start.classes["1"] == "ring"
    assert (stop.exit_status, stop.account["received"]) == ("success", 2)
    frames = [item for item in items if isinstance(item, FrameItem)]
    for frame in frames:
        assert np.array_equal(frame.valid_bits, mask_of(frame_of(frame.index)).valid_bits)
        assert (frame.classes == 1).all()
        assert (frame.seq_num, frame.time) == (frame.index + 1, 100.0 + frame.index)
        assert (frame.status, frame.verdict) == ("ok", "annulus")
    assert all(
        frame.image is not None and (frame.image == frame.index).all() for frame in frames[:20]
    )
    assert all(frame.image is None for frame in frames[20:]), "the file has no more"


def test_a_run_is_found_by_the_uid_of_either_or_because_it_is_open(
    tiled: EmbeddedTiled, container: str, sink: TiledSink
) -> None:
    address = f"{tiled.uri}/{container}"
    sink.open(info_of())
    write(sink, 0, 3)
    consumer = Following(address, api_key=tiled.api_key)
    until(lambda: consumer.items)
    sink.close("raw-1", ACCOUNT)
    assert len(consumer.result()) == 5
    for uid in ("raw-1", DERIVED):
        items = list(follow(address, uid, api_key=tiled.api_key))
        assert indices(items) == [0, 1, 2]
        assert all(item.image is None for item in items if isinstance(item, FrameItem))
    with pytest.raises(FeedError, match="no masks of run other"):
        list(follow(address, "other", api_key=tiled.api_key))
    with pytest.raises(FeedError, match="another run"):
        list(follow(f"{address}/{DERIVED}", "other", api_key=tiled.api_key))


def test_a_run_without_frames_begins_and_ends_there_too(
    tiled: EmbeddedTiled, container: str, sink: TiledSink
) -> None:
    sink.open(info_of())
    sink.close("raw-1", ACCOUNT)
    until(lambda: sink.settled("raw-1"))
    items = list(follow(f"{tiled.uri}/{container}", "raw-1", api_key=tiled.api_key))
    assert kinds(items) == ["Start", "Stop"]


def test_a_server_that_is_away_is_asked_again_and_then_given_up(port: int) -> None:
    with pytest.raises(FeedError, match="asked for 1 s"):
        list(follow(f"http://127.0.0.1:{port}/a/b", timeout=1.0))


def test_a_server_that_refuses_is_not_asked_again(tiled: EmbeddedTiled) -> None:
    with pytest.raises(SourceError, match="refuses"):
        list(follow(f"{tiled.uri}/a/b", api_key="wrong"))


def put_products(tiled: EmbeddedTiled, container: str, products: Products, new: bool) -> None:
    """Write products as a node does: arrays first, then what is said of them."""
    beside = open_container(tiled.client(), f"{container}_products")
    node: Any = beside.create_container(DERIVED) if new else beside[DERIVED]
    parts = products.of_frames
    arrays = {name: getattr(parts, name) for name in (*MAPS, "sums")}
    for name, values in {**arrays, "positions": products.positions}.items():
        if new:
            node.write_array(values, key=name)
        else:
            node[name].patch(values, offset=(0,) * values.ndim, extend=True)
    about = {"frames": parts.frames, "used": parts.used, "centre_y": 2.5, "energy_eV": 800.0}
    node.update_metadata(about)


MAPS = ("pixel_mask", "background", "background_variance", "background_samples", "pupil", "mean")


def test_products_revisions_and_positions_come_with_their_container(
    tiled: EmbeddedTiled, container: str, sink: TiledSink
) -> None:
    sink.open(info_of())
    write(sink, 0, 4)
    put_products(tiled, container, products_of(4, [(1, 1)], 2), new=True)
    consumer = Following(f"{tiled.uri}/{container}/{DERIVED}", api_key=tiled.api_key)
    until(lambda: "ProductsItem" in kinds(consumer.items))
    write(sink, 4, 6)
    put_products(tiled, container, products_of(6, [(1, 1), (2, 2)], 3), new=False)
    until(lambda: kinds(consumer.items).count("ProductsItem") > 1)
    sink.close("raw-1", ACCOUNT)
    items = consumer.result()
    assert in_order(items)
    told = ["Revision", "PositionsItem", "ProductsItem"]
    assert kinds(items) == ["Start", *told, *told, "Stop"]
    first, second = (item for item in items if isinstance(item, Revision))
    assert (first.first, first.last, second.last, second.revision) == (0, 4, 6, 2)
    assert np.argwhere(second.bits).tolist() == [[2, 2]]
    assert [item.revision for item in items if isinstance(item, FrameItem)] == [0] * 4 + [1] * 2
    *_, last = (item.products for item in items if isinstance(item, ProductsItem))
    assert last.of_frames.frames == 6
    assert last.of_frames.centre[0] == 2.5
    assert last.experiment.energy == 800.0
    assert last.positions.shape == (6, 2)
