"""Reads frames through a handler, a class that another package installed for a resource spec.

Such a class is other people's code, and it is run: only what is installed on this machine, or given
in the program, never what a document brings along.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.node.guard import Guard

from .asset import Asset
from .hdf5_reader import check_frame_size
from .options import ReaderOptions
from .paths import Fence, check_regular, local_path
from .patience import Patience

log = logging.getLogger(__name__)

GROUP = "databroker.handlers"
Handler: TypeAlias = Callable[..., Any]


def handler_of(spec: str, handlers: Mapping[str, Handler] | None) -> Handler:
    """Return the handler class of a resource spec.

    Parameters
    ----------
    spec : str
        Of the resource.
    handlers : mapping, optional
        Spec -> handler class; they come before the installed ones.

    Raises
    ------
    DatasetError
        When there is none, or its package cannot be imported.
    """
    if handlers and spec in handlers:
        return handlers[spec]
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if spec not in found:
        known = ", ".join(sorted({*found, *(handlers or {})})) or "none"
        raise DatasetError(
            f"no handler is installed for resources of spec {spec!r} (there are: {known}): install "
            f"the package that brings it (entry points {GROUP}), such as area-detector-handlers"
        )
    entry: EntryPoint = found[spec]
    guard = Guard(log)
    handler = guard.call(f"import the handler of spec {spec} ({entry.value})", entry.load, None)
    if handler is None:
        raise DatasetError(f"{guard.last}; install or repair its package")
    return cast(Handler, handler)


class HandlerReader:
    """Frames of one resource through its handler.

    Parameters
    ----------
    asset : Asset
        Of a resource.
    options : ReaderOptions
        Limits.
    handler : callable
        ``handler(path, **resource_kwargs)(**datum_kwargs)`` returns an image or a stack of them.

    Raises
    ------
    DatasetError
        When its path is not one of this machine, or outside of what may be read.
    """

    def __init__(self, asset: Asset, options: ReaderOptions, handler: Handler) -> None:
        self._asset = asset
        self._options = options
        self._handler = handler
        self._path = local_path(asset.uri, options.root_map)
        self._fence = Fence(options.roots)
        self._fence.check_place(self._path)
        self._fence.check_words(asset.kwargs)
        self._patience = Patience(options.read_timeout)
        self._guard = Guard(log)
        self._opened: Any = None

    def __str__(self) -> str:
        """Return the path and the spec, for messages."""
        return f"{self._path} (spec {self._asset.spec})"

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Refuse: only datums say what a handler can be asked for."""
        raise DatasetError(
            f"{self} is read by datum, and frames {start} to {stop} of it were asked for: "
            "emit a datum for each event"
        )

    def read_datum(self, datum_kwargs: Mapping[str, Any]) -> NDArray[Any]:
        """Return the frames of a datum; see `readers.Reader`."""
        answer: Any = None
        for _ in self._patience.attempts():
            answer = self._guard.call(
                f"read {self} with {self._name()}", lambda: self._ask(datum_kwargs), None
            )
            if answer is None:
                self.close()
                raise DatasetError(f"{self._guard.last}; see the handler and datum {datum_kwargs}")
            if isinstance(answer, DatasetError):
                raise answer
            if not isinstance(answer, OSError):
                self._patience.succeeded()
                return cast(NDArray[Any], answer)
            self.close()
        self._patience.failed()
        raise DatasetError(
            f"cannot read {self} with {self._name()}: {answer}; check that the file is there and "
            "visible from this machine (root_map)"
        )

    def close(self) -> None:
        """Close the handler; a later read makes a new one."""
        opened, self._opened = self._opened, None
        if callable(close := getattr(opened, "close", None)):
            self._guard.call(f"close {self._name()}", close, None)

    def _ask(self, datum_kwargs: Mapping[str, Any]) -> Any:
        """Return the frames; a late file, and what was refused, as the error they raised."""
        try:
            if self._opened is None:
                self._check_file(self._path)
                self._opened = self._handler(self._path, **self._asset.kwargs)
            self._check_files(datum_kwargs)
            return self._frames(self._opened(**datum_kwargs))
        except (OSError, DatasetError) as error:
            return error

    def _check_file(self, path: str) -> None:
        self._fence.check_place(path)
        # Many handlers take a folder, or the beginning of a name, which need not exist.
        try:
            check_regular(path, or_folder=True)
        except FileNotFoundError:
            return

    def _check_files(self, datum_kwargs: Mapping[str, Any]) -> None:
        """Check what the handler is going to open, as far as it says so."""
        self._fence.check_words(datum_kwargs)
        if callable(list_files := getattr(self._opened, "get_file_list", None)):
            for file in cast(Iterable[Any], list_files([dict(datum_kwargs)])):
                self._check_file(str(file))

    def _frames(self, answer: Any) -> NDArray[Any]:
        """Return an answer as ``(n, H, W)``; a lazy one (dask) is computed once it was checked."""
        shape = tuple(getattr(answer, "shape", None) or np.shape(answer))
        if len(shape) < 2:
            raise DatasetError(f"{self} gives an array of shape {shape}, not images")
        dtype = np.dtype(getattr(answer, "dtype", None) or np.asarray(answer).dtype)
        if dtype.kind not in "biuf":
            raise DatasetError(f"{self} gives {dtype}, which is no real number")
        check_frame_size(str(self), shape[-2:], dtype, self._options)
        size, most = math.prod(shape) * dtype.itemsize, self._options.max_read_bytes
        if size > most:
            raise DatasetError(
                f"{self} gives {size} bytes for one datum, of which at most {most} are read at "
                "once: raise frames.max_read_bytes of the profile if that is right"
            )
        return np.asarray(answer).reshape(-1, *shape[-2:])

    def _name(self) -> str:
        return getattr(self._handler, "__name__", type(self._handler).__name__)
