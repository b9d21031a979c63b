"""Reads a derived run back: out of Tiled, out of the folder of a demo, or out of an HDF5 file."""

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from tiled.queries import Key

from ..errors import StoreError
from ..node.ports import Products
from .arrays import MASK
from .connection import READ_SCOPES, Unavailable, connect, node_address, translated
from .derived import RAW_SOURCE, STREAM, TABLE
from .embedded import EmbeddedTiled
from .options import TiledOptions
from .products_file import get_products
from .rows import COLUMNS
from .tiled_products import read_products

SPEC = "PtychosegRun"
CATALOG = "catalog.db"
RAW_KEYS = (RAW_SOURCE, "raw_stream", "raw_data_key")
_NO_ROWS: dict[str, list[Any]] = {name: [] for name in COLUMNS}  # of a run without a frame


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
    stop : mapping
        Its stop document; empty if it has none.
    lengths : mapping of str to int
        Rows of each array.
    raw_stream, raw_data_key : str
        Stream and data key of the raw frames; empty if they are not known.
    of_raw : int
        Derived runs of the same raw run, of which this is the newest; 1 where nobody looked.
    products : Products or None
        What the run says as a whole; None if it has none, as runs of older versions.
    """

    uid: str
    start: Mapping[str, Any]
    table: Mapping[str, list[Any]]
    arrays: tuple[str, ...]
    read: Callable[[str, int], NDArray[Any]]
    raw_source: str
    stop: Mapping[str, Any] = field(default_factory=dict)
    lengths: Mapping[str, int] = field(default_factory=dict)
    raw_stream: str = ""
    raw_data_key: str = ""
    of_raw: int = 1
    products: Products | None = None


@contextmanager
def open_stored(target: str, options: TiledOptions, api_key: str) -> Generator[StoredRun]:
    """Open a derived run.

    Parameters
    ----------
    target : str
        Address of the run's node in Tiled; HDF5 file; folder of a demo, or that of its masks (the
        newest run there); or the uid of the derived or of the raw run, to be looked up on the
        server of `options`.
    options : TiledOptions
        Server and container for a uid, and the time limit of requests.
    api_key : str

    Raises
    ------
    StoreError
        If there is no such run, or it cannot be read.
    """
    path = Path(target)
    if path.is_dir():
        with (
            _served(_catalog_in(path)) as server,
            _connected(server.uri, options, server.api_key) as root,
        ):
            yield _newest(root, server, options)
    elif path.is_file():
        with _hdf5(path) as file:
            yield _of_file(path, file)
    elif "://" in target:
        _require_no_key(target, options)
        with _connected(node_address(target), options, api_key) as node:
            yield _of_node(node, target, options)
    else:
        _require_uid(target, options)
        with _connected(options.uri, options, api_key) as root:
            node, count = _find(root, target, options)
            yield replace(_of_node(node, options.uri, options), of_raw=count)


def _catalog_in(folder: Path) -> Path:
    for place in (folder, folder / "tiled"):
        if (place / CATALOG).is_file():
            return place
    raise StoreError(f"{folder} holds no masks; name the folder that `ptychoseg demo` wrote")


@contextmanager
def _served(folder: Path) -> Generator[EmbeddedTiled]:
    server = EmbeddedTiled(folder)
    try:
        server.start()
    except StoreError as error:
        why = str(error).splitlines()[0]
        raise StoreError(f"{why} {folder / 'server.log'}") from error
    try:
        yield server
    except Unavailable as error:  # the tables are one file, which only one server can have
        raise StoreError(
            f"{folder}: its tables cannot be read; if another program serves them at this moment, "
            f"end it, or give the address of the run ({error})"
        ) from error
    finally:
        server.stop()


@contextmanager
def _hdf5(path: Path) -> Generator[h5py.File]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StoreError(f"{path} cannot be read as HDF5: {error}") from error
    with file:
        yield file


def _require_no_key(target: str, options: TiledOptions) -> None:
    """Refuse what would be repeated in messages, and is seen by all users of this machine."""
    if set("@?#") & set(target):
        raise StoreError(
            "the address of the run carries a user, key or query: give it without, and the API "
            f"key in the environment variable {options.api_key_env}"
        )


def _require_uid(target: str, options: TiledOptions) -> None:
    if Path(target).suffix or len(Path(target).parts) != 1:
        raise StoreError(f"{target}: no such file or folder; give one, a uid, or an address")
    if "://" not in options.uri:
        raise StoreError(
            f"{target}: no such file or folder, and the profile names no server to look for a run "
            f"of this uid (`tiled.uri` is {options.uri}); choose another with --profile"
        )


@contextmanager
def _connected(uri: str, options: TiledOptions, api_key: str) -> Generator[Any]:
    with translated(uri, options.api_key_env, READ_SCOPES):
        node: Any = connect(uri, api_key, options.timeout)
    try:
        yield node
    finally:
        node.context.http_client.close()


def _newest(root: Any, server: EmbeddedTiled, options: TiledOptions) -> StoredRun:
    with translated(server.uri, options.api_key_env, READ_SCOPES):
        runs = list(_runs_below(root))
    if not runs:
        raise StoreError(f"{server.folder} holds no run; name the folder of a demo that ended")
    return _of_node(_last(runs), server.uri, options)


def _runs_below(node: Any) -> Iterator[Any]:
    """Yield the derived runs of a catalogue, whatever containers they are in."""
    for child in node.values():
        if any(spec.name == SPEC for spec in child.specs):
            yield child
        elif not child.specs and isinstance(child, Mapping):
            yield from _runs_below(child)


def _find(root: Any, uid: str, options: TiledOptions) -> tuple[Any, int]:
    """Return the run of a uid, and how many there are, where it is that of the raw run."""
    container = options.container.strip("/")
    missing = StoreError(
        f"{options.uri} has no masks of a run {uid} in {container}; give the uid of the raw or of "
        "the derived run, the address of its node, or a file"
    )
    with translated(options.uri, options.api_key_env, READ_SCOPES):
        try:
            runs = root[container]
        except KeyError:
            raise missing from None
        if uid in runs:
            return runs[uid], 1
        found = list(runs.search(Key("start.original_run_uid") == uid).values())
        if not found:
            raise missing
        return _last(found), len(found)


def _last(runs: Sequence[Any]) -> Any:
    """Return the run that began last: more than one node may have labelled a raw run."""
    return max(runs, key=lambda run: run.metadata["start"]["time"])


def _of_node(node: Any, uri: str, options: TiledOptions) -> StoredRun:
    with translated(uri, options.api_key_env, READ_SCOPES):
        is_run = any(spec.name == SPEC for spec in node.specs)
        stream = node[STREAM].base if is_run and STREAM in node else {}
        if not is_run or (STREAM in node and (MASK not in stream or TABLE not in stream)):
            raise StoreError(f"{node.uri} holds no masks; name the node of a derived run")
        arrays = {name: stream[name] for name in stream if name != TABLE}
        table = _NO_ROWS
        if arrays:
            columns = stream[TABLE].read()
            table = {name: columns[name].tolist() for name in columns.columns}
        start = _plain(node.metadata["start"])
        stop = _plain(node.metadata.get("stop") or {})
        lengths = {name: int(array.shape[0]) for name, array in arrays.items()}
        about: Mapping[str, Any] = arrays[MASK].metadata if arrays else {}
        raw = {key: str(about.get(key, "")) for key in RAW_KEYS}
        products = read_products(node)

    def read(name: str, row: int) -> NDArray[Any]:
        with translated(uri, options.api_key_env, READ_SCOPES):
            return np.asarray(arrays[name][row])

    return StoredRun(
        str(start["uid"]),
        start,
        table,
        tuple(arrays),
        read,
        raw[RAW_SOURCE],
        stop,
        lengths,
        raw["raw_stream"],
        raw["raw_data_key"],
        products=products,
    )


def _of_file(path: Path, file: h5py.File) -> StoredRun:
    empty = "raw_run" in file.attrs and "start" in file and MASK not in file
    if not empty and (MASK not in file or TABLE not in file):
        raise StoreError(f"{path} holds no masks; name an HDF5 file of a derived run")
    columns: Any = {} if empty else file[TABLE]
    table = {name: _values(column) for name, column in columns.items()} or _NO_ROWS
    document: Any = file["start"]
    ending: Any = file.get("stop")
    start = json.loads(document.asstr()[()])
    arrays = {name: item for name, item in file.items() if getattr(item, "ndim", 0) == 3}
    about: Mapping[str, Any] = {} if empty else arrays[MASK].attrs
    raw = {key: str(about.get(key, "")) for key in RAW_KEYS}
    return StoredRun(
        str(start["uid"]),
        start,
        table,
        tuple(arrays),
        lambda name, row: np.asarray(arrays[name][row]),
        raw[RAW_SOURCE],
        json.loads(ending.asstr()[()]) if ending is not None else {},
        {name: len(array) for name, array in arrays.items()},
        raw["raw_stream"],
        raw["raw_data_key"],
        products=get_products(file),
    )


def _values(column: Any) -> list[Any]:
    text = h5py.check_string_dtype(column.dtype) is not None
    return list(column.asstr()[:]) if text else column[:].tolist()


def _plain(value: Any) -> Any:
    """Return metadata, which Tiled's client shows behind views of its own, as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
