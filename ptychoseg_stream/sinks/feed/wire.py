"""Messages as bytes: a kind, a header in JSON, and arrays; no pickle, every size checked.

::

    part 0    kind, ASCII
    part 1    header, JSON: "version", "arrays": [{"name", "dtype", "shape", "coding"}, ...], more
    part 2..  one per array, in C order, little-endian; zlib-compressed if its coding says so
"""

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ...errors import FeedError

VERSION = 1
"""Raised when an older consumer could misunderstand what it gets; new keys do not raise it."""

Parts: TypeAlias = Sequence[bytes]
Arrays: TypeAlias = Mapping[str, NDArray[Any]]

MOST_BYTES = 1 << 30  # of an array
_MOST_HEADER = 1 << 20  # bytes
_MOST_ARRAYS = 16
_MOST_SIDES = 4
_INTEGERS = [f"<{kind}{size}" for kind in "ui" for size in (1, 2, 4, 8)]
_DTYPES = {np.dtype(name) for name in (*_INTEGERS, "<f2", "<f4", "<f8", "?")}
_UNCOMPRESSED = frozenset(("image",))  # noise does not shrink, and takes its time


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """A message whose sizes are checked; what its header says is not.

    Parameters
    ----------
    kind : str
        What it is.
    header : mapping
        As JSON gives it.
    arrays : mapping of str to ndarray
        By name; read-only.
    """

    kind: str
    header: Mapping[str, Any]
    arrays: Arrays


def pack(kind: str, header: Mapping[str, Any], arrays: Arrays | None = None) -> list[bytes]:
    """Return the parts of a message.

    Parameters
    ----------
    kind : str
        What it is.
    header : mapping
        What JSON can say, without NaN.
    arrays : mapping of str to ndarray, optional
        Real numbers, of any byte order.
    """
    about: list[dict[str, Any]] = []
    payload: list[bytes] = []
    for name, array in (arrays or {}).items():
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        squeezed = plain.dtype.kind in "ui" and name not in _UNCOMPRESSED
        data = plain.tobytes()
        payload.append(zlib.compress(data, 1) if squeezed else data)
        entry = {"name": name, "dtype": plain.dtype.str, "shape": list(array.shape)}
        about.append({**entry, "coding": "zlib" if squeezed else "raw"})
    full = {"version": VERSION, **header, "arrays": about}
    return [kind.encode("ascii"), json.dumps(full, allow_nan=False).encode(), *payload]


def unpack(parts: Parts) -> Message:
    """Return what `pack` packed.

    Raises
    ------
    FeedError
        If it is no message, or one of another version.
    """
    kind, header = unpack_header(parts)
    about = header.get("arrays", [])
    if not isinstance(about, list) or len(cast(list[Any], about)) != len(parts) - 2:
        _refuse("its header names other arrays than it has")
    arrays: dict[str, NDArray[Any]] = {}
    for entry, data in zip(cast(list[Any], about), parts[2:], strict=True):
        if not isinstance(entry, Mapping):
            _refuse("its header does not describe its arrays")
        known = cast(Mapping[str, Any], entry)
        arrays[str(known.get("name"))] = _array(known, data)
    return Message(kind, header, arrays)


def unpack_header(parts: Parts) -> tuple[str, Mapping[str, Any]]:
    """Return kind and header of what `pack` packed; its arrays, which take time, are not looked at.

    Raises
    ------
    FeedError
        If it is no message, or one of another version.
    """
    if not 2 <= len(parts) <= 2 + _MOST_ARRAYS:
        _refuse(f"it has {len(parts)} parts")
    kind = bytes(parts[0][:32]).decode("ascii", "replace")
    header = read_json(parts[1])
    if header.get("version") != VERSION:
        raise FeedError(
            f"a message of version {header.get('version')!r:.20}, and this is version {VERSION}: "
            "install the same release of ptychoseg_stream on both sides"
        )
    return kind, header


def read_json(data: bytes) -> Mapping[str, Any]:
    """Return the JSON object that some bytes are.

    Raises
    ------
    FeedError
        If they are none, or very many.
    """
    if len(data) > _MOST_HEADER:
        _refuse(f"its header has {len(data)} bytes")
    try:
        header = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, Mapping):
        _refuse("its header is not JSON")
    return cast(Mapping[str, Any], header)


def join(parts: Parts) -> bytes:
    """Return a message in one piece, for a file."""
    sizes = struct.pack(f"<{len(parts) + 1}I", len(parts), *map(len, parts))
    return b"".join([sizes, *parts])


def split(record: bytes) -> list[bytes]:
    """Return the parts that `join` joined.

    Raises
    ------
    FeedError
        If it joined none.
    """
    try:
        (count,) = struct.unpack_from("<I", record)
        sizes = struct.unpack_from(f"<{min(count, 2 + _MOST_ARRAYS)}I", record, 4)
    except struct.error:
        _refuse("its parts do not add up")
    begin = 4 + 4 * count
    if count != len(sizes) or begin + sum(sizes) != len(record):
        _refuse("its parts do not add up")
    parts: list[bytes] = []
    for size in sizes:
        parts.append(record[begin : begin + size])
        begin += size
    return parts


def _array(about: Mapping[str, Any], data: bytes) -> NDArray[Any]:
    """Return an array; nothing is allocated for one that is not as its description says."""
    dtype, shape, coding = about.get("dtype"), about.get("shape"), about.get("coding")
    known = next((each for each in _DTYPES if each.str == dtype), None)
    if known is None or not isinstance(shape, list):
        _refuse(f"an array of type {dtype!r:.40}")
    sides = cast(list[Any], shape)
    if len(sides) > _MOST_SIDES or not all(type(n) is int and 0 <= n < 1 << 31 for n in sides):
        _refuse(f"an array of shape {sides!r:.80}")
    size = prod(sides) * known.itemsize
    if size > MOST_BYTES:
        _refuse(f"an array of {size} bytes")
    if coding == "zlib":
        data = _inflate(data, size)
    elif coding != "raw":
        _refuse(f"an array coded as {coding!r:.20}")
    if len(data) != size:
        _refuse(f"an array of {len(data)} bytes, where {size} are announced")
    return np.frombuffer(data, known).reshape(sides)


def _inflate(data: bytes, size: int) -> bytes:
    """Decompress up to so many bytes, and one more if there is one: it tells of a wrong size."""
    inflater = zlib.decompressobj()
    try:
        return inflater.decompress(data, size + 1)
    except zlib.error:
        _refuse("an array that cannot be decompressed")


def _refuse(why: str) -> NoReturn:
    raise FeedError(f"a malformed message came through the feed: {why}")
