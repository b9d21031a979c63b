"""How the nodes of a run are made in Tiled, and how a table there grows without doubling rows.

Every function may be called again after it failed: a node that is there already is taken as it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray
from tiled.client.array import ArrayClient
from tiled.client.container import Container
from tiled.client.dataframe import DataFrameClient
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.core import Spec, StructureFamily
from tiled.structures.data_source import DataSource

from .connection import Refusal, adopt
from .derived import TABLE


def create_stream(
    run: Container, descriptor: Mapping[str, Any], access_tags: Sequence[str] | None
) -> Container:
    """Create the node of a stream below that of its run."""
    name: str = descriptor["name"]
    metadata = {
        key: value
        for key, value in descriptor.items()
        if key not in ("name", "object_keys", "run_start")
    }
    specs = [Spec("BlueskyEventStream", "3.0"), Spec("composite")]
    node = adopt(
        run,
        name,
        lambda: run.create_container(name, metadata=metadata, specs=specs, access_tags=access_tags),
    )
    # The client of a composite node checks every new child; ours are right by construction.
    return node.base


def create_array(
    stream: Container,
    name: str,
    dtype: DTypeLike,
    shape: tuple[int, int, int],
    metadata: Mapping[str, Any],
    access_tags: Sequence[str] | None,
) -> "TiledArray":
    """Create an array ``(rows, y, x)`` that will be extended; `shape` is that of its first rows."""
    # One chunk of exactly the rows of the first patch. Tiled pads every other declaration (a
    # larger or partial chunk) with rows of zeros when the array is extended.
    structure = ArrayStructure(
        shape=shape,
        chunks=tuple((size,) for size in shape),
        data_type=BuiltinDtype.from_numpy_dtype(np.dtype(dtype)),
        dims=("time", "y", "x"),
    )
    source = DataSource(structure_family=StructureFamily.array, structure=structure)
    node = adopt(
        stream,
        name,
        lambda: stream.new(
            StructureFamily.array, [source], key=name, metadata=metadata, access_tags=access_tags
        ),
    )
    return TiledArray(node)


def create_table(
    stream: Container,
    schema: pa.Schema,
    metadata: Mapping[str, Any],
    access_tags: Sequence[str] | None,
) -> "TiledTable":
    """Create the table of a stream."""
    node = adopt(
        stream,
        TABLE,
        lambda: stream.create_appendable_table(
            schema, key=TABLE, metadata=metadata, access_tags=access_tags
        ),
    )
    return TiledTable(node)


class TiledArray:
    """An array that only this writer extends.

    Parameters
    ----------
    node : ArrayClient
        Its node, with nothing written so far.
    """

    def __init__(self, node: ArrayClient) -> None:
        self.node = node
        self._rows = 0

    def put(self, first: int, block: NDArray[Any]) -> None:
        """Write a block whose first row is `first`; not again if it is known to be stored."""
        if first + len(block) > self._rows:
            self.node.patch(block, offset=(first,), extend=True)
            self._rows = first + len(block)


class TiledTable:
    """A table that only this writer appends to.

    Parameters
    ----------
    node : DataFrameClient
        Its node, without rows so far.

    Attributes
    ----------
    rows : int
        Rows known to be stored.
    """

    def __init__(self, node: DataFrameClient) -> None:
        self.node = node
        self.rows = 0
        self._in_doubt = 0  # rows sent, of which nobody knows whether they are stored

    def append(self, rows: pa.Table) -> None:
        """Append rows.

        After a failure, call it again with the same rows (and more, if there are more by now):
        those that were stored nevertheless are left out.

        Raises
        ------
        Refusal
            If somebody else has written to the table.
        """
        if self._in_doubt:
            # An append whose answer was lost may have been done; to repeat it would double rows.
            found = len(self.node.read(["seq_num"]))
            if found not in (self.rows, self.rows + self._in_doubt):
                raise Refusal(f"{self.node.uri} has {found} rows where {self.rows} were stored")
            rows = rows.slice(found - self.rows)
            self.rows, self._in_doubt = found, 0
        if rows.num_rows:
            self._in_doubt = rows.num_rows
            self.node.append_partition(0, rows)
            self.rows, self._in_doubt = self.rows + self._in_doubt, 0
