"""Whether a value is what an annotation says: the check that stands before what was read back."""

from collections import deque
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np

LISTS: tuple[Any, ...] = (list, deque, Sequence)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that an annotation declares, with what it contains.

    Classes must match exactly. Understood: plain types, ``None``, ``|``, `Literal`, lists, tuples,
    sequences, deques, mappings, and arrays by their dtype. Numbers of NumPy count as numbers.

    Raises
    ------
    TypeError
        If the annotation is of a kind that is not understood.
    """
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return True
    if hint is None or hint is NoneType:
        return value is None
    if origin in (Union, UnionType):
        return any(fits(value, option) for option in args)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in args)
    if origin is np.ndarray:
        return isinstance(value, np.ndarray) and _holds(value, args[1])
    if origin is tuple:
        return _fits_tuple(value, args)
    if origin in LISTS:
        kinds = (list, tuple) if origin is Sequence else origin
        return isinstance(value, kinds) and all(fits(item, args[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(
            fits(k, args[0]) and fits(v, args[1]) for k, v in value.items()
        )
    if not isinstance(hint, type):
        raise TypeError(f"annotations like {hint} are not understood")
    return _is_number(value, hint) or type(value) is hint


def _fits_tuple(value: Any, args: tuple[Any, ...]) -> bool:
    if not isinstance(value, tuple):
        return False
    if len(args) == 2 and args[1] is Ellipsis:
        return all(fits(item, args[0]) for item in value)
    return len(value) == len(args) and all(fits(v, h) for v, h in zip(value, args, strict=True))


def _holds(array: np.ndarray, dtype_hint: Any) -> bool:
    """Whether an array has the dtype of ``np.dtype[scalar type]``."""
    scalar: Any = next(iter(get_args(dtype_hint)), None)
    return not isinstance(scalar, type) or issubclass(array.dtype.type, scalar)


def _is_number(value: Any, hint: type) -> bool:
    if hint is float:
        return isinstance(value, (float, int, np.floating)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return False
