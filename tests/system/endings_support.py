"""A line from a RunEngine to a sink, with small real parts, and the ways a scan may go."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
from bluesky.run_engine import RunEngine, RunEngineInterrupted
from numpy.typing import NDArray
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, init_devices
from ptychoseg_callbacks.documents import Document
from ptychoseg_callbacks.frames.options import FinderOptions
from ptychoseg_callbacks.ingress import Ingress
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.queueing.waiting import OverloadOptions
from ptychoseg_callbacks.segmentation import Segmentation, SegmentationOptions
from ptychoseg_callbacks.workers.thread import ThreadWorker

from ptychoseg_stream.node.ports import RunInfo, Sink
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.node.vitals import Progress
from ptychoseg_stream.science.frame import ClassCode, Frame, Mask
from ptychoseg_stream.sim.detectors import PlayedDetector, PlayedHDF5Detector

H, W = 12, 17


class MarkLabeller:
    """A real `Labeller`: all is ring; `plateau` is the first pixel of the frame."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self.before = before
        self.labelled: dict[str, int] = {}

    def open(self, run_uid: str, checkpoint: bytes = b"") -> None:
        self.labelled[run_uid] = int(checkpoint or b"0")

    def checkpoint(self, run_uid: str) -> bytes:
        return str(self.labelled[run_uid]).encode()

    def process(self, frames: Sequence[Frame]) -> list[Mask]:
        return [self._label(frame) for frame in frames]

    def close(self, run_uid: str) -> None:
        del self.labelled[run_uid]

    def progress(self) -> Progress:
        return Progress()

    def _label(self, frame: Frame) -> Mask:
        self.before()
        self.labelled[frame.run] = frame.index + 1
        bare = replace(frame, image=None)
        if frame.image is None:
            classes = np.full(frame.shape, ClassCode.INVALID, np.uint8)
            return Mask(bare, classes, "none", "lost", frame.fault)
        classes = np.full(frame.image.shape, ClassCode.RING, np.uint8)
        return Mask(bare, classes, "teacher", "ok", plateau=float(frame.image[0, 0]))


class Hand:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Line:
    """RunEngine -> inbox -> loop -> segmentation -> sink: a callback to subscribe."""

    def __init__(
        self,
        sink: Sink,
        folder: Path,
        raw: Any = None,
        labeller: Any = None,
        overload: OverloadOptions | None = None,
        batch: int = 4,
        journal: bool = True,
    ) -> None:
        self.clock = Hand()
        self.labeller = labeller or MarkLabeller()
        finder = FinderOptions(read_timeout=0.5, refill_timeout=0.2)
        options = SegmentationOptions(finder, batch, idle_timeout=600.0)
        self.segmentation = Segmentation(
            self.labeller, sink, describe, options, raw=raw, monotonic=self.clock
        )
        journals = Journals(SpoolOptions(str(folder), min_free_bytes=0))
        self.inbox = Inbox(journals if journal else None, overload, raw)
        self.ingress = Ingress(ThreadWorker(lambda: self.segmentation, inbox=lambda: self.inbox))
        self.journals = folder / "runs"

    def __call__(self, name: str, doc: Any) -> None:
        self.ingress(name, doc)

    def settle(self) -> None:
        """Wait until all so far is labelled and stored."""
        assert self.ingress.wait(30)

    def journals_left(self) -> list[Path]:
        return [each for each in self.journals.glob("*") if (each / "documents.log").exists()]

    def close(self) -> None:
        self.ingress.close(30)


def describe(start: Document) -> RunInfo:
    return RunInfo(start["uid"], start, {"profile": "test"})


def marked(count: int) -> NDArray[np.uint16]:
    """Return ``(count, H, W)`` frames whose first pixel is their number."""
    frames = np.full((count, H, W), 7, np.uint16)
    frames[:, 0, 0] = np.arange(count)
    return frames


def detector_of(kind: str, folder: Path, count: int = 40) -> Any:
    if kind == "inline":
        return PlayedDetector(marked(count), name="det", rewind_on_stage=False)
    provider = StaticPathProvider(UUIDFilenameProvider(), folder)
    with init_devices():
        return PlayedHDF5Detector(marked(count), provider, name="det", rewind_on_stage=False)


def points(
    detector: Any,
    count: int,
    every: int = 1,
    at: Mapping[int, Callable[[], Iterator[Any]]] | None = None,
) -> Iterator[Any]:
    """Take points with a checkpoint before every so many; `at` happens once before a point."""
    left = dict(at or {})

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Iterator[Any]:
        for point in range(count):
            if point % every == 0:
                yield from bps.checkpoint()
            if point in left:
                yield from left.pop(point)()
            yield from bps.trigger_and_read([detector])

    return plan()


def broken() -> Iterator[Any]:
    yield from bps.null()
    raise RuntimeError("the shutter is stuck")


def interrupted(engine: RunEngine, plan: Any) -> bool:
    """Run a plan; return whether it was interrupted."""
    try:
        engine(plan)
    except RunEngineInterrupted:
        return True
    return False


class RawRuns:
    """A real `RawStore` in memory, filled by subscribing it to a RunEngine; inline images."""

    def __init__(self) -> None:
        self.documents: list[tuple[str, Document]] = []

    def __call__(self, name: str, doc: Any) -> None:
        self.documents.append((name, doc))

    def start_of(self, uid: str) -> Mapping[str, Any] | None:
        runs = {doc["uid"]: doc for name, doc in self.documents if name == "start"}
        for name, doc in self.documents:
            if name == "descriptor" and doc["uid"] == uid:
                return runs[doc["run_start"]]
        return runs.get(uid)

    def notes_of(self, run_uid: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [
            (name, doc)
            for name, doc in self.documents
            if name == "descriptor" and doc["run_start"] == run_uid
        ]

    def stop_of(self, run_uid: str) -> Mapping[str, Any] | None:
        stops = [d for name, d in self.documents if name == "stop" and d["run_start"] == run_uid]
        return stops[0] if stops else None

    def read(
        self, run_uid: str, stream: str, data_key: str, first: int, last: int
    ) -> NDArray[Any] | None:
        images = self._images(run_uid, data_key)[first:last]
        return np.stack(images) if images else None

    def count(self, run_uid: str, stream: str, data_key: str) -> int:
        return len(self._images(run_uid, data_key))

    def _images(self, run_uid: str, data_key: str) -> list[NDArray[Any]]:
        mine = {doc["uid"] for _, doc in self.notes_of(run_uid)}
        events = [doc for name, doc in self.documents if name == "event"]
        return [doc["data"][data_key] for doc in events if doc["descriptor"] in mine]
