"""One derived run in Tiled: its nodes, and how rows are appended to them.

::

    <uid>                 BlueskyRun 3.0, metadata {start, stop}
    ├── primary           BlueskyEventStream 3.0, composite; metadata is the descriptor
    │   ├── mask          (row, y, x) uint8; row i is frame i of the raw run
    │   ├── valid_bits    (row, y, x) uint16; other arrays, where asked for
    │   └── internal      table, one row per row of mask
    ├── alarms            a stream with nothing but its table internal; there once it has a row
    └── stages            the same

Every method may be called again after it failed: what is there already is left alone.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
from tiled.client.base import BaseClient
from tiled.client.container import Container
from tiled.structures.core import Spec

from ..node.ports import Account
from .arrays import ARRAYS, itemsize, stack
from .columns import schema
from .connection import Refusal, Unavailable, adopt
from .derived import STREAM, Derived, array_keys, column_keys, raw_metadata
from .options import TiledOptions
from .rows import COLUMNS, Row, Shape, fitted, run_shape, table, table_schema
from .side_tables import SIDE_TABLES, Entry, side_table
from .tiled_nodes import TiledArray, TiledTable, create_array, create_stream, create_table

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
        self._shape: Shape | None = None
        self._streams: dict[str, Container] = {}
        self._arrays: dict[str, TiledArray] = {}
        self._tables: dict[str, TiledTable] = {}  # by name of the stream

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
            self._create(part[0], shape, len(part))
            for name, array in self._arrays.items():
                array.put(self.rows, stack(part, name, shape))
            self._tables[STREAM].append(table(part, self._options.arrays))
            self.rows += len(part)
        return True

    def append_notes(self, pages: Mapping[str, Sequence[Entry[Any]]]) -> None:
        """Store alarms and stages.

        Parameters
        ----------
        pages : mapping
            All entries of the run so far, by name of the side table; those stored are skipped.
        """
        for name, page in pages.items():
            if len(page) <= self._events().get(name, 0):
                continue
            if name not in self._tables:
                keys = column_keys(SIDE_TABLES[name])
                stream = self._open_stream(name, keys)
                self._tables[name] = create_table(
                    stream, schema(SIDE_TABLES[name]), keys, self._tags
                )
            stored = self._tables[name].rows
            self._tables[name].append(side_table(name, page[stored:], stored))

    def end(self, account: Account, time: float, **counts: int) -> None:
        """Write the stop document and tell subscribers that nothing follows."""
        self.begin()
        node = self._node
        if node is None:
            return
        stop = self._derived.stop(account, self._events(), time, **counts)
        node.update_metadata({"stop": stop}, drop_revision=True)
        parts = [part.node for part in (*self._arrays.values(), *self._tables.values())]
        nodes: list[BaseClient] = [*parts, *self._streams.values(), node]
        for part in nodes:
            try:
                part.close_stream()
            except (httpx.HTTPStatusError, Unavailable) as error:
                # Only subscribers miss something; the data are stored.
                logger.debug("Stream of %s was not closed: %s", part.uri, error)

    def _events(self) -> dict[str, int]:
        """Rows stored, by name of the stream."""
        return {STREAM: 0} | {name: table.rows for name, table in self._tables.items()}

    def _parts(self, rows: Sequence[Row], shape: Shape) -> Iterator[Sequence[Row]]:
        row_bytes = shape[0] * shape[1] * itemsize(self._options.arrays)
        size = max(1, self._options.patch_bytes // row_bytes)
        for first in range(0, len(rows), size):
            yield rows[first : first + size]

    def _create(self, first: Row, shape: Shape, rows: int) -> None:
        if STREAM in self._tables:
            return
        arrays = self._options.arrays
        keys, columns = array_keys(arrays, shape), column_keys(COLUMNS)
        stream = self._open_stream(STREAM, {**keys, **columns})
        raw = raw_metadata(first.mask.frame)
        for name in arrays:
            if name not in self._arrays:
                metadata = {**keys[name], **ARRAYS[name].metadata, **raw}
                self._arrays[name] = create_array(
                    stream, name, ARRAYS[name].dtype, (rows, *shape), metadata, self._tags
                )
        self._tables[STREAM] = create_table(stream, table_schema(arrays), columns, self._tags)

    def _open_stream(self, name: str, keys: dict[str, dict[str, Any]]) -> Container:
        """Return the node of a stream; makes it."""
        self.begin()
        if self._node is None:
            raise Refusal(f"run {self._derived.uid} has no node")
        if name not in self._streams:
            descriptor = self._derived.descriptor(name, keys)
            self._streams[name] = create_stream(self._node, descriptor, self._tags)
        return self._streams[name]
