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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from ..errors import StoreError
from .arrays import ARRAYS, Pixels
from .batch import Batch, numbered
from .derived import TABLE
from .durable import put
from .side_tables import SIDE_TABLES

TEXT = h5py.string_dtype()
TO_HDF5 = {"bool": np.bool_, "int64": np.int64, "double": np.float64, "string": TEXT}
CHUNK_BYTES = 1 << 18
COLUMN_CHUNK = 256


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
    put(path, memory.getvalue())


def load(path: Path) -> Batch:
    """Read the batch of a segment.

    Raises
    ------
    StoreError
        If the file is damaged.
    """
    try:
        with h5py.File(path, "r") as file:
            first: Any = file.attrs["first"]
            notes = {name: _table(file[name]) for name in SIDE_TABLES if name in file}
            raw = json.loads(str(file.attrs["raw"]))
            return Batch(int(first), _arrays(file), _table(file[TABLE]), notes, raw)
    except (OSError, LookupError, ValueError, TypeError, RuntimeError, AttributeError) as error:
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


def _arrays(file: h5py.File) -> Mapping[str, Pixels]:
    arrays: dict[str, Any] = {name: file[name] for name in ARRAYS if name in file}
    return {name: data[:] for name, data in arrays.items()}


def _table(group: Any) -> pa.Table:
    return pa.table({name: _column(data) for name, data in group.items()})


def _column(data: Any) -> pa.Array:
    if h5py.check_string_dtype(data.dtype) is not None:
        return pa.array(data.asstr()[:].tolist(), pa.string())
    return pa.array(data[:])
