"""Runs that are told without a node, and consumers on threads."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ptychoseg_stream.errors import PtychosegError
from ptychoseg_stream.feed import Item, follow
from ptychoseg_stream.node.ports import Account, Products, RunInfo
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.science.experiment import Experiment
from ptychoseg_stream.science.frame import ClassCode, Frame, Mask, ValidBit
from ptychoseg_stream.science.products import RunProducts
from ptychoseg_stream.sinks.feed.options import FeedOptions
from ptychoseg_stream.sinks.feed.server import FeedServer

SHAPE = (6, 8)
DERIVED = "11111111-2222-4333-8444-555555555555"
START = {"uid": "raw-1", "time": 1.0, "scan_id": 7, "plan_name": "grid", "num_points": 40}
ACCOUNT = Account(received=2, written=2)


def info_of(uid: str = "raw-1", derived: str = DERIVED, **more: Any) -> RunInfo:
    return RunInfo(uid, {**START, "uid": uid}, {"profile": "test"}, derived=derived, **more)


def frame_of(index: int, run: str = "raw-1", shape: tuple[int, int] = SHAPE, **more: Any) -> Frame:
    image = np.full(shape, index, np.uint16)
    return Frame(run, index, image, shape, seq_num=index + 1, time=100.0 + index, **more)


def mask_of(frame: Frame, **more: Any) -> Mask:
    classes = np.full(frame.shape, ClassCode.RING, np.uint8)
    bits = np.zeros(frame.shape, np.uint16)
    bits[0, frame.index % frame.shape[1]] = ValidBit.COSMIC
    values = {"verdict": "annulus", "valid_bits": bits, **more}
    return Mask(replace(frame, image=None), classes, "teacher", "ok", **values)


def send(server: FeedServer, indices: Sequence[int], run: str = "raw-1", **more: Any) -> None:
    for index in indices:
        frame = frame_of(index, run, **more)
        server.send(run, [frame], [mask_of(frame)])


def products_of(frames: int, hot: Sequence[tuple[int, int]] = (), known: int = 0) -> Products:
    """Products with hot pixels, and the positions of the first frames."""
    pixel_mask = np.zeros(SHAPE, np.uint16)
    for pixel in hot:
        pixel_mask[pixel] = ValidBit.HOT
    positions = np.full((frames, 2), np.nan)
    positions[:known] = np.arange(2 * known).reshape(known, 2)
    of_frames = RunProducts(
        frames=frames,
        used=frames,
        pixel_mask=pixel_mask,
        background=np.full(SHAPE, 0.5, np.float32),
        background_variance=np.full(SHAPE, np.nan, np.float32),
        background_samples=np.full(SHAPE, frames, np.int32),
        pupil=np.ones(SHAPE, np.uint8),
        mean=np.full(SHAPE, 3.0, np.float32),
        centre=(2.5, 3.5),
        inner=0.0,
        outer=float("nan"),
        sums=np.arange(4.0 * frames).reshape(frames, 4),
    )
    return Products(of_frames, positions, Experiment(energy=800.0))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(folder: Path, port: int, farewell: float = 5.0, **more: Any) -> Iterator[FeedServer]:
    """A server with its log below `folder`; it says goodbye at the end."""
    options = FeedOptions(serve=f"tcp://127.0.0.1:{port}", **more)
    server = FeedServer(
        options, SpoolOptions(str(folder), min_free_bytes=0), TILED, farewell=farewell
    )
    try:
        yield server
    finally:
        server.shutdown()


TILED = "http://127.0.0.1:8000/processed/ptychoseg"


class Following(threading.Thread):
    """Follows a run on a thread of its own, until its stop or an error."""

    def __init__(self, address: str, run: str = "", **more: Any) -> None:
        super().__init__(daemon=True)
        self.items: list[Item] = []
        self.error: PtychosegError | None = None
        self._source = follow(address, run, **{"timeout": 60.0, **more})
        self.start()

    def run(self) -> None:
        try:
            for item in self._source:
                self.items.append(item)
        except PtychosegError as error:
            self.error = error

    def result(self) -> list[Item]:
        self.join(120)
        assert not self.is_alive(), f"it waits after {len(self.items)} items"
        if self.error is not None:
            raise self.error
        return self.items
