"""The products of a run in HDF5: a group of arrays, the facts are its attributes."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import StoreError
from ..node.disk import write_whole
from ..node.ports import Products
from .products import MEANINGS, PRODUCTS, arrays_of, products_of

_LARGEST = 1 << 30  # bytes of one array; more was not written by us


def put_products(file: h5py.File, products: Products) -> None:
    """Write the group of products of a file, in place of the one before.

    Raises
    ------
    OSError, RuntimeError
        If the disk does not take it.
    """
    if PRODUCTS in file:
        del file[PRODUCTS]
    group = file.create_group(PRODUCTS)
    arrays, about = arrays_of(products)
    for name, values in arrays.items():
        small = {"compression": "gzip", "compression_opts": 1} if values.size else {}
        group.create_dataset(name, data=values, **small)
        group[name].attrs["meaning"] = MEANINGS[name]
    for name, value in about.items():
        group.attrs[name] = json.dumps(value) if isinstance(value, dict | list) else value


def get_products(file: h5py.File) -> Products | None:
    """Return the products in a file; None if it has none.

    Raises
    ------
    StoreError
        If they are damaged.
    """
    if not isinstance(file.get(PRODUCTS, getlink=True), h5py.HardLink):
        return None
    group: Any = file[PRODUCTS]
    arrays: dict[str, Any] = {}
    for name in group:
        # A link, or values that lie in another file, would have it opened.
        own = isinstance(group.get(name, getlink=True), h5py.HardLink)
        data: Any = group[name] if own else None
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
            raise StoreError(f"{file.filename}: {PRODUCTS}/{name} is not in the file itself")
        if data.nbytes > _LARGEST:
            raise StoreError(f"{file.filename}: {PRODUCTS}/{name} has {data.nbytes} bytes")
        arrays[name] = np.asarray(data[()])
    about: Mapping[str, Any] = dict(group.attrs)
    return products_of(arrays, about)


def save_products(path: Path, products: Products) -> None:
    """Write products to a file of their own, synced.

    Raises
    ------
    OSError
        If the disk does not take it.
    """
    memory = io.BytesIO()  # a disk that fills up is then an OSError, and nothing else
    with h5py.File(memory, "w", libver="latest") as file:
        put_products(file, products)
    write_whole(path, memory.getvalue())


def load_products(path: Path) -> Products | None:
    """Read what `save_products` wrote; None if there is no such file.

    Raises
    ------
    StoreError
        If it is damaged.
    """
    if not path.is_file():
        return None
    try:
        with h5py.File(path, "r") as file:
            return get_products(file)
    except (OSError, LookupError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise StoreError(f"{path} cannot be read ({error}): remove it") from error
