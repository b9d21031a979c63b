"""One derived run in Tiled: its nodes, and how rows are appended to them.

::

    <uid>                 BlueskyRun 3.0, metadata {start, stop}
    └── primary           BlueskyEventStream 3.0, composite; metadata is the descriptor
        ├── mask          (row, y, x) uint8; row i is frame i of the raw run
        ├── teacher ...   other class maps, where asked for
        └── internal      table, one row per row of mask

Every method may be called again after it failed: what is there already is left alone.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence

import httpx
import numpy as np
from tiled.client.array import ArrayClient
from tiled.client.base import BaseClient
from tiled.client.container import Container
from tiled.client.dataframe import DataFrameClient
from tiled.structures.array import ArrayStructure, BuiltinDtype
from tiled.structures.core import Spec, StructureFamily
from tiled.structures.data_source import DataSource

from ..node.ports import Account
from ..science.frame import legend
from .connection import Refusal, Unavailable, adopt
from .derived import STREAM, TABLE, Derived, data_keys
from .options import TiledOptions
from .rows import COLUMNS, Row, Shape, fitted, run_shape, stack, table, table_schema

logger = logging.getLogger("ptychoseg_stream.sinks")


class TiledRun:
    """The nodes of one derived run.

    Parameters
    ----------
    parent : Container
        Container of derived runs.
    derived : Derived
        What the run is.
    options : TiledOptions
        Arrays to publish and the size of requests.

    Attributes
    ----------
    rows : int
        Rows stored, in all arrays and in the table.

    Raises
    ------
    Exception
        Any method: whatever Tiled's client raises; see `connection.translated`.
    """

    def __init__(self, parent: Container, derived: Derived, options: TiledOptions) -> None:
        self.rows = 0
        self._parent = parent
        self._derived = derived
        self._options = options
        self._tags = derived.access_tags
        self._node: Container | None = None
        self._stream: Container | None = None
        self._shape: Shape | None = None
        self._arrays: dict[str, ArrayClient] = {}
        self._table: DataFrameClient | None = None
        self._in_doubt = False

    @property
    def uri(self) -> str:
        """Address of the run's node; empty before `begin`."""
        if self._node is None:
            return ""
        url = httpx.URL(self._node.uri)  # Tiled doubles the slash below the root
        return str(url.copy_with(query=None, path=url.path.replace("//", "/")))

    def begin(self) -> None:
        """Create the node of the run."""
        if self._node is None:
            uid, start = self._derived.uid, self._derived.start()
            specs = [Spec("PtychosegRun", "1.0"), Spec("BlueskyRun", "3.0")]
            parent, tags = self._parent, self._tags
            self._node = adopt(
                parent,
                uid,
                lambda: parent.create_container(
                    uid, metadata={"start": start}, specs=specs, access_tags=tags
                ),
            )

    def append(self, rows: Sequence[Row], *, last: bool = False) -> bool:
        """Store rows that follow those stored.

        Parameters
        ----------
        rows : sequence of Row
            In order of their index; those already stored are skipped.
        last : bool
            Whether none will follow.

        Returns
        -------
        bool
            False if nothing was stored, because no frame had a size yet.
        """
        if self._shape is None:
            self._shape = run_shape(rows) or ((1, 1) if last else None)
        shape = self._shape
        if shape is None:
            return False
        todo = [fitted(row, shape) for row in rows if row.mask.frame.index >= self.rows]
        for part in self._parts(todo, shape):
            blocks = {name: stack(part, name, shape) for name in self._options.arrays}
            self._create(part[0], shape, len(part))
            for name, block in blocks.items():
                self._arrays[name].patch(block, offset=(self.rows,), extend=True)
            self._append_table(part)
            self.rows += len(part)
        return True

    def end(self, account: Account, time: float, **counts: int) -> None:
        """Write the stop document and tell subscribers that nothing follows."""
        self.begin()
        node = self._node
        if node is None:
            return
        stop = self._derived.stop(account, self.rows, time, **counts)
        node.update_metadata({"stop": stop}, drop_revision=True)
        nodes: list[BaseClient | None] = [*self._arrays.values(), self._table, self._stream, node]
        for part in filter(None, nodes):
            try:
                part.close_stream()
            except (httpx.HTTPStatusError, Unavailable) as error:
                # Only subscribers miss something; the data are stored.
                logger.debug("Stream of %s was not closed: %s", part.uri, error)

    def _parts(self, rows: Sequence[Row], shape: Shape) -> Iterator[Sequence[Row]]:
        size = max(1, self._options.patch_bytes // (shape[0] * shape[1]))
        for first in range(0, len(rows), size):
            yield rows[first : first + size]

    def _create(self, first: Row, shape: Shape, rows: int) -> None:
        if self._table is not None:
            return
        self.begin()
        arrays = self._options.arrays
        keys = data_keys(arrays, shape)
        stream = self._stream or self._create_stream(shape)
        raw = {"raw_stream": first.mask.frame.stream, "raw_data_key": first.mask.frame.data_key}
        for name in arrays:
            if name not in self._arrays:
                metadata = {**keys[name], "class_codes": legend(), **raw}
                self._arrays[name] = self._create_array(stream, name, (rows, *shape), metadata)
        metadata = {name: keys[name] for name in COLUMNS}
        self._table = adopt(
            stream,
            TABLE,
            lambda: stream.create_appendable_table(
                table_schema(arrays), key=TABLE, metadata=metadata, access_tags=self._tags
            ),
        )

    def _create_stream(self, shape: Shape) -> Container:
        if self._node is None:
            raise Refusal(f"run {self._derived.uid} has no node")
        run, tags = self._node, self._tags
        descriptor = self._derived.descriptor(self._options.arrays, shape)
        metadata = {
            key: value
            for key, value in descriptor.items()
            if key not in ("name", "object_keys", "run_start")
        }
        specs = [Spec("BlueskyEventStream", "3.0"), Spec("composite")]
        node = adopt(
            run,
            STREAM,
            lambda: run.create_container(STREAM, metadata=metadata, specs=specs, access_tags=tags),
        )
        # The client of a composite node checks every new child; ours are right by construction.
        self._stream = stream = node.base
        return stream

    def _create_array(
        self,
        stream: Container,
        name: str,
        shape: tuple[int, int, int],
        metadata: Mapping[str, object],
    ) -> ArrayClient:
        # One chunk of exactly the rows of the first patch. Tiled pads every other declaration (a
        # larger or partial chunk) with rows of zeros when the array is extended.
        structure = ArrayStructure(
            shape=shape,
            chunks=tuple((size,) for size in shape),
            data_type=BuiltinDtype.from_numpy_dtype(np.dtype(np.uint8)),
            dims=("time", "y", "x"),
        )
        source = DataSource(structure_family=StructureFamily.array, structure=structure)
        family, tags = StructureFamily.array, self._tags
        return adopt(
            stream,
            name,
            lambda: stream.new(family, [source], key=name, metadata=metadata, access_tags=tags),
        )

    def _append_table(self, rows: Sequence[Row]) -> None:
        node = self._table
        if node is None:
            raise Refusal(f"run {self._derived.uid} has no table")
        if self._in_doubt:
            # An append whose answer was lost may have been done; to repeat it would double rows.
            found = len(node.read(["seq_num"]))
            if found not in (self.rows, self.rows + len(rows)):
                raise Refusal(f"{node.uri} has {found} rows where {self.rows} were stored")
            if found > self.rows:
                self._in_doubt = False
                return
        self._in_doubt = True
        node.append_partition(0, table(rows, self._options.arrays))
        self._in_doubt = False
