"""One derived run in Tiled: its nodes, and how rows are appended to them.

::

    <uid>                 BlueskyRun 3.0, metadata {start, stop}
    ├── primary           BlueskyEventStream 3.0, composite; metadata is the descriptor
    │   ├── mask          (row, y, x) uint8; row i is frame i of the raw run
    │   ├── valid_bits    (row, y, x) uint16; other arrays, where asked for
    │   └── internal      table, one row per row of mask
    ├── alarms            a stream with nothing but its table internal; there once it has a row
    └── stages            the same

What is in Tiled is the truth: `begin` takes up what an earlier attempt, or process, has left. Rows
are written in this order: arrays, side tables, table. The last one is the commit: what was written
of a row that is not in the table is written again, at the same place.
"""

import logging
from collections.abc import Iterator
from typing import Any

from tiled.client.array import ArrayClient
from tiled.client.base import BaseClient
from tiled.client.container import Container
from tiled.structures.core import Spec

from ..node.ports import Products
from .arrays import ARRAYS
from .batch import Batch, empty_block, lost_batch, pieces, resized
from .columns import schema
from .connection import Refusal, Unavailable, adopt
from .derived import STREAM, TABLE, Derived, array_keys, column_keys
from .ending import Ending
from .options import TiledOptions
from .products import arrays_of
from .rows import COLUMNS, NEVER_ANNOUNCED, Shape, table_schema
from .side_tables import SIDE_TABLES, identities, identity_columns
from .tiled_nodes import (
    TiledArray,
    TiledTable,
    address_of,
    close_streams,
    create_array,
    create_stream,
    create_table,
)
from .tiled_products import TiledProducts

logger = logging.getLogger("ptychoseg_stream.sinks")

FILL = 256  # rows of a hole that are made at a time
CUT_OFF = "the process that labelled it ended before its row was stored"
MOVED = "its file was taken out of the spool"


class TiledRun:
    """The nodes of one derived run.

    Parameters
    ----------
    parent : Container
        Container of derived runs.
    derived : Derived
        What the run is.
    options : TiledOptions
        Size of requests.
    before : TiledRun, optional
        The object that failed, of the same run and process.

    Attributes
    ----------
    rows : int
        Rows stored, in all arrays and in the table.
    filled : int
        Those of them that were put in because an index was skipped.
    finished : bool
        Whether the run has a stop document: nothing is written any more.

    Raises
    ------
    Exception
        Any method: whatever Tiled's client raises; see `connection.translated`. Make a new object
        then: of this one nobody knows what was done.
    """

    def __init__(
        self,
        parent: Container,
        derived: Derived,
        options: TiledOptions,
        before: "TiledRun | None" = None,
    ) -> None:
        self.filled = 0
        self.finished = False
        self._parent = parent
        self._derived = derived
        self._options = options
        self._tags = derived.access_tags
        self._node: Container | None = None
        self._streams: dict[str, Container] = {}
        self._arrays: dict[str, TiledArray] = {}
        self._tables: dict[str, TiledTable] = {}  # by name of the stream
        self._known: dict[str, set[str]] = {}  # rows of side tables
        self._products: TiledProducts | None = None
        self._tried = before is not None or derived.raw.resumed
        self._written = {} if before is None else before.written

    @property
    def written(self) -> dict[str, int]:
        """Rows of each array that this process knows to be written."""
        return self._written | {name: array.written for name, array in self._arrays.items()}

    @property
    def uri(self) -> str:
        """Address of the run's node; empty before `begin`."""
        return "" if self._node is None else address_of(self._node)

    @property
    def rows(self) -> int:
        """Rows stored, in all arrays and in the table."""
        return self._tables[STREAM].rows if STREAM in self._tables else 0

    def begin(self) -> None:
        """Create the node of the run, or take up what there is of it."""
        uid, start = self._derived.uid, self._derived.start()
        specs = [Spec("PtychosegRun", "1.0"), Spec("BlueskyRun", "3.0")]
        parent, tags = self._parent, self._tags
        made: list[Container] = []

        def create() -> Container:
            metadata = {"start": start}
            made.append(
                parent.create_container(uid, metadata=metadata, specs=specs, access_tags=tags)
            )
            return made[0]

        if self._tried and uid in parent:
            self._node = parent[uid]
        else:
            self._node = adopt(parent, uid, create)
        if made:
            self._written = {}  # if there was one, somebody deleted it
        else:
            self._take_up(self._node)

    def append(self, batch: Batch) -> None:
        """Store rows that follow those stored; those that are stored are left out."""
        if self.finished:
            return
        for part in self._parts(batch.since(self.rows)):
            sized = self._put_arrays(part) if part.table.num_rows else part
            self._append_notes(part)
            if sized.table.num_rows:
                self._tables[STREAM].append(sized.table)
                self._count_filled(sized.table["reason"].to_pylist())

    def put_products(self, products: Products) -> None:
        """Write what the run says as a whole, in place of what it said before."""
        if self.finished or self._node is None:
            return
        parent, size = self._parent, self._options.patch_bytes
        self._products = self._products or TiledProducts(parent, self._derived, size)
        self._products.put(*arrays_of(products))

    def end(self, ending: Ending, rows: int = 0) -> None:
        """Write the stop document of a run of at least so many rows; say that nothing follows."""
        node = self._node
        if node is None or self.finished:
            return
        self._level(rows)
        if doubled := sum(table.recount() for table in self._tables.values()):
            ending = ending.doubling(doubled)
            logger.error("Run %s: %s", self._derived.raw.uid, ending.account.reason)
        events = {STREAM: 0} | {name: table.rows for name, table in self._tables.items()}
        counts = {"filled": self.filled, **ending.counts}
        stop = self._derived.stop(ending.account, events, ending.time, **counts)
        node.update_metadata({"stop": stop}, drop_revision=True)
        if self._parent[self._derived.uid].metadata.get("stop") is None:
            # The spool is emptied on the strength of this; seen with catalogues in memory.
            raise Unavailable(f"the stop document of run {self._derived.uid} did not stay")
        if not ending.complete:
            return  # the missing rows may still come, from the next process
        self.finished = True
        parts = [part.node for part in (*self._arrays.values(), *self._tables.values())]
        whole = self._products.nodes if self._products is not None else []
        nodes: list[BaseClient] = [*parts, *whole, *self._streams.values(), node]
        close_streams(nodes)

    @property
    def _shape(self) -> Shape:
        node = next(iter(self._arrays.values())).node
        return node.shape[1], node.shape[2]

    def _take_up(self, node: Container) -> None:
        """Learn what is stored of the run."""
        stop: Any = node.metadata.get("stop")
        self.finished = bool(stop) and not stop.get("account", {}).get("dropped", 0)
        for name in list(node):
            if name != STREAM and name not in SIDE_TABLES:
                continue
            stream = self._streams[name] = node[name].base
            children = set(stream)
            if name == STREAM:
                for child in children & set(ARRAYS):
                    self._arrays[child] = self._array(child, stream[child])
            if TABLE not in children:
                continue
            table = TiledTable(stream[TABLE])
            if name == STREAM:
                self._count_filled(table.load(["reason"])["reason"])
            else:
                self._known[name] = set(identities(name, table.load(identity_columns(name))))
            self._tables[name] = table

    def _array(self, name: str, node: ArrayClient) -> TiledArray:
        return TiledArray(node, self._written.get(name, 0))

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        """Yield a batch in requests of a size that is allowed, behind rows for what is missing."""
        if batch.table.num_rows:
            for first in range(self.rows, batch.first, FILL):
                yield lost_batch(batch, first, min(first + FILL, batch.first))
        yield from pieces(batch, self._options.patch_bytes)

    def _put_arrays(self, batch: Batch) -> Batch:
        """Write the arrays of a batch; return it in the size of the run."""
        self._create(batch)
        sized = resized(batch, self._shape)
        for name, array in self._arrays.items():
            block = sized.arrays.get(name)
            if block is None:  # of a process that published others
                block = empty_block(name, sized.table.num_rows, self._shape)
            array.put(batch.first, block)
        return sized

    def _level(self, rows: int) -> None:
        """Give rows to the last ones of the arrays, and to those whose file was moved away.

        The former were written by a process that was killed before it wrote the table.
        """
        if STREAM not in self._tables or not self._arrays:
            return
        ahead = max(array.node.shape[0] for array in self._arrays.values())
        blocks = {name: empty_block(name, 0, self._shape) for name in self._arrays}
        table = table_schema(tuple(self._arrays)).empty_table()
        for last, reason in ((ahead, CUT_OFF), (rows, MOVED)):
            for first in range(self.rows, last, FILL):
                like = Batch(first, blocks, table, {}, {})
                self.append(lost_batch(like, first, min(first + FILL, last), reason))

    def _append_notes(self, batch: Batch) -> None:
        for name, page in batch.notes.items():
            known = self._known.setdefault(name, set())
            marks = identities(name, page.select(identity_columns(name)).to_pydict())
            fresh = [row for row, mark in enumerate(marks) if mark not in known]
            if not fresh:
                continue
            if name not in self._tables:
                keys = column_keys(SIDE_TABLES[name])
                stream = self._open_stream(name, keys)
                self._tables[name] = create_table(
                    stream, schema(SIDE_TABLES[name]), keys, self._tags
                )
            self._tables[name].append(page.take(fresh))
            known.update(marks[row] for row in fresh)

    def _count_filled(self, reasons: list[str]) -> None:
        self.filled += sum(reason == NEVER_ANNOUNCED for reason in reasons)

    def _create(self, first: Batch) -> None:
        """Create the stream of masks; its arrays begin with the rows of a batch."""
        if STREAM in self._tables:
            return
        shape = self._shape if self._arrays else first.shape
        arrays = tuple(first.arrays)
        keys, columns = array_keys(arrays, shape), column_keys(COLUMNS)
        stream = self._open_stream(STREAM, {**keys, **columns})
        for name in arrays:
            if name not in self._arrays:
                metadata = {**keys[name], **ARRAYS[name].metadata, **first.raw}
                node = create_array(
                    stream,
                    name,
                    ARRAYS[name].dtype,
                    (first.table.num_rows, *shape),
                    metadata,
                    self._tags,
                )
                self._arrays[name] = self._array(name, node)
        self._tables[STREAM] = create_table(stream, table_schema(arrays), columns, self._tags)

    def _open_stream(self, name: str, keys: dict[str, dict[str, Any]]) -> Container:
        """Return the node of a stream; makes it."""
        if self._node is None:
            raise Refusal(f"run {self._derived.uid} has no node")
        if name not in self._streams:
            descriptor = self._derived.descriptor(name, keys)
            self._streams[name] = create_stream(self._node, descriptor, self._tags)
        return self._streams[name]
