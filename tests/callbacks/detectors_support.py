"""Detectors whose frames carry their number, one for each way documents carry images."""

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from event_model import compose_resource, compose_stream_resource
from numpy.typing import NDArray
from ophyd.sim import NullStatus

SHAPE = (12, 16)
Documents = list[tuple[str, Any]]


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


class _FileDetector(_Device):
    """Writes HDF5 in SWMR mode, or one TIFF per frame, below a folder."""

    dataset = "/entry/data/data"
    template = "%s%s_%6.6d.tiff"

    def __init__(
        self, folder: Path, name: str = "det", per_event: int = 1, tiff: bool = False
    ) -> None:
        super().__init__(name)
        self.folder = folder
        self.per_event = per_event
        self.tiff = tiff
        self.missing = 0  # frames at the end of each write that never reach the file
        self.assets: Documents = []

    def stage(self) -> list[Any]:
        self.first, self.events = self.count, 0
        self.path = self.folder / f"frames with a space {uuid.uuid4()}"
        if self.tiff:
            self.path.mkdir()
        else:
            self.path = self.path.with_suffix(".h5")
            self.file = h5py.File(self.path, "w", libver="latest")
            self.data = self.file.create_dataset(
                self.dataset, (0, *SHAPE), np.uint16, maxshape=(None, *SHAPE), chunks=(1, *SHAPE)
            )
            self.file.swmr_mode = True
        self.announce()
        return [self]

    def announce(self) -> None:
        raise AssertionError("a subclass says how")

    def file_name(self, number: int) -> str:
        raise AssertionError("a subclass says how")

    def unstage(self) -> list[Any]:
        if not self.tiff:
            self.file.close()
        return [self]

    def write(self, events: int) -> None:
        for n in range(events * self.per_event):
            if n < events * self.per_event - self.missing:
                self._save(watermarked(self.count))
            self.count += 1
        if not self.tiff:
            self.data.flush()
        self.events += events

    def _save(self, image: NDArray[Any]) -> None:
        if self.tiff:
            tifffile.imwrite(self.path / self.file_name(self.count - self.first), image)
            return
        self.data.resize(len(self.data) + 1, axis=0)
        self.data[-1] = image


class StreamDetector(_FileDetector):
    """Emits stream_resource and stream_datum; steps or flies."""

    def announce(self) -> None:
        self.told = 0
        parameters: dict[str, Any] = {"chunk_shape": (1, *SHAPE)}
        if self.tiff:
            parameters |= {"template": "img_{:05d}.tif", "join_method": "concat"}
        else:
            parameters |= {"dataset": self.dataset}
        self.bundle = compose_stream_resource(
            mimetype="multipart/related;type=image/tiff" if self.tiff else "application/x-hdf5",
            uri=self.path.as_uri() + ("/" if self.tiff else ""),
            data_key=f"{self.name}_image",
            parameters=parameters,
        )
        self.assets = [("stream_resource", self.bundle.stream_resource_doc)]

    def file_name(self, number: int) -> str:
        return f"img_{number:05d}.tif"

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


class DatumDetector(_FileDetector):
    """Emits resource and datum as an area detector of ophyd does: AD_HDF5_SWMR or AD_TIFF."""

    def announce(self) -> None:
        kwargs: dict[str, Any] = {"frame_per_point": self.per_event}
        if self.tiff:
            kwargs |= {"template": self.template, "filename": "frame"}
        self.bundle = compose_resource(
            spec="AD_TIFF" if self.tiff else "AD_HDF5_SWMR",
            root=str(self.folder),
            resource_path=self.path.name + ("/" if self.tiff else ""),
            resource_kwargs=kwargs,
        )
        self.assets = [("resource", self.bundle.resource_doc)]

    def file_name(self, number: int) -> str:
        return self.template % ("", "frame", number)

    def trigger(self) -> NullStatus:
        datum = self.bundle.compose_datum(datum_kwargs={"point_number": self.events})
        self.assets.append(("datum", datum))
        self.datum_id = datum["datum_id"]
        self.write(1)
        return NullStatus()

    def read(self) -> dict[str, Any]:
        return {f"{self.name}_image": {"value": self.datum_id, "timestamp": time.time()}}

    def describe(self) -> dict[str, Any]:
        return {
            f"{self.name}_image": {
                "source": "test",
                "dtype": "array",
                "dtype_numpy": "<u2",
                "shape": [self.per_event, *SHAPE],
                "external": "FILESTORE:",
            }
        }

    def collect_asset_docs(self) -> Iterator[tuple[str, Any]]:
        yield from self.assets
        self.assets = []


FLAVOURS: dict[str, Callable[[Path], Any]] = {
    "inline": lambda folder: InlineDetector(),
    "inline, 3 per event": lambda folder: InlineDetector(per_event=3),
    "datum": DatumDetector,
    "datum, 3 per event": lambda folder: DatumDetector(folder, per_event=3),
    "datum of TIFF files": lambda folder: DatumDetector(folder, tiff=True),
    "stream": StreamDetector,
    "stream, 3 per event": lambda folder: StreamDetector(folder, per_event=3),
    "stream of TIFF files": lambda folder: StreamDetector(folder, tiff=True),
}
"""Every way in which a step scan may carry its images."""

IN_FILES = [name for name in FLAVOURS if "inline" not in name]
