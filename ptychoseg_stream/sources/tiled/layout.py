"""How bluesky's TiledWriters lay out a run in Tiled, read without ever loading the whole of it.

::

    <run>                     spec BlueskyRun 3, metadata: start, stop
      <stream>                metadata: the descriptor without its name
        internal              table: seq_num, time, scalars and their times; a row per event
        <key>                 array of a key that is large or lies in a file

Images are stored as ``(N, H, W)``, one frame after the other, or as ``(N, n, H, W)``, n of them per
event; both are read as ``(frames, H, W)``.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .address import Path, TiledRefused
from .client import Item, TiledClient, dtype_of

Json: TypeAlias = Mapping[str, Any]

_PAGE = 100
_MOST_PAGES = 100
_MOST_BYTES = 1 << 30  # of a row, or of the images of an event
_NOT_OF_A_DESCRIPTOR = ("_config_updates", "stream_name")


@dataclass(frozen=True, slots=True)
class StoredImages:
    """An array with images.

    Parameters
    ----------
    path : tuple of str
        Where.
    shape : tuple of int
        ``(N, H, W)`` or ``(N, n, H, W)``.
    dtype : dtype
        Of a pixel.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def per_row(self) -> int:
        """Frames in a row of the array."""
        return prod(self.shape[1:-2])

    @property
    def frames(self) -> int:
        """All frames."""
        return self.shape[0] * self.per_row

    @property
    def row_bytes(self) -> int:
        """Size of a row [bytes]."""
        return prod(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stream of a run.

    Parameters
    ----------
    path : tuple of str
        Where; the last key is its name.
    descriptors : sequence of mapping
        Its descriptor documents, the first one first.
    arrays : mapping of str to StoredImages
        Arrays that can hold images, by key.
    tables : tuple of tuple of str
        Where the tables of events are; one, unless there are very many keys.
    """

    path: Path
    descriptors: Sequence[Json]
    arrays: Mapping[str, StoredImages] = field(default_factory=dict[str, StoredImages])
    tables: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """As in the descriptor."""
        return self.path[-1]

    def per_event(self, key: str) -> int:
        """Return how many images of a key an event has."""
        images = self.arrays.get(key)
        if images is not None and len(images.shape) > 3:
            return max(1, images.per_row)
        return max(1, prod(self.sides(key)[:-2]))

    def sides(self, key: str) -> tuple[int, ...]:
        """Return the shape that the descriptor promises for a key; 0 for what it does not know."""
        spec = _mapping(self.descriptors[0].get("data_keys") or {}) or {}
        shape = (_mapping(spec.get(key)) or {}).get("shape")
        known = cast(Sequence[Any], shape) if isinstance(shape, list | tuple) else ()
        return tuple(side if isinstance(side, int) and side > 0 else 0 for side in known)


class StoredRun:
    """A run in Tiled; nothing is kept but where it is.

    Parameters
    ----------
    client : TiledClient
        Asks the server.
    path : tuple of str
        Node of the run.
    """

    def __init__(self, client: TiledClient, path: Path) -> None:
        """Take what is given; nothing is asked yet."""
        self.path = path
        self._client = client

    def documents(self) -> tuple[Json | None, Json | None]:
        """Return the start and stop documents; None for what is not there (yet)."""
        node = self._client.item(self.path)
        metadata = metadata_of(node)
        start, stop = _mapping(metadata.get("start")), _mapping(metadata.get("stop"))
        tags = node["attributes"].get("access_tags")  # TiledWriter takes them out of the start
        if start is not None and tags:
            start = {**start, "tiled_access_tags": list(tags)}
        return start, stop

    def streams(self, wanted: Sequence[str] = (), run_uid: str = "") -> list[StoredStream]:
        """Return the streams as they are now; those of the names that are wanted, or all."""
        path, nodes = self.path, list(_all(self._client, self.path))
        if len(nodes) == 1 and nodes[0].get("id") == "streams" and not has_spec(nodes[0], _STREAM):
            path = (*path, "streams")  # of older writers
            nodes = list(_all(self._client, path))
        found: list[StoredStream] = []
        for node in nodes:
            name = str(node["id"])
            if "uid" in metadata_of(node) and (not wanted or name in wanted):
                found.append(self._stream((*path, name), descriptors_of(node, run_uid)))
        return sorted(found, key=lambda stream: float(stream.descriptors[0].get("time", 0)))

    def frames(self, images: StoredImages, first: int, last: int, least: int = 1) -> NDArray[Any]:
        """Return frames [first, last) or the first of them, ``(n, H, W)``.

        Parameters
        ----------
        images : StoredImages
            Where.
        first, last : int
            Which frames.
        least : int
            More than a block is read only if these are more.

        Raises
        ------
        TiledRefused
            If `least` frames are too many at once.
        """
        last = min(last, images.frames)
        if not 0 <= first < last:
            return np.empty((0, *images.shape[-2:]), images.dtype)
        per = images.per_row
        begin, end = first // per, -(-last // per)
        needed = -(-(first + least) // per) - begin
        if needed * images.row_bytes > _MOST_BYTES:
            raise TiledRefused(
                f"{'/'.join(images.path)}: {least} images of one event are more than "
                f"{_MOST_BYTES} bytes"
            )
        end = min(end, begin + self._client.blocks.rows(images.row_bytes, needed))
        rows = self._client.array(images.path, begin, end, images.shape, images.dtype)
        stack = rows.reshape(-1, *images.shape[-2:])
        return stack[first - begin * per : last - begin * per]

    def files(self, stream: StoredStream, key: str, run_uid: str = "") -> list[Json]:
        """Return the stream resources of a key, with made up uids: Tiled does not keep them."""
        node = self._client.item(stream.arrays[key].path, data_sources=True)
        found: list[Json] = []
        for source in cast(Sequence[Json], node["attributes"].get("data_sources") or ()):
            assets = cast(Sequence[Json], source.get("assets") or ())
            uris = [asset["data_uri"] for asset in assets if asset.get("data_uri")]
            found += [
                {
                    "uid": f"sr-{stream.descriptors[0]['uid']}-{key}-{n}",
                    "run_start": run_uid,
                    "data_key": key,
                    "mimetype": source.get("mimetype"),
                    "uri": uri,
                    "parameters": source.get("parameters") or {},
                }
                for n, uri in enumerate(uris[:_PAGE])
            ]
        return found

    def table(self, stream: StoredStream, columns: Sequence[str] = ()) -> pa.Table | None:
        """Return the table of events, each of them once; None if there is none yet.

        A writer that got no answer appends the same rows again.
        """
        if not stream.tables:
            return None
        table = self._client.table(stream.tables[0], columns)
        for path in () if columns else stream.tables[1:]:
            more = self._client.table(path)
            for name in more.column_names:
                if name not in table.column_names and len(more) == len(table):
                    table = table.append_column(name, more[name])
        if not {"seq_num", "time"} <= set(table.column_names):
            raise TiledRefused(f"{'/'.join(stream.tables[0])}: a table without seq_num and time")
        pairs = np.stack([table["seq_num"].to_numpy(), table["time"].to_numpy()])
        _, once = np.unique(pairs, axis=1, return_index=True)
        return table if len(once) == len(table) else table.take(np.sort(once))

    def _stream(self, path: Path, descriptors: list[Json]) -> StoredStream:
        arrays: dict[str, StoredImages] = {}
        tables: list[Path] = []
        for node in _all(self._client, path):
            key, about = str(node["id"]), node["attributes"]
            if about.get("structure_family") == "table" and key.startswith("internal"):
                tables.append((*path, key))
            elif about.get("structure_family") == "array":
                images = _images((*path, key), about.get("structure"))
                if images is not None:
                    arrays[key] = images
        return StoredStream(path, descriptors, arrays, tuple(sorted(tables)))


_STREAM = "BlueskyEventStream"


def has_spec(node: Item, name: str, version: str = "") -> bool:
    """Return whether a node is of a kind, such as "BlueskyRun"."""
    specs = cast(Sequence[Any], node["attributes"].get("specs") or ())
    return any(
        isinstance(spec, Mapping)
        and spec.get("name") == name
        and str(spec.get("version") or "").startswith(version)
        for spec in specs
    )


def metadata_of(node: Item) -> Json:
    """Return the metadata of a node; empty if it has none."""
    return _mapping(node["attributes"].get("metadata")) or {}


def descriptors_of(node: Item, run_uid: str) -> list[Json]:
    """Return the descriptor documents of a stream: its first, and those that updated it."""
    metadata = metadata_of(node)
    first = {key: value for key, value in metadata.items() if key not in _NOT_OF_A_DESCRIPTOR}
    first |= {"name": str(node["id"]), "run_start": run_uid}
    by_object: dict[str, list[str]] = {}
    for key, spec in cast(Json, first.get("data_keys") or {}).items():
        by_object.setdefault(str(spec.get("object_name", "")), []).append(key)
    first["object_keys"] = by_object
    found: list[Json] = [first]
    for update in cast(Sequence[Any], metadata.get("_config_updates") or ()):
        newer = {**deepcopy(dict(found[-1])), "uid": update["uid"], "time": update["time"]}
        configuration = newer.setdefault("configuration", {})
        for name, changed in cast(Json, update.get("configuration") or {}).items():
            one = configuration.setdefault(name, {"data": {}, "timestamps": {}, "data_keys": {}})
            one["data"].update(changed.get("data", {}))
            one["timestamps"].update(changed.get("timestamps", {}))
        found.append(newer)
    return found


def _images(path: Path, structure: Any) -> StoredImages | None:
    """Return what is known of an array, None if it cannot hold images."""
    about = _mapping(structure) or {}
    shape = tuple(int(side) for side in cast(Sequence[Any], about.get("shape") or ()))
    if len(shape) < 3 or 0 in shape[1:] or min(shape) < 0:
        return None
    try:
        images = StoredImages(path, shape, dtype_of(_mapping(about.get("data_type")) or {}))
    except TiledRefused:
        return None
    # No detector makes frames of this size: such a shape is a mistake, and would fill the memory.
    return images if images.row_bytes <= _MOST_BYTES else None


def _all(client: TiledClient, path: Path) -> Iterator[Item]:
    for page in range(_MOST_PAGES):
        nodes = client.children(path, offset=page * _PAGE, limit=_PAGE)
        yield from nodes
        if len(nodes) < _PAGE:
            return


def _mapping(value: Any) -> Json | None:
    return cast(Json, value) if isinstance(value, Mapping) else None
