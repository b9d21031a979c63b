"""Writes a run as one CXI file, which is a NeXus file, too; `fields` is what frames share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..science.frame import bit_legend, legend
from .fields import DATA, DETECTOR, PROCESS, write_fields
from .record import ExportRun
from .target import growing


def write_cxi(
    run: ExportRun,
    path: Path,
    *,
    force: bool = False,
    raw: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write the file, whole or not at all; frame by frame, whatever the length of the run.

    Parameters
    ----------
    run : ExportRun
    path : Path
    force : bool
        Replace a file that is there.
    raw : bool
        Keep the raw frames beside those that are repaired.
    progress : callable
        Told the number of frames that are written.

    Raises
    ------
    DatasetError
        If the file is there already, or a raw frame cannot be read.
    StoreError
        If the disk does not take it, or masks cannot be read.
    """
    with growing(path, force=force) as part, h5py.File(part, "w", track_order=True) as file:
        write_fields(file, run)
        stacks = _stacks(file, run)
        kept = _raw_stack(file, run) if raw else None
        _link(file)
        for index, frame in enumerate(run.frames()):
            images = (frame.counts, frame.bits, frame.valid, frame.classes)
            for stack, image in zip(stacks, images, strict=True):
                stack[index] = image
            if kept is not None:
                kept[index] = frame.raw
            progress(index + 1)


def _stacks(file: h5py.File, run: ExportRun) -> tuple[Any, ...]:
    """Create what holds an image per frame: data, pixel_mask, valid, class_map."""
    data = _stack(file, f"{DETECTOR}/data", run, np.float32)
    data.attrs["units"] = "counts"
    data.attrs["long_name"] = "photons"
    data.attrs["meaning"] = "(raw - pedestal) / gain, repaired where wrong in this frame only"
    data.attrs["axes"] = "translation:y:x"  # as CXI has it; NeXus' are those of the group
    reasons = _stack(file, f"{DETECTOR}/pixel_mask", run, np.uint32)
    reasons.attrs["bit_legend"] = json.dumps(bit_legend())
    reasons.attrs["meaning"] = "0: good in this frame, else the reasons, bits of NXdetector"
    valid = _stack(file, f"{DETECTOR}/valid", run, np.uint8)
    valid.attrs["meaning"] = "1: use this pixel of this frame, 0: do not"
    classes = _stack(file, f"{PROCESS}/class_map", run, np.uint8)
    classes.attrs["class_codes"] = json.dumps(legend())
    classes.attrs["meaning"] = "what a pixel shows; says nothing of whether it may be used"
    return data, reasons, valid, classes


def _raw_stack(file: h5py.File, run: ExportRun) -> Any:
    stack = _stack(file, f"{DETECTOR}/raw", run, run.dtype)
    stack.attrs["units"] = "detector units"
    stack.attrs["meaning"] = "frames as they came: nothing subtracted, scaled or repaired"
    return stack


def _stack(file: h5py.File, path: str, run: ExportRun, dtype: Any) -> Any:
    stack = file.create_dataset(
        path,
        shape=(len(run), *run.shape),
        dtype=dtype,
        chunks=(1, *run.shape),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
    )
    stack.attrs["interpretation"] = "image"
    return stack


def _link(file: h5py.File) -> None:
    """Make data_1 what a viewer opens: the frames, one image each, by their index."""
    file[f"{DATA}/data"] = h5py.SoftLink(f"/{DETECTOR}/data")
    group = file[DATA]
    group.attrs["signal"] = "data"
    group.attrs["axes"] = ["frame_index", ".", "."]
    group.attrs["frame_index_indices"] = np.array([0])
