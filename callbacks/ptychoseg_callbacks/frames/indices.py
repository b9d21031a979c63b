"""Numbers of documents, read with care: a wrong one must not make a node count for ever."""

import math
import numbers
import operator
from typing import Any

from ptychoseg_stream.errors import DatasetError

from ..documents import Document

MALFORMED = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError)
"""What reading a document raises that is not as it must be."""

_MOST = 1 << 53  # more is no number of an event


def number(doc: Document, key: str, least: int = 0) -> int:
    """Return a whole number of a document.

    Raises
    ------
    DatasetError
        When there is none, or it is too small or too large.
    """
    value: Any = doc[key]
    try:
        whole = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = -1
    if not least <= whole <= _MOST:
        raise DatasetError(f"{key} is {value!r:.80}; it must be a number from {least} on")
    return whole


def span_of(doc: Document, key: str) -> tuple[int, int]:
    """Return ``(start, stop)`` of the range under `key`.

    Raises
    ------
    DatasetError
        When it is no range, or ends before it begins.
    """
    start, stop = number(doc[key], "start"), number(doc[key], "stop")
    if stop < start:
        raise DatasetError(f"{key} are {start} to {stop}: they end before they begin")
    return start, stop


def seconds(value: Any, otherwise: float) -> float:
    """Return a time stamp; `otherwise` if it is none. A wrong time is no reason to lose a frame."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return otherwise
    return float(value) if math.isfinite(value) else otherwise
