"""Reads frames out of the files that documents name: HDF5, TIFF, and others through handlers."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from ptychoseg_stream.errors import DatasetError

from .asset import HDF5, TIFF, Asset
from .handler_reader import HandlerReader, handler_of
from .hdf5_reader import Hdf5Frames, Hdf5Reader
from .options import ReaderOptions
from .paths import Fence, FileNames, local_path
from .patience import Patience
from .sequence_reader import FileReader, SequenceReader
from .tiff_reader import read_tiff

_DATASET = "/entry/data/data"  # of area detector, where no document names another one


class Reader(Protocol):
    """Frames of one asset; not thread-safe. Files are opened at the first read.

    `read` and `read_datum` raise `DatasetError`, and nothing else, when the file is missing,
    refused or damaged; the reader stays usable, and a later read tries again.
    """

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames [start, stop) of the asset, or the first n of them.

        Waits up to ``read_timeout`` for frames that are not there yet; once that ran out, nothing
        waits until a read succeeds.

        Returns
        -------
        ndarray
            ``(n, H, W)``, real numbers, ``n <= stop - start``. n is less when the file did not
            grow in time, when a frame in the middle was never written, or when all of them are
            more than ``max_read_bytes``: read on from ``start + n``. n = 0: frame `start` is not
            there; frames after it may be.

        Raises
        ------
        DatasetError
            When the file or dataset is missing, refused, damaged, or not a stack of images.
        """
        ...

    def read_datum(self, datum_kwargs: Mapping[str, Any]) -> NDArray[Any]:
        """Return the frames that a datum names, ``(n, H, W)``; n may be less, as in `read`."""
        ...

    def close(self) -> None:
        """Give all files back; a later read opens them again."""
        ...

    def __str__(self) -> str:
        """Return ``file:dataset``, for messages, and the origin of frames."""
        ...


def open_reader(
    asset: Asset,
    options: ReaderOptions | None = None,
    handlers: Mapping[str, Callable[..., Any]] | None = None,
) -> Reader:
    """Return the reader of an asset; no file is opened yet, and nothing waits.

    Parameters
    ----------
    asset : Asset
        What to read.
    options : ReaderOptions, optional
        Where files are, and limits.
    handlers : mapping, optional
        Spec -> handler class. They come before our own readers and before the installed ones
        (entry points ``databroker.handlers``).

    Raises
    ------
    DatasetError
        When it cannot be read at all: a remote URI, outside of the roots, a spec or mimetype that
        nobody reads.
    """
    options = options or ReaderOptions()
    if asset.spec and (not asset.mimetype or asset.spec in (handlers or {})):
        return HandlerReader(asset, options, handler_of(asset.spec, handlers))
    if asset.mimetype not in (HDF5, TIFF):
        raise DatasetError(
            f"cannot read {asset.uri} of mimetype {asset.mimetype}: {HDF5} and {TIFF} are read; "
            "write frames to one of these"
        )
    fence = Fence(options.roots)
    path = local_path(asset.uri, options.root_map)
    fence.check_place(path)
    dataset = (asset.dataset or _DATASET) if asset.mimetype == HDF5 else ""
    if asset.mimetype == HDF5 and not asset.template:
        return _ByDatum(asset, Hdf5Reader(path, dataset, options, fence))
    names = FileNames(path, asset.template, asset.filename)
    read_file = _hdf5_file(dataset, options, fence) if dataset else _tiff_file(options, fence)
    patience, most = Patience(options.read_timeout), options.max_read_bytes
    reader = SequenceReader(names, asset.frames_per_file, read_file, patience, most, dataset)
    return _ByDatum(asset, reader)


class _Frames(Protocol):
    def read(self, start: int, stop: int) -> NDArray[Any]: ...

    def close(self) -> None: ...


class _ByDatum:
    """Lets frames that have numbers be read by datum, too."""

    def __init__(self, asset: Asset, frames: _Frames) -> None:
        self._asset = asset
        self._frames = frames

    def __str__(self) -> str:
        return str(self._frames)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self._frames.read(start, stop)

    def read_datum(self, datum_kwargs: Mapping[str, Any]) -> NDArray[Any]:
        span = self._asset.span(datum_kwargs) or range(0)
        return self._frames.read(span.start, span.stop)

    def close(self) -> None:
        self._frames.close()


def _hdf5_file(dataset: str, options: ReaderOptions, fence: Fence) -> FileReader:
    def read(path: str, first: int, last: int) -> NDArray[Any]:
        frames = Hdf5Frames(path, dataset, options, fence, single=True)
        try:
            return frames.read(first, last)
        finally:
            frames.close()

    return read


def _tiff_file(options: ReaderOptions, fence: Fence) -> FileReader:
    return lambda path, first, last: read_tiff(path, first, last, options, fence)
