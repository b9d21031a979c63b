"""One look at a stream in Tiled, and the documents that can be made of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from ptychoseg_callbacks.documents import Document, dropped

from .address import Path
from .layout import Json, StoredImages, StoredStream

Row: TypeAlias = Mapping[str, Any]


@dataclass(slots=True)
class Look:
    """One look at a stream with images.

    Parameters
    ----------
    stream : StoredStream
        As it is now.
    key : str
        Key of the images.
    table : Table, optional
        Its events; None if there is no table, or it was not looked at.
    """

    stream: StoredStream
    key: str
    table: pa.Table | None = None

    @property
    def specs(self) -> Json:
        """Data keys of the stream."""
        return self.stream.descriptors[0].get("data_keys") or {}

    @property
    def external(self) -> bool:
        """Whether the images are in a file that events do not mention."""
        return "external" in self.specs[self.key]

    @property
    def images(self) -> StoredImages | None:
        """Where the images are."""
        return self.stream.arrays.get(self.key)

    @property
    def per(self) -> int:
        """Images per event."""
        return self.stream.per_event(self.key)

    @property
    def stored(self) -> int:
        """Events all of whose images are stored."""
        return self.images.frames // self.per if self.images else 0

    @property
    def rows(self) -> int:
        """Events that are in the table."""
        return len(self.table) if self.table is not None else 0

    @property
    def is_stack(self) -> bool:
        """Whether an event has a stack of images, maybe of one."""
        return self.per > 1 or len(self.stream.sides(self.key)) > 2

    def lost(self, fault: str) -> Document:
        """Return the note that takes the place of the images of an event."""
        shape = (0, 0, *self.stream.sides(self.key))[-2:]
        shape = self.images.shape[-2:] if self.images else shape
        return dropped(fault, (self.per, *shape) if self.is_stack else shape)

    def event(self, uid: str, index: int, row: Row, images: Any, now: float) -> Document:
        """Return an event document.

        Parameters
        ----------
        uid : str
            Of the event.
        index : int
            Its number, from 0.
        row : mapping
            Its row of the table; empty if there is none.
        images : ndarray or mapping
            ``(H, W)``, ``(n, H, W)``, or the note why there are none.
        now : float
            The time of an event without a row [s since the epoch].
        """
        taken = float(row.get("time", 0.0)) or now
        data = {key: value for key, value in row.items() if key in self.specs}
        times = {key: row.get(f"ts_{key}", taken) for key in (*data, self.key)}
        return {
            "uid": uid,
            "descriptor": _descriptor_at(self.stream.descriptors, taken),
            "time": taken,
            "seq_num": int(row.get("seq_num", index + 1)),
            "data": {**data, self.key: images},
            "timestamps": times,
            "filled": {},
        }


def inlined(descriptor: Document, keys: Sequence[str], stream: StoredStream) -> Document:
    """Return a descriptor that says of the images what the events made here are like."""
    specs = dict(descriptor.get("data_keys") or {})
    for key in keys:
        spec = {name: value for name, value in specs[key].items() if name != "external"}
        if key in stream.arrays:
            spec["dtype_numpy"] = np.dtype(stream.arrays[key].dtype).newbyteorder("=").str
        specs[key] = spec
    return {**descriptor, "data_keys": specs}


def _descriptor_at(descriptors: Sequence[Document], taken: float) -> str:
    found = descriptors[0]
    for later in descriptors[1:]:
        found = later if float(later.get("time", 0.0)) <= taken else found
    return str(found["uid"])


def growing(stream: StoredStream) -> Iterator[Path]:
    """Yield the nodes that change while a run goes on, but for those whose changes are images."""
    yield stream.path
    yield from stream.tables
    specs = stream.descriptors[0].get("data_keys") or {}
    yield from (one.path for key, one in stream.arrays.items() if "external" in specs.get(key, {}))
