"""The products of a run in Tiled: written again and again, the last ones stay."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiled.client.array import ArrayClient
from tiled.client.container import Container
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.core import Spec, StructureFamily
from tiled.structures.data_source import DataSource

from ..node.ports import Products
from .connection import adopt, open_container
from .derived import Derived
from .products import MEANINGS, Arrays, place_of, products_of

SPEC = "PtychosegProducts"


class TiledProducts:
    """The container of products of a run, beside that of runs; made when there is something to put.

    Parameters
    ----------
    runs : Container
        Container of the derived runs.
    derived : Derived
        What the run is.
    most : int
        Bytes of an array in one request at most, or one row of it.

    Raises
    ------
    Exception
        Any method: whatever Tiled's client raises; see `connection.translated`.
    """

    def __init__(
        self,
        runs: Container,
        derived: Derived,
        most: int = 1 << 20,
    ) -> None:
        self._runs = runs
        self._derived = derived
        self._tags = derived.access_tags
        self._most = most
        self._node: Container | None = None
        self._arrays: dict[str, ArrayClient] = {}

    @property
    def nodes(self) -> list[Any]:
        """The container and its arrays, as far as they are known."""
        return [*self._arrays.values(), *([self._node] if self._node is not None else [])]

    def put(self, arrays: Arrays, about: Mapping[str, Any]) -> None:
        """Write all arrays, and what is said about them, in place of those before."""
        node = self._container()
        for name, values in arrays.items():
            if values.size:
                self._put(node, name, values)
        # Last: whoever reads `frames` finds arrays that are at least as new.
        node.update_metadata(dict(about), drop_revision=True)

    def _container(self) -> Container:
        if self._node is not None:
            return self._node
        raw = self._derived.raw.uid
        name, uid = place_of((*self._runs.path_parts, self._derived.uid))[-2:]
        parent = open_container(self._runs.parent, name)
        metadata = {"derived_run_uid": uid, "original_run_uid": self._derived.clean(raw)}
        specs = [Spec(SPEC, "1.0")]
        node = adopt(
            parent,
            uid,
            lambda: parent.create_container(
                uid, metadata=metadata, specs=specs, access_tags=self._tags
            ),
        )
        self._arrays = {name: node[name] for name in node}
        self._node = node
        return node

    def _put(self, node: Container, name: str, values: NDArray[Any]) -> None:
        if name not in self._arrays:
            self._arrays[name] = self._create(node, name, values)
        array = self._arrays[name]
        if array.shape != values.shape:  # an array can grow in Tiled, and not shrink
            values = _padded(values, array.shape)
        step = max(1, self._most // max(1, values[:1].nbytes))
        for row in range(0, len(values), step):
            part = values[row : row + step]
            grows = values.shape != array.shape
            array.patch(part, offset=(row, *(0,) * (values.ndim - 1)), extend=grows)

    def _create(self, node: Container, name: str, values: NDArray[Any]) -> ArrayClient:
        structure = ArrayStructure(
            shape=values.shape,
            chunks=tuple((size,) for size in values.shape),
            data_type=BuiltinDtype.from_numpy_dtype(values.dtype),
        )
        source = DataSource(structure_family=StructureFamily.array, structure=structure)
        metadata = {"meaning": MEANINGS[name]}
        return adopt(
            node,
            name,
            lambda: node.new(
                StructureFamily.array,
                [source],
                key=name,
                metadata=metadata,
                access_tags=self._tags,
            ),
        )


def read_products(run: Any) -> Products | None:
    """Return the products of a derived run's node; None if it has none, or they are being made.

    Raises
    ------
    StoreError
        If they are not complete.
    """
    path: Sequence[str] = run.path_parts
    if len(path) < 2:
        return None
    container, uid = place_of(path)[-2:]
    try:
        node = run.parent.parent[container][uid]
    except KeyError:
        return None
    about: Mapping[str, Any] = dict(node.metadata)
    if "frames" not in about:
        return None
    return products_of({name: node[name].read() for name in node}, about)


def _padded(values: NDArray[Any], least: Sequence[int]) -> NDArray[Any]:
    """Return values with NaN behind them, up to a least shape; whole numbers with zeros."""
    shape = tuple(max(sides) for sides in zip(values.shape, least, strict=True))
    fill = np.nan if values.dtype.kind == "f" else 0
    padded = np.full(shape, fill, values.dtype)
    padded[tuple(slice(side) for side in values.shape)] = values
    return padded
