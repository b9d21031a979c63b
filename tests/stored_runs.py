"""Runs labelled as a node labels them, and stored as an HDF5 file: without documents, so quick."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from beams import QUICK
from numpy.typing import NDArray

from ptychoseg_stream.assemble import make_store
from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.ports import Account
from ptychoseg_stream.node.trainer import BackgroundTrainer, InlineTrainer, Trainer
from ptychoseg_stream.profile import Profile
from ptychoseg_stream.provenance import describe_with
from ptychoseg_stream.science.frame import Frame, Mask
from ptychoseg_stream.science.promotion import PromotionOptions
from ptychoseg_stream.sinks.arrays import ARRAYS
from ptychoseg_stream.sinks.hdf5 import HDF5Sink
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.stored import open_stored
from ptychoseg_stream.sources.arrays.pixel_mask import read_pixel_mask

ALL = ("teacher", "student", "fused")
LENIENT = PromotionOptions(min_iou=0.1, max_area_change=5, max_loss=0.9, min_bright_iou=0.05)
"""For students that learn next to nothing."""


def profile_of(folder: Path, **node: Any) -> Profile:
    """A profile that publishes everything, and keeps students and centroids in a folder."""
    options = {"stages": (0, 3, 6), "student": QUICK, "promotion": LENIENT, **node}
    return Profile(
        node=NodeOptions(also=ALL, confidence=True, **options),
        trainer="inline",
        tiled=TiledOptions(arrays=tuple(ARRAYS)),
        cache=str(folder / "cache"),
    )


@dataclass
class Stored:
    """A stored run: its file, its masks as they were, and the raw frames."""

    file: Path
    masks: list[Mask]
    frames: Sequence[NDArray[Any]]

    def column(self, name: str) -> list[Any]:
        with self.open() as run:
            return list(run.table[name])

    def open(self) -> Any:
        return open_stored(str(self.file), TiledOptions(), "")


def save_frames(path: Path, frames: Iterable[NDArray[Any]]) -> str:
    """Write raw frames as a detector does; return FILE:/dataset."""
    with h5py.File(path, "w") as file:
        file["entry/data"] = np.stack(list(frames))
    return f"{path}:/entry/data"


def stored(
    folder: Path,
    frames: Sequence[NDArray[Any]],
    profile: Profile | None = None,
    *,
    lost: Iterable[int] = (),
    origin: str = "",
    before: Callable[[int, Node], object] = lambda index, node: None,
) -> Stored:
    """Label frames one by one as the node of a profile does, and store the run in `folder`.

    Frames in `lost` are not read; `origin` is where all of them are; `before` is called ahead of
    each frame.
    """
    profile = profile or profile_of(folder)
    user = read_pixel_mask(profile.pixel_mask) if profile.pixel_mask else None
    options = profile.node

    def make_trainer() -> Trainer:
        kind = BackgroundTrainer if profile.trainer == "background" else InlineTrainer
        return kind(options.student, promotion=options.promotion)

    node = Node(options, make_trainer, make_store(profile), user)
    sink = HDF5Sink(folder / "runs", arrays=profile.tiled.arrays)
    sink.open(describe_with(profile, user)({"uid": "raw"}))
    node.open("raw")
    masks: list[Mask] = []
    for index, image in enumerate(frames):
        before(index, node)
        frame = Frame("raw", index, image, image.shape, time=1.0, origin=origin)
        if index in lost:
            frame = replace(frame, image=None, fault="the writer stopped")
        masks += node.process([frame])
    node.close("raw")
    sink.write("raw", masks)
    sink.close("raw", Account(len(frames), len(frames)))
    file = Path(sink.address("raw"))
    sink.shutdown()
    assert sink.fault() == ""
    return Stored(file, masks, frames)
