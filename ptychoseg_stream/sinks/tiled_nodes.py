"""How the nodes of a run are made in Tiled, and how arrays and tables grow there.

Every function may be called again after it failed: a node that is there already is taken as it is.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray
from tiled.client.array import ArrayClient
from tiled.client.base import BaseClient
from tiled.client.container import Container
from tiled.client.dataframe import DataFrameClient
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.core import Spec, StructureFamily
from tiled.structures.data_source import DataSource

from .batch import conformed, numbered
from .connection import Refusal, Unavailable, adopt
from .derived import TABLE

logger = logging.getLogger("ptychoseg_stream.sinks")


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
) -> ArrayClient:
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
    return adopt(
        stream,
        name,
        lambda: stream.new(
            StructureFamily.array, [source], key=name, metadata=metadata, access_tags=access_tags
        ),
    )


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


def address_of(node: BaseClient) -> str:
    """Return the URI of a node."""
    url = httpx.URL(node.uri)  # Tiled doubles the slash below the root
    return str(url.copy_with(query=None, path=url.path.replace("//", "/")))


def close_streams(nodes: Sequence[BaseClient]) -> None:
    """Say to whoever subscribed to nodes that nothing follows."""
    for node in nodes:
        try:
            node.close_stream()
        except (httpx.HTTPStatusError, Unavailable) as error:
            # Only subscribers miss something; the data are stored.
            logger.debug("Stream of %s was not closed: %s", node.uri, error)


class TiledArray:
    """An array that only this writer extends.

    Parameters
    ----------
    node : ArrayClient
        Its node.
    written : int
        First rows that this process knows to be written.
    """

    def __init__(self, node: ArrayClient, written: int = 0) -> None:
        self.node = node
        self.written = min(written, int(node.shape[0]))

    def put(self, first: int, block: NDArray[Any]) -> None:
        """Write a block whose first row is `first`; not again if it is known to be written."""
        if first + len(block) > self.written:
            self.node.patch(block, offset=(first,), extend=True)
            self.written = first + len(block)


class TiledTable:
    """A table that only this writer appends to.

    An append whose answer was lost may have been done, or be done yet, so after a failure nothing
    is known of it: wait, and make a new object, which asks what there is. Rows that come twice all
    the same cannot be removed: they are counted. (Tiled 0.2.20 knows primary keys of tables; only
    the first table of a database gets one, and rows that break it go without a word.)

    Parameters
    ----------
    node : DataFrameClient
        Its node.

    Attributes
    ----------
    rows : int
        Rows stored, each counted once.
    doubled : int
        Rows stored beside those, whose number is taken.
    """

    def __init__(self, node: DataFrameClient) -> None:
        self.node = node
        self.rows = self.doubled = 0
        self._schema: pa.Schema = node.structure().arrow_schema_decoded

    def load(self, columns: Sequence[str]) -> dict[str, list[Any]]:
        """Return columns as they are stored, and learn how many rows there are.

        Raises
        ------
        Refusal
            If the rows are not numbered from 1 on: somebody else has written to the table.
        """
        found = self.node.read(["seq_num", *columns])
        once = found.drop_duplicates("seq_num").sort_values("seq_num")
        self.rows, self.doubled = len(once), len(found) - len(once)
        if once["seq_num"].tolist() != list(range(1, self.rows + 1)):
            raise Refusal(f"{self.node.uri} has rows that are not ours: look who writes there")
        return {name: once[name].tolist() for name in columns}

    def recount(self) -> int:
        """Ask how many rows are there that should not be.

        Raises
        ------
        Refusal
            If there are other rows than were written.
        """
        written = self.rows
        self.load([])
        if self.rows != written:
            raise Refusal(
                f"{self.node.uri} has {self.rows} rows, and {written} were written: look who "
                "writes there"
            )
        return self.doubled

    def append(self, rows: pa.Table) -> None:
        """Append rows; they are numbered on from those stored."""
        if not rows.num_rows:
            return
        self.node.append_partition(0, conformed(numbered(rows, self.rows), self._schema))
        self.rows += rows.num_rows
