"""A Tiled server inside the test's own process: no port, no child process."""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tiled.catalog import in_memory
from tiled.client import from_context
from tiled.client.container import Container
from tiled.client.context import Context
from tiled.config import StreamingCacheConfig
from tiled.server.app import build_app


@contextmanager
def in_process_tiled(folder: Path) -> Generator[Container, None, None]:
    """Serve a catalogue in memory, with data in `folder`, and yield a client of its root.

    It stores, streams and reads like a server of its own process, except that
    ``BlueskyRun.documents()`` needs the exporter that only `embedded.EmbeddedTiled` configures. All
    requests share one connection to the catalogue: ask it nothing while a sink is writing, or what
    is not committed yet may be rolled back. One at a time in a process: there is one catalogue in
    memory only.
    """
    tree = in_memory(
        writable_storage=[str(folder / "data"), f"duckdb:///{folder / 'tables.duckdb'}"],
        cache_config=StreamingCacheConfig(uri="memory").model_dump(),
    )
    with warnings.catch_warnings():
        # Starlette's test client announces that it will move to another HTTP library.
        warnings.simplefilter("ignore")
        context = Context.from_app(build_app(tree))
    try:
        yield from_context(context)
    finally:
        context.close()
