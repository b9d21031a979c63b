"""Numbers that a fly scan writes into HDF5 files, one per event: positions of encoders."""

import logging
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ptychoseg_stream.errors import DatasetError

from ..assets.asset import HDF5, asset_of_stream_resource
from ..assets.hdf5_open import open_dataset
from ..assets.hdf5_reader import NOT_YET
from ..assets.options import ReaderOptions
from ..assets.paths import Fence, local_path
from ..documents import Document
from .files import Files
from .indices import number, span_of

log = logging.getLogger(__name__)

_MOST_SPANS = 100_000


@dataclass(frozen=True, slots=True)
class _Span:
    """Rows [first, last) of a dataset, the values of the events from `seq_num` on."""

    resource: str
    first: int
    last: int
    seq_num: int


def _joined(one: _Span, other: _Span) -> _Span | None:
    """Return two spans that follow each other as one; None if they do not."""
    follows = one.resource == other.resource and one.last == other.first
    if not follows or other.seq_num - one.seq_num != other.first - one.first:
        return None
    return replace(one, last=other.last)


class Scalars:
    """Remembers which rows of which datasets were announced; reads them when they are wanted.

    Parameters
    ----------
    files : Files
        Knows the stream_resource documents.
    options : ReaderOptions
        Which files may be read.
    """

    def __init__(self, files: Files, options: ReaderOptions) -> None:
        self._files = files
        self._options = options
        self._waiting: dict[str, list[_Span]] = {}
        self._told: set[str] = set()

    def note(self, doc: Document, keys: Set[str]) -> None:
        """Take note of a stream_datum if it is of one of the keys."""
        resource = doc["stream_resource"]
        if not self._files.knows(resource):
            return
        key = str(self._files.resource(resource)["data_key"])
        if key not in keys:
            return
        start, stop = span_of(doc, "indices")
        spans = self._waiting.setdefault(key, [])
        span = _Span(resource, start, stop, number(doc["seq_nums"], "start") or start + 1)
        if start >= stop or len(spans) >= _MOST_SPANS:
            return
        if spans and (joined := _joined(spans[-1], span)):
            spans[-1] = joined
        else:
            spans.append(span)

    def read(self, key: str) -> Iterator[tuple[int, Any]]:
        """Yield seq_num and value of all that was announced, is there by now, and not yet read."""
        left: list[_Span] = []
        failed: set[str] = set()  # files that are not there: each is tried once
        for span in self._waiting.pop(key, ()):
            values: Any = ()
            try:
                if span.resource not in failed:
                    values = self._values(span)
            except (DatasetError, *NOT_YET) as error:
                failed.add(span.resource)
                self._tell(key, str(error))
            yield from zip(range(span.seq_num, span.seq_num + len(values)), values, strict=True)
            if (there := len(values)) < span.last - span.first:
                rest = _Span(span.resource, span.first + there, span.last, span.seq_num + there)
                left.append(rest)
        if left:
            self._waiting[key] = left

    def _values(self, span: _Span) -> Any:
        asset = asset_of_stream_resource(self._files.resource(span.resource))
        if asset.mimetype != HDF5 or asset.template:
            raise DatasetError(f"{asset.uri} is no HDF5 file: numbers are only read from those")
        fence = Fence(self._options.roots)
        path = local_path(asset.uri, self._options.root_map)
        fence.check_place(path)
        fence.check(path)
        opened = open_dataset(path, asset.dataset, fence, self._options.locking)
        try:
            data = opened.dataset
            column = data.ndim >= 1 and data.dtype.kind in "iuf" and np.prod(data.shape[1:]) == 1
            if not column or data.external or data.is_virtual:
                raise DatasetError(f"{path}:{asset.dataset} holds no column of numbers")
            return np.asarray(data[span.first : span.last], np.float64).reshape(-1)
        finally:
            opened.close()

    def _tell(self, key: str, why: str) -> None:
        if key not in self._told:
            self._told.add(key)
            log.warning("positions %s cannot be read (yet): %s", key, why)
