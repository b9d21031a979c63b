"""What happens to a document on its way to the worker: it is measured, copied or encoded.

Whatever is not plain data (a path in the metadata, a device) arrives as text, so that both workers
hand over the same thing. Nothing here reads or writes a pickle: an array of Python objects,
which msgpack_numpy would pickle, is replaced by a note that says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import msgpack
import msgpack_numpy
import numpy as np
from numpy.typing import NDArray

Document: TypeAlias = Mapping[str, Any]

CARRIES_IMAGES = frozenset({"event", "event_page", "stream_datum"})
"""Documents that hold images or point to them."""

_DROPPED = "ptychoseg_dropped"
_PLAIN = (str, float, int, type(None), bytes)
_NUMBERS = "biufc"
_TEXTS = "SU"
_DEEPEST = 100  # msgpack gives up at 511
_TOO_DEEP = "left out: nested too deep"


def dropped(reason: str, shape: Sequence[int]) -> dict[str, Any]:
    """Return the note that takes the place of an array which does not travel on."""
    return {_DROPPED: reason, "shape": [int(side) for side in shape]}


def drop_reason(value: object) -> str:
    """Return why `value` is only a note (see `dropped`); empty if it is something else."""
    return str(cast(Document, value).get(_DROPPED, "")) if isinstance(value, Mapping) else ""


def array_bytes(value: Any) -> int:
    """Return the size of all arrays (and lists of numbers) in the data of an event [bytes]."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(array_bytes(item) for item in value.values())
    if isinstance(value, list | tuple) and value:
        if isinstance(value[0], int | float):
            return 8 * len(value)
        return sum(array_bytes(item) for item in value)
    return 0


def image_bytes(name: str, doc: Document) -> int:
    """Return the size of the arrays that a document carries [bytes]."""
    return array_bytes(doc.get("data")) if name in ("event", "event_page") else 0


def thinned(doc: Document, reason: str) -> Document:
    """Return an event (page) with a note in place of each image."""
    return {**doc, "data": without_arrays(doc["data"], reason)}


def copied(value: Any, depth: int = _DEEPEST) -> Any:
    """Return a deep copy made of dict, list, text, numbers and arrays of numbers or text.

    What is nested deeper than `depth`, or holds itself, ends in a note that says so.
    """
    if isinstance(value, _PLAIN):
        return value
    if depth < 0:
        return _TOO_DEEP
    if isinstance(value, np.ndarray):
        plain = _plain_array(value)
        return np.array(plain) if isinstance(plain, np.ndarray) else plain
    if isinstance(value, Mapping):
        return {key: copied(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [copied(item, depth - 1) for item in value]
    if isinstance(value, np.number | np.bool_ | complex):
        return value
    return str(value)


def without_arrays(value: Any, reason: str) -> Any:
    """Return a copy in which a note with `reason` stands for each array (or list of lists)."""
    if isinstance(value, np.ndarray):
        return dropped(reason, value.shape)
    if isinstance(value, Mapping):
        return {key: without_arrays(item, reason) for key, item in value.items()}
    if isinstance(value, list | tuple) and array_bytes(value):
        if any(isinstance(item, np.ndarray) for item in value):  # the column of an event page
            return [without_arrays(item, reason) for item in value]
        if isinstance(value[0], list | tuple):
            return dropped(reason, (len(value), len(value[0])))
    return copied(value)


def encode(message: Any) -> bytes:
    """Return `message` as msgpack, arrays and NumPy numbers as msgpack_numpy writes them."""
    try:
        return _packed(message)
    except ValueError:  # nested too deep
        return _packed(copied(message))


def decode(data: bytes) -> Any:
    """Read what `encode` wrote; arrays are read-only views of `data`.

    Raises
    ------
    ValueError
        For bytes that are not msgpack, or that hold an array of Python objects.
    """
    try:
        return msgpack.unpackb(
            data,
            object_hook=_decode_special,
            strict_map_key=False,
            unicode_errors="surrogatepass",
            max_ext_len=0,
        )
    except ValueError:
        raise
    # What else msgpack and NumPy make of bytes that pretend to be arrays.
    except (TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"not a document: {type(error).__name__}: {str(error)[:200]}") from error
    except (SyntaxError, MemoryError, BufferError) as error:
        raise ValueError(f"not a document: {type(error).__name__}") from error


def _packed(message: Any) -> bytes:
    packed = msgpack.packb(message, default=_encode_special, unicode_errors="surrogatepass")
    return cast(bytes, packed)


def _plain_array(array: NDArray[Any]) -> NDArray[Any] | dict[str, Any]:
    """Return an array that is safe to encode, or the note that says why there is none."""
    kind = array.dtype.kind
    if kind in _NUMBERS or kind in _TEXTS:
        return np.asarray(array)  # of a subclass such as a masked array, only the numbers
    if kind in "Mm":
        return np.asarray(array).astype(str)
    return dropped(f"it is an array of dtype {array.dtype}; send numbers", array.shape)


def _encode_special(value: Any) -> Any:
    """Answer msgpack when it meets what it does not know."""
    if isinstance(value, np.ndarray):
        value = _plain_array(value)
        return msgpack_numpy.encode(value) if isinstance(value, np.ndarray) else value
    if isinstance(value, np.number | np.bool_ | complex):
        return msgpack_numpy.encode(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return list(value)
    return str(value)


def _decode_special(value: dict[Any, Any]) -> Any:
    """Rebuild arrays and numbers; refuse what msgpack_numpy would unpickle."""
    if b"nd" in value:
        descr = value.get(b"type")
        if value.get(b"kind") or not isinstance(descr, str) or np.dtype(descr).hasobject:
            raise ValueError(f"refused an array of dtype {descr}: only numbers and text are read")
    return msgpack_numpy.decode(value)
