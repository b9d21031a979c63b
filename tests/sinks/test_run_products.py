"""What a run says as a whole, in memory, in files, in the spool and in Tiled."""

import json
import threading
from dataclasses import replace
from itertools import count
from typing import Any

import h5py
import httpx
import numpy as np
import pytest
from sinks_support import account_of, masks_of, run_info, until
from tiled.client.container import Container

from ptychoseg_stream.errors import StoreError
from ptychoseg_stream.node.ports import Products
from ptychoseg_stream.science.experiment import Experiment
from ptychoseg_stream.science.products import RunProducts
from ptychoseg_stream.sinks.connection import Unavailable
from ptychoseg_stream.sinks.hdf5 import HDF5Sink
from ptychoseg_stream.sinks.memory import MemorySink
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.products import IMAGES
from ptychoseg_stream.sinks.stored import open_stored
from ptychoseg_stream.sinks.tiled import TiledSink
from ptychoseg_stream.sinks.upload import upload_all

SHAPE = (6, 8)
GEOMETRY = Experiment(1000.0, 0.168, (55e-6, 50e-6))


def products_of(frames: int, *, final: bool = False, **more: Any) -> Products:
    rng = np.random.default_rng(frames)
    pupil = np.zeros(SHAPE, np.uint8)
    pupil[1:5, 1:6] = 1
    pupil[2:4, 2:5] = 0
    sums = rng.random((frames, 4))
    sums[-1] = np.nan
    parts = RunProducts(
        frames=frames,
        used=frames - 1,
        pixel_mask=rng.integers(0, 16, SHAPE).astype(np.uint16),
        background=rng.random(SHAPE).astype(np.float32) + 1e-6,
        background_variance=np.full(SHAPE, np.nan, np.float32),
        background_samples=rng.integers(0, 9, SHAPE).astype(np.int32),
        pupil=pupil,
        mean=rng.random(SHAPE).astype(np.float32),
        centre=(2.5, 3.25),
        inner=1.5,
        outer=float("nan"),
        sums=sums,
    )
    places = np.indices((max(frames // 4, 1), 4)).reshape(2, -1).T[:frames] * 1e-7
    positions = np.full((frames, 2), np.nan)
    positions[: len(places)] = places
    return Products(parts, positions, more.get("experiment", GEOMETRY), final)


def assert_same(found: Products | None, expected: Products) -> None:
    assert found is not None
    for name in (*IMAGES, "sums"):
        one, other = (getattr(each.of_frames, name) for each in (found, expected))
        assert one.dtype == other.dtype, name
        assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), name
    for name in ("frames", "used", "centre", "inner"):
        assert getattr(found.of_frames, name) == getattr(expected.of_frames, name)
    assert np.isnan(found.of_frames.outer)
    assert np.array_equal(found.positions, expected.positions, equal_nan=True)
    assert (found.experiment, found.final) == (expected.experiment, expected.final)


def node_of(root: Container, options: TiledOptions, sink: TiledSink) -> Any:
    return root[options.container][sink.derived_uid("raw-1")]


def beside(run: Any) -> Any:
    """Return the products of a run, as a user finds them."""
    container, uid = run.path_parts[-2:]
    return run.parent.parent[f"{container}_products"][uid]


def read(node: Any, name: str) -> np.ndarray:
    return np.asarray(beside(node)[name].read())


def frames_in(root: Container, options: TiledOptions, sink: TiledSink) -> int:
    return int(beside(node_of(root, options, sink)).metadata["frames"])


def test_products_are_in_tiled_while_the_run_is_open_and_grow(sink, root, options):
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(4)))
    sink.publish("raw-1", products_of(4))
    assert sink.drain(30)
    assert frames_in(root, options, sink) == 4
    sink.write("raw-1", masks_of(range(4, 12)))
    sink.publish("raw-1", products_of(12))
    assert sink.drain(30)
    assert frames_in(root, options, sink) == 12
    run = node_of(root, options, sink)
    assert run.metadata.get("stop") is None
    expected = products_of(12)
    for name in (*IMAGES, "sums"):
        assert np.array_equal(read(run, name), getattr(expected.of_frames, name), equal_nan=True)
    assert read(run, "positions").shape == (12, 2)
    assert read(run, "scan_map").shape == (4, 3, 4)
    assert read(run, "segmentation_mask").sum() == 20
    assert read(run, "segmentation_mask").dtype == np.uint8
    sink.close("raw-1", account_of(12))


def test_the_last_products_are_there_when_the_run_has_its_stop_document(sink, root, options):
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(3)))
    sink.publish("raw-1", products_of(3))
    sink.publish("raw-1", products_of(8, final=True))
    sink.close("raw-1", account_of(3))
    assert sink.drain(30)
    assert node_of(root, options, sink).metadata.get("stop") is not None
    about = beside(node_of(root, options, sink)).metadata
    assert (about["frames"], about["final"]) == (8, True)
    assert about["energy_eV"] == 1000.0
    assert about["centre_x"] == 3.25
    assert "radius_outer" not in about  # it is not known
    assert about["channels"] == ["bright_field", "dark_field", "dpc_y", "dpc_x"]


def test_a_map_that_gets_smaller_leaves_no_old_values(sink, root, options):
    sink.open(run_info())
    sink.publish("raw-1", products_of(40))
    assert sink.drain(30)
    assert frames_in(root, options, sink) == 40
    few = products_of(41)
    few.positions[20:] = np.nan
    sink.publish("raw-1", few)
    sink.close("raw-1", account_of(0))
    assert sink.drain(30)
    assert frames_in(root, options, sink) == 41
    about = beside(node_of(root, options, sink)).metadata
    found = read(node_of(root, options, sink), "scan_map")
    assert (about["map_rows"], about["map_columns"]) == (5, 4)
    assert np.isfinite(found[:, :5]).all()
    assert np.isnan(found[:, 5:]).all()


@pytest.mark.parametrize("when", ["before the rows", "with the ending"])
def test_products_wait_in_the_spool_while_tiled_is_away(when, root, options, spool, caplog):
    down = TiledSink(replace(options, uri="http://127.0.0.1:9"), spool)
    down.open(run_info())
    down.write("raw-1", masks_of(range(3)))
    if when == "before the rows":
        down.publish("raw-1", products_of(3))
    down.publish("raw-1", products_of(7, final=True))
    down.close("raw-1", account_of(3))
    assert down.drain(30)
    down.shutdown()
    (sent,) = upload_all(options, spool, "", 30, lambda: root)
    assert sent.why == ""
    run = root[options.container][sent.derived]
    assert beside(run).metadata["frames"] == 7
    assert run.metadata["stop"]["account"]["received"] == 3
    assert not list(spool.masks.glob("*/products.h5"))


def test_an_answer_that_was_lost_costs_no_products(root, options, make_sink, lossy):
    turn = count()
    factory = lossy(lambda request: "products" in request.url.path and next(turn) < 2)
    sink = make_sink(options, factory)
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(3)))
    sink.publish("raw-1", products_of(5, final=True))
    sink.close("raw-1", account_of(3))
    assert sink.drain(30)
    assert until(lambda: sink.fault() == "" or not sink.address("raw-1").startswith("/"))
    sink.shutdown()
    assert node_of(root, options, sink).metadata.get("stop") is not None
    for name in IMAGES:
        expected = getattr(products_of(5).of_frames, name)
        found = read(node_of(root, options, sink), name)
        assert np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f")


@pytest.mark.parametrize("status", [403, 503])  # for good; not now, and never
def test_a_server_that_refuses_products_gets_all_masks_and_the_end(
    root, options, make_sink, caplog, status
):
    http = root.context.http_client
    send = http.send

    def refuse(request: httpx.Request, **kwargs: Any) -> httpx.Response:
        if "products" in request.url.path:
            answer = httpx.Response(status, json={"detail": "no"}, request=request)
            answer.raise_for_status()
        return send(request, **kwargs)

    http.send = refuse
    try:
        sink = make_sink(options)
        sink.open(run_info())
        for n in range(3):
            sink.write("raw-1", masks_of([n]))
            sink.publish("raw-1", products_of(n + 1))
        sink.close("raw-1", account_of(3))
        assert sink.drain(90)
        sink.shutdown()
        assert node_of(root, options, sink).metadata.get("stop") is not None
    finally:
        http.send = send
    told = [r.getMessage() for r in caplog.records if "no products" in r.getMessage()]
    assert len(told) == 1
    assert "raw-1" in told[0]
    assert node_of(root, options, sink)["primary"].base["mask"].shape[0] == 3


def test_rows_of_other_runs_go_before_products_and_their_own_after_them(root, options, make_sink):
    open_now = threading.Event()
    http = root.context.http_client
    send, paths = http.send, []

    def connected() -> Container:
        if not open_now.is_set():
            raise Unavailable("not yet")
        return root

    def noted(request: httpx.Request, **kwargs: Any) -> httpx.Response:
        paths.append((request.method, request.url.path))
        return send(request, **kwargs)

    sink = make_sink(options, connected)
    runs = ["raw-1", "raw-2", "raw-3"]
    for run in runs:
        sink.open(run_info(run))
        sink.write(run, masks_of(range(3), run=run))
        sink.publish(run, products_of(3))
        sink.close(run, account_of(3))
    http.send = noted
    try:
        open_now.set()
        assert until(lambda: all(sink._runs[run].ended for run in runs), 90)
    finally:
        http.send = send
    of_products = [i for i, (_, path) in enumerate(paths) if "_products" in path]
    of_rows = [
        i
        for i, (method, path) in enumerate(paths)
        if (method, path.split("/")[-1]) == ("PATCH", "internal")
    ]
    assert len(of_rows) == len(runs)
    assert max(of_rows) < min(of_products)
    for run in runs:
        node = root[options.container][sink.derived_uid(run)]
        assert beside(node).metadata["frames"] == 3
        assert node.metadata["stop"]["account"]["received"] == 3


def test_products_in_a_file_come_back_as_they_were(tmp_path, options):
    sink = HDF5Sink(tmp_path)
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(3)))
    sink.publish("raw-1", products_of(2))
    sink.publish("raw-1", products_of(9, final=True))
    sink.close("raw-1", account_of(3))
    with open_stored(sink.address("raw-1"), options, "") as run:
        assert_same(run.products, products_of(9, final=True))
        assert "products" not in run.arrays
    with h5py.File(sink.address("raw-1")) as file:
        assert json.loads(file["products"].attrs["bit_legend"])["8"] == "hot"


@pytest.mark.parametrize("damage", ["link", "missing", "external"])
def test_products_of_a_file_that_somebody_changed_are_refused(damage, tmp_path, options):
    sink = HDF5Sink(tmp_path)
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(3)))
    sink.publish("raw-1", products_of(2))
    sink.close("raw-1", account_of(3))
    path = sink.address("raw-1")
    with h5py.File(path, "a") as file:
        group = file["products"]
        del group["mean"]
        if damage == "link":
            group["mean"] = h5py.ExternalLink("/etc/passwd", "/mean")
        if damage == "external":
            other = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
            group.create_dataset("mean", (6, 8), np.float32, external=other)
    with (
        pytest.raises(StoreError, match=r"not in the file itself|not complete"),
        open_stored(path, options, ""),
    ):
        pass


def test_a_file_of_a_run_without_products_has_none(tmp_path, options):
    sink = HDF5Sink(tmp_path)
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(3)))
    sink.close("raw-1", account_of(3))
    with open_stored(sink.address("raw-1"), options, "") as run:
        assert run.products is None


def test_memory_keeps_the_last_products():
    sink = MemorySink()
    sink.open(run_info())
    sink.publish("raw-1", products_of(2))
    last = products_of(3)
    sink.publish("raw-1", last)
    assert sink.products["raw-1"] is last


@pytest.mark.parametrize("make", ["memory", "hdf5", "tiled"])
def test_products_of_a_run_that_is_not_open_are_refused(make, tmp_path, request):
    sinks: dict[str, Any] = {"memory": MemorySink(), "hdf5": HDF5Sink(tmp_path)}
    sink = sinks.get(make) or request.getfixturevalue("sink")
    with pytest.raises(StoreError, match="not open"):
        sink.publish("nobody", products_of(2))
