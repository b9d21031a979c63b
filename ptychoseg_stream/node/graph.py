"""Objects as bytes and back, without pickle: only classes that are listed, only declared fields.

A tree of small values for msgpack, and the arrays behind it as they lie in memory. What several
objects share is written once, and shared again when it is read. Written are the declared fields
(annotations) of dataclasses and plain classes; an object that has others is refused, so that a
field that was added without a declaration cannot be forgotten.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_type_hints

import numpy as np
from numpy.typing import NDArray

from .hints import fits

Blob: TypeAlias = NDArray[np.uint8]  # (n,) bytes of an array
Tree: TypeAlias = Any  # what msgpack takes

PLAIN = (bool, int, float, str)
DTYPES = ("|b1", "|u1", "<u2", "<u4", "<u8", "|i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8")
DEEPEST = 64
"""Containers within each other, at most."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How objects of one class are taken apart and put together.

    Parameters
    ----------
    cls : type
    fields : mapping of str to annotation
        What is written of an object, and read back, in this order.
    build : callable
        Makes an object from the values by name.
    """

    cls: type
    fields: Mapping[str, Any]
    build: Callable[[dict[str, Any]], object]

    @classmethod
    def of(cls, kind: type) -> "Layout":
        """Return the layout of a dataclass, or of a plain class that annotates its attributes."""
        fields = get_type_hints(kind)
        if dataclasses.is_dataclass(kind):
            return cls(kind, fields, lambda values: kind(**values))

        def build(values: dict[str, Any]) -> object:
            made = object.__new__(kind)
            vars(made).update(values)
            return made

        return cls(kind, fields, build)

    def values(self, what: object) -> list[Any]:
        """Return the values of the fields of an object.

        Raises
        ------
        TypeError
            If it has attributes that are not declared, or of another type.
        """
        name = self.cls.__name__
        if not dataclasses.is_dataclass(self.cls) and vars(what).keys() != self.fields.keys():
            odd = sorted(vars(what).keys() ^ self.fields.keys())
            raise TypeError(f"{name}: annotate {', '.join(odd)} in the class, or remove it")
        values = [getattr(what, field) for field in self.fields]
        for (field, hint), value in zip(self.fields.items(), values, strict=True):
            if not fits(value, hint):
                raise TypeError(f"{name}.{field} is a {type(value).__name__}, declared as {hint}")
        return values

    def made_of(self, values: Sequence[Any]) -> object:
        """Return an object with these values of its fields.

        Raises
        ------
        ValueError, TypeError
            If they are not what is declared, or the class refuses them.
        """
        named = dict(zip(self.fields, values, strict=True))
        for field, hint in self.fields.items():
            if not fits(named[field], hint):
                raise TypeError(f"{self.cls.__name__}.{field} is not what is declared")
        return self.build(named)


class Writer:
    """Takes objects apart.

    Parameters
    ----------
    layouts : mapping of type to Layout
        The classes that may be written.
    given : sequence of object
        Objects that the reader will have, too: they are named, not written.

    Attributes
    ----------
    blobs : list of ndarray of uint8
        Contents of the arrays met so far; not copied where they are contiguous.
    """

    def __init__(self, layouts: Mapping[type, Layout], given: Sequence[object] = ()) -> None:
        self.blobs: list[Blob] = []
        self._layouts = layouts
        self._places: dict[tuple[int, int], int] = {}
        self._met = list(given)  # kept alive: an address must not be used twice
        self._numbers = {id(what): n for n, what in enumerate(given)}

    def tree(self, value: Any) -> Tree:
        """Return a value as a tree for msgpack.

        Raises
        ------
        TypeError
            If it holds an object of a class that is not listed.
        """
        if value is None or type(value) in PLAIN:
            return value
        if (number := self._numbers.get(id(value))) is not None:
            return ["same", number]
        tree = self._tree(value)
        self._numbers[id(value)] = len(self._met)
        self._met.append(value)
        return tree

    def _tree(self, value: Any) -> Tree:
        kind: type[Any] = type(value)
        if kind is np.ndarray:
            return self._array(value)
        if issubclass(kind, np.generic) and value.dtype.str in DTYPES:
            return ["number", value.dtype.str, value.tobytes()]
        if kind in (list, tuple):
            return [kind.__name__, [self.tree(item) for item in value]]
        if kind is deque:
            return ["deque", value.maxlen, [self.tree(item) for item in value]]
        if kind is dict:
            return ["dict", [[self.tree(k), self.tree(v)] for k, v in value.items()]]
        if kind in self._layouts:
            return [
                "object",
                kind.__name__,
                [self.tree(item) for item in self._layouts[kind].values(value)],
            ]
        raise TypeError(
            f"{kind.__module__}.{kind.__qualname__} is not a class that can be written; list it"
        )

    def _array(self, array: NDArray[Any]) -> Tree:
        if array.dtype.str not in DTYPES:
            raise TypeError(f"arrays of {array.dtype} cannot be written")
        turned = array.flags.f_contiguous and not array.flags.c_contiguous
        flat = np.ascontiguousarray(array.T if turned else array).reshape(-1).view(np.uint8)
        place = flat.__array_interface__["data"][0], flat.size
        if flat.size == 0 or place not in self._places:
            self._places[place] = len(self.blobs)
            self.blobs.append(flat)
        order = "F" if turned else "C"
        return ["array", array.dtype.str, list(array.shape), order, self._places[place]]


class Reader:
    """Puts objects together again.

    Parameters
    ----------
    layouts : mapping of type to Layout
        The classes that may be made.
    given : sequence of object
        What the writer was given: equal objects in the same order.
    blobs : sequence of ndarray of uint8
        Contents of the arrays, writeable.
    """

    def __init__(
        self, layouts: Mapping[type, Layout], given: Sequence[object], blobs: Sequence[Blob]
    ) -> None:
        self._layouts = {kind.__name__: layout for kind, layout in layouts.items()}
        self._met = list(given)
        self._blobs = blobs

    def value(self, tree: Tree, depth: int = 0) -> Any:
        """Return the value of a tree.

        Raises
        ------
        ValueError, TypeError, LookupError
            If the tree is not one that a writer makes.
        """
        if tree is None or type(tree) in PLAIN:
            return tree
        if type(tree) is not list or not tree or depth > DEEPEST:
            raise ValueError("an entry is of no known kind, or lies too deep")
        if tree[0] == "same":
            return self._met[_index(tree[1])]
        made = self._value(tree, depth + 1)
        self._met.append(made)
        return made

    def _value(self, tree: list[Any], depth: int) -> Any:
        match tree:
            case ["array", str(dtype), list(shape), str(order), int(blob)]:
                return self._array(dtype, shape, order, blob)
            case ["number", str(dtype), bytes(content)] if dtype in DTYPES:
                (number,) = np.frombuffer(content, dtype)
                return number
            case ["list", list(items)]:
                return [self.value(item, depth) for item in items]
            case ["tuple", list(items)]:
                return tuple(self.value(item, depth) for item in items)
            case ["deque", None | int() as maxlen, list(items)]:
                return deque((self.value(item, depth) for item in items), maxlen)
            case ["dict", list(pairs)]:
                return {self.value(k, depth): self.value(v, depth) for k, v in pairs}
            case ["object", str(name), list(items)]:
                return self._layouts[name].made_of([self.value(item, depth) for item in items])
            case _:
                raise ValueError(f"an entry is of no known kind: {str(tree[0])[:40]!r}")

    def _array(self, dtype: str, shape: list[Any], order: str, blob: int) -> NDArray[Any]:
        if dtype not in DTYPES or order not in ("C", "F"):
            raise ValueError(f"no array is of dtype {dtype[:20]!r} and order {order[:20]!r}")
        size = [_index(n) for n in shape]
        flat = self._blobs[_index(blob)].view(dtype)
        return flat.reshape(size[::-1]).T if order == "F" else flat.reshape(size)


def _index(number: Any) -> int:
    """Refuse what would count from the end, or let NumPy guess."""
    if type(number) is not int or number < 0:
        raise ValueError(f"{str(number)[:40]!r} is no index or length")
    return number
