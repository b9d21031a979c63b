"""Detectors whose frames carry their number, a labeller and a sink that are simple and real."""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import h5py
import numpy as np
from event_model import compose_stream_resource
from ophyd.sim import NullStatus
from ptychoseg_callbacks.segmentation import Segmentation, SegmentationOptions

from ptychoseg_stream.node.ports import Account, RunInfo
from ptychoseg_stream.node.vitals import Progress
from ptychoseg_stream.science.frame import ClassCode, Frame, Mask

SHAPE = (12, 16)


def watermarked(number: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Return a bright disc on a dark ground; the first pixel is the number of the frame."""
    y, x = np.indices(shape)
    image = np.where(np.hypot(y - shape[0] / 2, x - shape[1] / 2) < 4, 900, 3).astype(np.uint16)
    image[0, 0] = number
    return image


class _Device:
    parent = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0  # frames taken, ever

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}


class InlineDetector(_Device):
    """Puts an image, or a stack of `per_event` images, into each Event."""

    def __init__(self, name: str = "det", per_event: int = 1, break_at: int = -1) -> None:
        super().__init__(name)
        self.per_event = per_event
        self.break_at = break_at
        self.buffer = np.zeros((per_event, *SHAPE), np.uint16)  # reused, as a driver would

    def trigger(self) -> NullStatus:
        for n in range(self.per_event):
            if self.count == self.break_at:
                raise RuntimeError("the shutter is stuck")
            self.buffer[n] = watermarked(self.count)
            self.count += 1
        return NullStatus()

    def read(self) -> dict[str, Any]:
        value = self.buffer if self.per_event > 1 else self.buffer[0]
        return {f"{self.name}_image": {"value": value, "timestamp": time.time()}}

    def describe(self) -> dict[str, Any]:
        shape = [self.per_event, *SHAPE] if self.per_event > 1 else list(SHAPE)
        key = {"source": "test", "dtype": "array", "shape": shape, "dtype_numpy": "<u2"}
        return {f"{self.name}_image": key}


class StreamDetector(_Device):
    """Writes HDF5 in SWMR mode and emits stream_resource and stream_datum; steps or flies."""

    dataset = "/entry/data/data"

    def __init__(self, folder: Path, name: str = "det", per_event: int = 1) -> None:
        super().__init__(name)
        self.folder = folder
        self.per_event = per_event
        self.missing = 0  # frames at the end of each write that never reach the file

    def stage(self) -> list[Any]:
        path = self.folder / f"frames with a space {uuid.uuid4()}.h5"
        self.file = h5py.File(path, "w", libver="latest")
        self.data = self.file.create_dataset(
            self.dataset, (0, *SHAPE), np.uint16, maxshape=(None, *SHAPE), chunks=(1, *SHAPE)
        )
        self.file.swmr_mode = True
        self.events = self.told = 0
        self.bundle = compose_stream_resource(
            mimetype="application/x-hdf5",
            uri=path.as_uri(),
            data_key=f"{self.name}_image",
            parameters={"dataset": self.dataset, "chunk_shape": (1, *SHAPE)},
        )
        self.assets: list[tuple[str, Any]] = [("stream_resource", self.bundle.stream_resource_doc)]
        return [self]

    def unstage(self) -> list[Any]:
        self.file.close()
        return [self]

    def write(self, events: int) -> None:
        for n in range(events * self.per_event):
            if n < events * self.per_event - self.missing:
                self.data.resize(len(self.data) + 1, axis=0)
                self.data[-1] = watermarked(self.count)
            self.count += 1
        self.data.flush()
        self.events += events

    def trigger(self) -> NullStatus:
        self.write(1)
        return NullStatus()

    def read(self) -> dict[str, Any]:
        return {}

    def describe(self) -> dict[str, Any]:
        return {
            f"{self.name}_image": {
                "source": "test",
                "dtype": "array",
                "dtype_numpy": "<u2",
                "shape": [self.per_event, *SHAPE],
                "external": "STREAM:",
            }
        }

    describe_collect = describe

    def kickoff(self) -> NullStatus:
        return NullStatus()

    complete = kickoff

    def get_index(self) -> int:
        return self.events

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, Any]]:
        yield from self.assets
        self.assets = []
        if self.events > self.told:
            indices = {"start": self.told, "stop": self.events}
            yield "stream_datum", self.bundle.compose_stream_datum(indices=indices)
            self.told = self.events


def fly(detector: StreamDetector, collections: Sequence[int]) -> Iterator[Any]:
    """Collect so many events at a time while the detector runs freely."""

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Iterator[Any]:
        yield from bps.declare_stream(detector, name="primary", collect=True)
        yield from bps.kickoff(detector, wait=True)
        for events in collections:
            detector.write(events)
            yield from bps.collect(detector, name="primary")
        yield from bps.complete(detector, wait=True)

    return plan()


class ThresholdLabeller:
    """Ring where the frame is bright; `plateau` is the first pixel: masks carry the watermark."""

    def __init__(self, fail_at: Sequence[int] = ()) -> None:
        self.fail_at = fail_at
        self.batches: list[list[int]] = []
        self.open_runs: set[str] = set()

    def open(self, run_uid: str) -> None:
        self.open_runs.add(run_uid)

    def process(self, frames: Sequence[Frame]) -> list[Mask]:
        self.batches.append([frame.index for frame in frames])
        return [self._label(frame) for frame in frames]

    def _label(self, frame: Frame) -> Mask:
        bare = replace(frame, image=None)
        if frame.index in self.fail_at:
            raise ZeroDivisionError("a bug in the labeller")
        if frame.image is None:
            classes = np.full(frame.shape, ClassCode.INVALID, np.uint8)
            return Mask(bare, classes, "none", "lost", frame.fault)
        if frame.image.max() == 0:
            classes = np.full(frame.shape, ClassCode.INVALID, np.uint8)
            return Mask(bare, classes, "none", "refused", "the frame is empty")
        classes = np.where(frame.image > 100, ClassCode.RING, ClassCode.BACKGROUND).astype(np.uint8)
        return Mask(bare, classes, "teacher", "ok", plateau=float(frame.image[0, 0]))

    def close(self, run_uid: str) -> None:
        self.open_runs.remove(run_uid)

    def progress(self) -> Progress:
        return Progress(step=len(self.batches))


class ListSink:
    """Keeps everything in memory."""

    def __init__(self) -> None:
        self.runs: dict[str, RunInfo] = {}
        self.masks: dict[str, list[Mask]] = {}
        self.accounts: dict[str, Account] = {}
        self.is_shut_down = False

    def open(self, run: RunInfo) -> None:
        self.runs[run.uid] = run
        self.masks[run.uid] = []

    def write(self, run_uid: str, masks: Sequence[Mask]) -> None:
        self.masks[run_uid].extend(masks)

    def close(self, run_uid: str, account: Account) -> None:
        self.accounts[run_uid] = account

    def stored(self, run_uid: str) -> int:
        return len(self.masks[run_uid])

    def address(self, run_uid: str) -> str:
        return f"memory:{run_uid}"

    def fault(self) -> str:
        return ""

    def drain(self, timeout: float) -> bool:
        return True

    def shutdown(self) -> None:
        self.is_shut_down = True


class FileSink(ListSink):
    """Leaves one JSON file per closed run in a folder, for the eyes of another process."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def close(self, run_uid: str, account: Account) -> None:
        super().close(run_uid, account)
        rows = [[m.frame.index, m.plateau, m.status, m.reason] for m in self.masks[run_uid]]
        told = {"rows": rows, "exit_status": account.exit_status, "reason": account.reason}
        part = self.folder / f"{run_uid}.part"
        part.write_text(json.dumps(told))
        part.rename(self.folder / f"{run_uid}.json")


def describe(start: Any) -> RunInfo:
    return RunInfo(start["uid"], start, {"profile": "test"})


def segmentation(
    labeller: Any = None, sink: Any = None, options: SegmentationOptions | None = None
) -> Segmentation:
    return Segmentation(labeller or ThresholdLabeller(), sink or ListSink(), describe, options)


def marks(masks: Sequence[Mask]) -> list[int]:
    """Return the watermarks of masks."""
    return [int(mask.plateau) for mask in masks]


def adds_up(account: Account) -> bool:
    done = account.written + sum(account.refused.values()) + account.lost
    return account.received == done
