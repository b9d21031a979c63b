"""What a message says, field by field: nothing of it is believed before it is looked at."""

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...errors import FeedError
from .wire import Message


class Fields:
    """What a message says, field by field; each is checked when it is asked for.

    Parameters
    ----------
    message : Message

    Raises
    ------
    FeedError
        Any method: the field is missing, or of another type.
    """

    def __init__(self, message: Message) -> None:
        self._message = message

    @property
    def run(self) -> str:
        """Uid of the raw run."""
        return self.text("run")

    @property
    def seq(self) -> int:
        """Number of the message in its run."""
        return self.count("seq")

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._message.header.get(name)
        return value if isinstance(value, str) else self._refuse(name)

    def count(self, name: str) -> int:
        """Return a whole number, 0 or more."""
        value = self._message.header.get(name)
        good = type(value) is int and 0 <= value < 1 << 63
        return cast(int, value) if good else self._refuse(name)

    def number(self, name: str, where: Mapping[str, Any] | None = None) -> float:
        """Return a number; NaN for null."""
        value = (self._message.header if where is None else where).get(name)
        return self._number(name, value)

    def numbers(self, name: str, where: Mapping[str, Any] | None = None) -> tuple[float, float]:
        """Return two numbers."""
        value = (self._message.header if where is None else where).get(name)
        pair = cast(list[Any], value) if isinstance(value, list) else self._refuse(name)
        if len(pair) != 2:
            self._refuse(name)
        return self._number(name, pair[0]), self._number(name, pair[1])

    def shape(self, name: str) -> tuple[int, int]:
        """Return height and width."""
        value = self._message.header.get(name)
        sides = cast(list[Any], value) if isinstance(value, list) else self._refuse(name)
        if len(sides) != 2 or not all(type(side) is int and 0 <= side < 1 << 31 for side in sides):
            self._refuse(name)
        return sides[0], sides[1]

    def mapping(self, name: str) -> dict[str, Any]:
        """Return an object."""
        value = self._message.header.get(name)
        return (
            dict(cast(Mapping[str, Any], value))
            if isinstance(value, Mapping)
            else self._refuse(name)
        )

    def flag(self, name: str) -> bool:
        """Return a truth value."""
        value = self._message.header.get(name)
        return value if isinstance(value, bool) else self._refuse(name)

    def has(self, name: str) -> bool:
        """Return whether there is an array of this name."""
        return name in self._message.arrays

    def array(self, name: str, sides: int, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """Return an array with so many dimensions, and of this type unless any will do."""
        array = self._message.arrays.get(name)
        if array is None or array.ndim != sides or (dtype and array.dtype != np.dtype(dtype)):
            self._refuse(name)
        return cast(NDArray[Any], array)

    def pairs(self, name: str) -> NDArray[np.float64]:
        """Return an array ``(n, 2)`` of float64."""
        array = self.array(name, 2, np.float64)
        return array if array.shape[1] == 2 else self._refuse(name)

    def maps(self, types: Mapping[str, DTypeLike]) -> dict[str, NDArray[Any]]:
        """Return several arrays ``(H, W)`` of one size."""
        found = {name: self.array(name, 2, dtype) for name, dtype in types.items()}
        if len({array.shape for array in found.values()}) != 1:
            self._refuse(", ".join(types))
        return found

    def _number(self, name: str, value: Any) -> float:
        if value is None:
            return math.nan
        good = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if good else self._refuse(name)

    def _refuse(self, name: str) -> Any:
        raise FeedError(
            f"a malformed message came through the feed: {self._message.kind} without a proper "
            f"{name}"
        )
