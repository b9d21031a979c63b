"""A derived run in Tiled, read over plain HTTP as far as it is stored."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from math import prod
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import DatasetError, FeedError, StoreError
from ..node.ports import Products
from ..science.frame import ValidBit
from ..sinks.feed.items import FrameItem, Start
from ..sinks.products import IMAGES, place_of, products_of
from ..sources.arrays.stack import open_stack
from ..sources.tiled.address import Path, TiledAddress, TiledMissing, TiledUnavailable
from ..sources.tiled.client import TiledClient, dtype_of
from ..sources.tiled.layout import has_spec, metadata_of
from ..sources.tiled.search import equals

log = logging.getLogger(__name__)

_SPEC = "PtychosegRun"
_BLOCK = 16 << 20  # bytes of an array that are asked for at once
_MOST_ROW = 1 << 30  # bytes
_NEWEST = 20  # runs that are looked at for one that is open
_COLUMNS = ("seq_num", "raw_seq_num", "attempt", "status", "verdict", "ts_status")

Array = tuple[tuple[int, ...], np.dtype[Any]]  # shape and type


def find_run(client: TiledClient, path: Path, run: str) -> "DerivedRun | None":
    """Return the derived run that is meant; None if it is not there yet.

    Parameters
    ----------
    client : TiledClient
    path : tuple of str
        Of the run, or of the container of derived runs.
    run : str
        Uid of the raw or derived run; "" for one that is open.
    """
    node = client.item(path)
    if has_spec(node, _SPEC):
        start = _mapping(metadata_of(node).get("start"))
        if run not in ("", start.get("uid"), start.get("original_run_uid")):
            raise FeedError(f"{'/'.join(path)} is another run than {run}")
        return DerivedRun(client, path)
    if run:
        for key in ("start.uid", "start.original_run_uid"):
            if found := client.children(path, limit=1, sort="-", filters=equals(key, run)):
                return DerivedRun(client, (*path, str(found[0]["id"])))
        raise FeedError(f"{TiledAddress(client.address.base, path)} has no masks of run {run}")
    for item in client.children(path, limit=_NEWEST, sort="-"):
        if has_spec(item, _SPEC) and not metadata_of(item).get("stop"):
            return DerivedRun(client, (*path, str(item["id"])))
    return None


class DerivedRun:
    """A derived run while it grows.

    Parameters
    ----------
    client : TiledClient
    path : tuple of str
        Its node.

    Attributes
    ----------
    raw : str
        Uid of the raw run; known after `look`.
    shape : tuple of int or None
        ``(H, W)``; None before its first row.

    Raises
    ------
    SourceError
        Any method: Tiled does not answer, or refuses.
    """

    def __init__(self, client: TiledClient, path: Path) -> None:
        self.raw = ""
        self.shape: tuple[int, int] | None = None
        self._client = client
        self._path = path
        self._start: Mapping[str, Any] = {}
        self._source = ""
        self._told: Mapping[str, Any] = {}  # facts of the products that were read last
        self._no_images = False

    def look(self) -> Mapping[str, Any] | None:
        """Learn what there is; return the stop document, None without one."""
        metadata = metadata_of(self._client.item(self._path))
        self._start = _mapping(metadata.get("start"))
        self.raw = str(self._start.get("original_run_uid", ""))
        mask = self._array(*self._path, "primary", "mask")
        if mask is not None and len(mask[0]) == 3:
            self.shape = mask[0][1], mask[0][2]
        return _mapping(metadata.get("stop")) or None

    def start(self, seq: int) -> Start:
        """Return the beginning of the run."""
        told = ("raw_scan_id", "raw_plan_name", "sample", "data_session", "time")
        return Start(
            seq=seq,
            run=self.raw,
            derived=str(self._start.get("uid", "")),
            shape=self.shape or (0, 0),
            classes=_mapping(self._start.get("class_codes")),
            bits=_mapping(self._start.get("bit_legend")),
            start={
                key.removeprefix("raw_"): self._start[key] for key in told if key in self._start
            },
            tiled=str(TiledAddress(self._client.address.base, self._path)),
        )

    def rows(self, first: int) -> Iterator[FrameItem]:
        """Yield the rows from one on that are stored, `seq` and `revision` left at 0."""
        stream = (*self._path, "primary")
        mask, bits = self._array(*stream, "mask"), self._array(*stream, "valid_bits")
        if mask is None or mask[0][0] <= first:
            return
        table = self._table()
        length = min(len(table), mask[0][0], bits[0][0] if bits else mask[0][0])
        size = max(1, _BLOCK // max(1, prod(mask[0][1:]) * 2))
        for begin in range(first, length, size):
            end = min(length, begin + size)
            classes = self._read("mask", mask, begin, end)
            valid = self._read("valid_bits", bits, begin, end) if bits else None
            images = self._images(begin, end)
            for row in range(begin, end):
                about = {name: table[name][row].as_py() for name in _COLUMNS}
                good = valid[row - begin] if valid is not None else None
                yield self._item(row, about, images[row - begin], classes[row - begin], good)

    def products(self) -> Products | None:
        """Return what the run says as a whole; None if that is not there, or was read before."""
        place = place_of(self._path)
        try:
            about = metadata_of(self._client.item(place))
        except TiledMissing:
            return None
        if "frames" not in about or about == self._told:
            return None
        found: dict[str, NDArray[Any]] = {}
        for name in (*IMAGES, "sums", "positions"):
            array = self._array(*place, name)
            if array is not None:
                found[name] = self._client.array((*place, name), 0, array[0][0], *array)
        self._told = about
        try:
            return products_of(found, about)
        except StoreError as error:
            raise FeedError(str(error)) from error

    def _item(
        self,
        row: int,
        about: Mapping[str, Any],
        image: NDArray[Any] | None,
        classes: NDArray[Any],
        valid: NDArray[Any] | None,
    ) -> FrameItem:
        if valid is None:
            invalid = about["status"] != "ok"
            valid = np.full(classes.shape, ValidBit.GAP if invalid else 0, np.uint16)
        return FrameItem(
            seq=0,
            run=self.raw,
            index=row,
            time=float(about["ts_status"]),
            seq_num=int(about["raw_seq_num"]),
            attempt=int(about["attempt"]),
            image=image,
            classes=classes,
            valid_bits=valid,
            revision=0,
            status=str(about["status"]),
            verdict=str(about["verdict"]),
        )

    def _array(self, *path: str) -> Array | None:
        """Return what an array is now; None if it is not there."""
        try:
            node = self._client.item(path)
        except TiledMissing:
            return None
        about = _mapping(node["attributes"].get("structure"))
        shape = tuple(int(side) for side in cast(Sequence[Any], about.get("shape") or ()))
        dtype = dtype_of(_mapping(about.get("data_type")))
        if not shape or prod(shape[1:]) * dtype.itemsize > _MOST_ROW:
            raise FeedError(f"{'/'.join(path)} has shape {shape}")
        if path[-1] == "mask":
            self._source = str(metadata_of(node).get("raw_source") or "")
        return shape, dtype

    def _read(self, name: str, array: Array, first: int, last: int) -> NDArray[Any]:
        return self._client.array((*self._path, "primary", name), first, last, *array)

    def _table(self) -> pa.Table:
        """Return the rows of the table, each once: one whose answer was lost may be there twice."""
        try:
            table = self._client.table((*self._path, "primary", "internal"), _COLUMNS)
        except TiledMissing as error:  # the arrays are made before it
            raise TiledUnavailable(str(error), reached=True) from error
        numbers = table["seq_num"].to_numpy()
        _, once = np.unique(numbers, return_index=True)
        return table.take(once)

    def _images(self, first: int, last: int) -> list[NDArray[Any] | None]:
        """Return raw frames, if their file can be read here."""
        nothing: list[NDArray[Any] | None] = [None] * (last - first)
        if not self._source or self._no_images:
            return nothing
        try:
            with ExitStack() as stack:
                frames = stack.enter_context(open_stack(self._source))
                fits = frames.shape[1:] == self.shape
                return [frames[i] if fits and i < len(frames) else None for i in range(first, last)]
        except DatasetError as error:
            self._no_images = True
            log.info("run %s: its raw frames cannot be read here: %s", self.raw, error)
            return nothing


def _mapping(value: Any) -> dict[str, Any]:
    return dict(cast(Mapping[str, Any], value)) if isinstance(value, Mapping) else {}
