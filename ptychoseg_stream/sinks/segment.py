"""Batches in HDF5: a segment of the spool is a file with one, the file of a run takes many.

::

    /                attributes: first (index of the first row), raw (JSON)
    /mask            (N, H, W) uint8, chunked, compressed; row i is frame first + i
    /valid_bits ...  other arrays, where there are any
    /internal/...    one dataset of N values per column of the table
    /alarms/...      one dataset per column, one value per alarm; there once there is one
    /stages/...      the same, one value per stage
"""

import io
import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from ..errors import StoreError
from ..node.disk import write_whole
from .arrays import ARRAYS, Pixels
from .batch import Batch, numbered
from .derived import TABLE
from .side_tables import SIDE_TABLES

TEXT = h5py.string_dtype()
TO_HDF5 = {"bool": np.bool_, "int64": np.int64, "double": np.float64, "string": TEXT}
CHUNK_BYTES = 1 << 18
COLUMN_CHUNK = 256
_LARGEST = 1 << 30  # bytes of one array of a segment; more was not written by us


def save(path: Path, batch: Batch) -> None:
    """Write a batch to a file of its own, synced.

    Raises
    ------
    OSError
        If the disk does not take it.
    """
    # In memory first: a disk that fills up is then an OSError, and nothing else.
    memory = io.BytesIO()
    with h5py.File(memory, "w", libver="latest") as file:
        file.attrs["first"] = batch.first
        file.attrs["raw"] = json.dumps(dict(batch.raw))
        for name, block in batch.arrays.items():
            small = {"compression": "lzf", "chunks": _chunk(block)} if block.size else {}
            file.create_dataset(name, data=block, **small)
        for name, table in {TABLE: batch.table, **batch.notes}.items():
            group = file.create_group(name, track_order=True)
            for field in table.schema:
                values, kind = table[field.name].to_pylist(), TO_HDF5[str(field.type)]
                group.create_dataset(field.name, (len(values),), kind, values)
    write_whole(path, memory.getvalue())


def load(path: Path) -> Batch:
    """Read the batch of a segment.

    Raises
    ------
    StoreError
        If the file is damaged, or not one of ours.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # to open a FIFO would take for ever
            raise ValueError("it is no regular file")
        with h5py.File(path, "r") as file:
            first: Any = file.attrs["first"]
            table = _table(_held(file, TABLE))
            notes = {name: _table(_held(file, name)) for name in SIDE_TABLES if name in file}
            raw = json.loads(str(file.attrs["raw"]))
            batch = Batch(int(first), _arrays(file, table.num_rows), table, notes, raw)
        _check_name(path, batch)
        return batch
    except (
        OSError,
        LookupError,
        ValueError,
        TypeError,
        RuntimeError,
        AttributeError,
        RecursionError,
        MemoryError,
    ) as error:
        raise StoreError(
            f"{path} cannot be read ({error}): move it away, and its rows become lost ones"
        ) from error


def append(file: h5py.File, batch: Batch) -> None:
    """Add the rows and notes of a batch behind those of the file of a run."""
    for name, block in batch.arrays.items():
        if name not in file:
            _create_array(file, name, block)
            file[name].attrs.update(batch.raw)
        _extend(file[name], block)
    for name, table in {TABLE: batch.table, **batch.notes}.items():
        group: Any = file.require_group(name)
        if name != TABLE and "seq_num" in group:
            table = numbered(table, group["seq_num"].shape[0])
        for field in table.schema:
            if field.name not in group:
                group.create_dataset(
                    field.name,
                    shape=(0,),
                    maxshape=(None,),
                    chunks=(COLUMN_CHUNK,),
                    dtype=TO_HDF5[str(field.type)],
                )
            _extend(group[field.name], table[field.name].to_pylist())


def _create_array(file: h5py.File, name: str, block: Pixels) -> None:
    data = file.create_dataset(
        name,
        shape=(0, *block.shape[1:]),
        maxshape=(None, *block.shape[1:]),
        chunks=_chunk(block),
        dtype=block.dtype,
        compression="gzip",
        compression_opts=1,
    )
    for key, value in ARRAYS[name].metadata.items():
        data.attrs[key] = value if isinstance(value, str) else json.dumps(value)


def _chunk(block: Pixels) -> tuple[int, ...]:
    frame = max(1, block.itemsize * block.shape[1] * block.shape[2])
    return (max(1, min(len(block), CHUNK_BYTES // frame)), *block.shape[1:])


def _extend(data: Any, values: Any) -> None:
    rows = data.shape[0]
    data.resize(rows + len(values), axis=0)
    data[rows:] = values


def _arrays(file: h5py.File, rows: int) -> Mapping[str, Pixels]:
    arrays: dict[str, Any] = {name: _held(file, name) for name in ARRAYS if name in file}
    for name, data in arrays.items():
        odd = data.ndim != 3 or len(data) != rows or data.dtype != ARRAYS[name].dtype
        if odd or data.nbytes > _LARGEST:
            raise ValueError(f"{name} is {data.shape} {data.dtype}, and there are {rows} rows")
    return {name: data[:] for name, data in arrays.items()}


def _table(group: Any) -> pa.Table:
    return pa.table({name: _column(_held(group, name)) for name in group})


def _held(group: Any, name: str) -> Any:
    """Return a member that is in the file itself: links would open other files."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link")
    member = group[name]
    if isinstance(member, h5py.Dataset) and (member.is_virtual or member.external):
        raise ValueError(f"the values of {name} are in another file")
    return member


def _check_name(path: Path, batch: Batch) -> None:
    """Refuse a file whose name, which the queue goes by, says other rows."""
    told = re.fullmatch(r"rows-(\d+)-(\d+)", path.stem)
    if told and (int(told[1]), int(told[2])) != (batch.first, batch.last):
        raise ValueError(f"it holds rows [{batch.first}, {batch.last})")


def _column(data: Any) -> pa.Array:
    if h5py.check_string_dtype(data.dtype) is not None:
        return pa.array(data.asstr()[:].tolist(), pa.string())
    return pa.array(data[:])
