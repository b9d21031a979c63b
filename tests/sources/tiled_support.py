"""Scans written to a real Tiled server, and what came out of a source."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import h5py
import numpy as np
from bluesky import RunEngine
from bluesky_tiled_plugins import TiledWriter
from event_model import compose_run
from ophyd_async.core import StaticFilenameProvider, StaticPathProvider
from ptychoseg_callbacks.documents import Document, drop_reason
from ptychoseg_callbacks.source import Source

from ptychoseg_stream.sim.detectors import PlayedDetector, PlayedHDF5Detector
from ptychoseg_stream.sinks.embedded import EmbeddedTiled

H, W = 12, 17
PATIENCE = 60.0  # s; only ends a test that fails


def frames_of(count: int, dtype: str = "<u2", seed: int = 0) -> np.ndarray:
    """Return ``(count, H, W)`` frames that look different however they are turned."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 60_000, (count, H, W))
    frames[:, 0, 0] = np.arange(count)
    return frames.astype(dtype) if dtype != "<f4" else (frames / 7).astype(dtype)


def inline_detector(frames: np.ndarray) -> PlayedDetector:
    return PlayedDetector(frames, name="det", rewind_on_stage=False)


def file_detector(frames: np.ndarray, folder: Path, name: str = "frames") -> PlayedHDF5Detector:
    places = StaticPathProvider(StaticFilenameProvider(name), folder)
    return PlayedHDF5Detector(frames, places, name="cam", rewind_on_stage=False)


def engine(*callbacks: Any) -> RunEngine:
    engine = RunEngine({}, context_managers=[])  # no signal handlers: not only the main thread
    for callback in callbacks:
        engine.subscribe(callback)
    return engine


def writer(server: EmbeddedTiled, container: str = "raw", **more: Any) -> TiledWriter:
    return TiledWriter(container_of(server, container), **{"batch_size": 1, **more})


def container_of(server: EmbeddedTiled, name: str = "raw") -> Any:
    root = server.client()
    return root[name] if name in root else root.create_container(name)


def address_of(server: EmbeddedTiled, path: str = "raw") -> str:
    return server.uri.replace("http://", "tiled://") + "/" + path


def points(
    detector: Any,
    count: int,
    at: Callable[[int], object] = lambda point: None,
    md: dict[str, Any] | None = None,
) -> Iterator[Any]:
    """Take `count` points; `at` is called before each."""

    @bpp.stage_decorator([detector])
    @bpp.run_decorator(md={"plan_name": "points", **(md or {})})
    def plan() -> Iterator[Any]:
        for point in range(count):
            at(point)
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([detector])

    return plan()


def pausing(detector: Any, count: int, pause_at: int) -> Iterator[Any]:
    """Take points with a checkpoint before every third, and pause once: some come again."""

    @bpp.stage_decorator([detector])
    @bpp.run_decorator(md={})
    def plan() -> Iterator[Any]:
        for point in range(count):
            if point % 3 == 0:
                yield from bps.checkpoint()
            yield from bps.trigger_and_read([detector])
            if point == pause_at:
                yield from bps.pause()

    return plan()


def area_detector_run(
    frames: np.ndarray, per: int, path: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield documents as ophyd makes them of an area detector that writes `per` frames a point."""
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = frames
    run = compose_run()
    yield "start", run.start_doc
    bundle = run.compose_descriptor(
        name="primary",
        data_keys={
            "cam": {
                "source": "PV:cam",
                "dtype": "array",
                "shape": [per, H, W],
                "dtype_numpy": frames.dtype.str,
                "external": "FILESTORE:",
            },
            "motor": {"source": "PV:motor", "dtype": "number", "shape": []},
        },
    )
    yield "descriptor", bundle.descriptor_doc
    resource = run.compose_resource(
        spec="AD_HDF5",
        root=str(path.parent),
        resource_path=path.name,
        resource_kwargs={"frame_per_point": per},
    )
    yield "resource", resource.resource_doc
    for point in range(len(frames) // per):
        datum = resource.compose_datum(datum_kwargs={"point_number": point})
        yield "datum", datum
        event = bundle.compose_event(
            data={"cam": datum["datum_id"], "motor": point / 2},
            timestamps={"cam": 1.0 + point, "motor": 1.0 + point},
            filled={"cam": False},
            seq_num=point + 1,
        )
        yield "event", event
    yield "stop", run.compose_stop()


@dataclass
class Collected:
    """Documents in the order in which a source delivered them."""

    documents: list[tuple[str, Document]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, name: str, doc: Document) -> int:
        with self.changed:
            self.documents.append((name, doc))
            self.changed.notify_all()
            return len(self.documents)

    def names(self, run: str = "") -> list[str]:
        return [name for name, _ in self.of(run)]

    def of(self, run: str = "") -> list[tuple[str, Document]]:
        """Return the documents of a run; all if none is named."""
        mine: set[str] = set()
        found = []
        for name, doc in list(self.documents):
            owner = doc["uid"] if name == "start" else doc.get("run_start", "")
            if name == "descriptor" and owner == run:
                mine.add(doc["uid"])
            if not run or owner == run or doc.get("descriptor") in mine:
                found.append((name, doc))
        return found

    def events(self, run: str = "") -> list[Document]:
        return [doc for name, doc in self.of(run) if name == "event"]

    def images(self, key: str, run: str = "") -> np.ndarray:
        """Return all images, ``(n, H, W)``; fails where one was lost."""
        values = [event["data"][key] for event in self.events(run)]
        assert [drop_reason(value) for value in values] == [""] * len(values)
        return np.concatenate([np.reshape(value, (-1, H, W)) for value in values])

    def wait(self, condition: Callable[["Collected"], bool]) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: condition(self), PATIENCE)

    def has_stop(self, run: str = "") -> bool:
        return "stop" in self.names(run)


@contextmanager
def running(source: Source) -> Iterator[Collected]:
    """Run a source in a thread; its errors are raised at the end."""
    collected, stopping, errors = Collected(), threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            source.run(collected, stopping)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run, name="source under test")
    thread.start()
    try:
        yield collected
    finally:
        stopping.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def replayed(source: Source) -> Collected:
    """Run a source to its end."""
    collected = Collected()
    source.run(collected, threading.Event())
    return collected


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def seq_nums(events: Sequence[Document]) -> list[int]:
    return [event["seq_num"] for event in events]
