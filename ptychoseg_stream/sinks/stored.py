"""Reads a derived run back: out of Tiled, out of the folder of a demo, or out of an HDF5 file."""

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from tiled.queries import Key

from ..errors import StoreError
from .connection import connect, translated
from .derived import RAW_SOURCE, STREAM, TABLE
from .embedded import EmbeddedTiled
from .options import TiledOptions


@dataclass(frozen=True, slots=True, eq=False)
class StoredRun:
    """A derived run as it was stored; valid inside `open_stored`.

    Parameters
    ----------
    uid : str
        Of the derived run.
    start : mapping
        Its start document.
    table : mapping of str to list
        Its columns; row i is frame i of the raw run.
    arrays : tuple of str
        Names of the arrays of class maps and the like.
    read : callable
        (array name, row) -> ``(H, W)``.
    raw_source : str
        ``FILE:dataset`` of the raw frames; empty if they did not come from a file.
    """

    uid: str
    start: Mapping[str, Any]
    table: Mapping[str, list[Any]]
    arrays: tuple[str, ...]
    read: Callable[[str, int], NDArray[Any]]
    raw_source: str


@contextmanager
def open_stored(target: str, options: TiledOptions, api_key: str) -> Generator[StoredRun]:
    """Open a derived run.

    Parameters
    ----------
    target : str
        Address of the run's node in Tiled; HDF5 file; folder of a demo (its newest run); or the uid
        of the derived or of the raw run, to be looked up on the server of `options`.
    options : TiledOptions
        Server and container for a uid, and the time limit of requests.
    api_key : str

    Raises
    ------
    StoreError
        If there is no such run, or it cannot be read.
    """
    path = Path(target)
    if (path / "catalog.db").is_file():
        with EmbeddedTiled(path) as server, translated(server.uri, options.api_key_env):
            container: Any = server.client()[options.container.strip("/")]
            yield _of_node(list(container.values())[-1])
    elif path.is_file():
        with _hdf5(path) as file:
            yield _of_file(path, file)
    else:
        with translated(target if "://" in target else options.uri, options.api_key_env):
            yield _of_node(_find(target, options, api_key))


@contextmanager
def _hdf5(path: Path) -> Generator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}") from error


def _find(target: str, options: TiledOptions, api_key: str) -> Any:
    if "://" in target:
        return connect(target, api_key, options.timeout)
    root: Any = connect(options.uri, api_key, options.timeout)
    container = root[options.container.strip("/")]
    if target in container:
        return container[target]
    found = list(container.search(Key("start.original_run_uid") == target).values())
    if not found:
        raise StoreError(
            f"{options.uri} has no masks of a run {target} in {options.container}; give the uid of "
            "the raw or of the derived run, the address of its node, or a file"
        )
    return found[-1]


def _of_node(node: Any) -> StoredRun:
    stream = node[STREAM].base if STREAM in node else None
    if stream is None or TABLE not in stream:
        raise StoreError(f"{node.uri} holds no masks; name the node of a derived run")
    frame = stream[TABLE].read()
    arrays = tuple(name for name in stream if name != TABLE)
    return StoredRun(
        node.uri.rsplit("/", 1)[-1],
        node.metadata["start"],
        {name: frame[name].tolist() for name in frame.columns},
        arrays,
        lambda name, row: np.asarray(stream[name][row]),
        str(stream["mask"].metadata.get(RAW_SOURCE, "")),
    )


def _of_file(path: Path, file: h5py.File) -> StoredRun:
    if "mask" not in file or TABLE not in file:
        raise StoreError(f"{path} holds no masks; name an HDF5 file of a derived run")
    columns: Any = file[TABLE]
    start: Any = file["start"]
    arrays = [name for name, item in file.items() if getattr(item, "ndim", 0) == 3]
    return StoredRun(
        path.stem,
        json.loads(start.asstr()[()]),
        {name: _values(column) for name, column in columns.items()},
        tuple(arrays),
        lambda name, row: np.asarray(file[name][row]),  # pyright: ignore[reportIndexIssue]
        str(file["mask"].attrs.get(RAW_SOURCE, "")),
    )


def _values(column: Any) -> list[Any]:
    text = h5py.check_string_dtype(column.dtype) is not None
    return list(column.asstr()[:]) if text else column[:].tolist()
