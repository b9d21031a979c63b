"""One Tiled in this process for all tests; each has a container of its own."""

import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from tiled.client.container import Container

from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.sinks.connection import Unavailable
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.testing import in_process_tiled
from ptychoseg_stream.sinks.tiled import TiledSink

NUMBERS = count()


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with in_process_tiled(tmp_path_factory.mktemp("tiled")) as client:
        yield client


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if "ptychoseg" in thread.name] == []


@pytest.fixture
def options() -> TiledOptions:
    return TiledOptions(
        container=f"processed/test-{next(NUMBERS)}",
        retry_wait=0.02,
        retry_longest=0.1,
        refused_wait=0.2,
    )


@pytest.fixture
def spool(tmp_path: Path) -> SpoolOptions:
    return SpoolOptions(str(tmp_path / "spool"), min_free_bytes=0)


@pytest.fixture
def make_sink(root: Container, spool: SpoolOptions) -> Iterator[Callable[..., TiledSink]]:
    sinks: list[TiledSink] = []

    def make(
        options: TiledOptions,
        client_factory: Callable[[], Container] | None = None,
        *,
        spool: SpoolOptions = spool,
    ) -> TiledSink:
        sinks.append(TiledSink(options, spool, client_factory or (lambda: root)))
        return sinks[-1]

    yield make
    for sink in sinks:
        sink.shutdown()


@pytest.fixture
def sink(make_sink: Callable[..., TiledSink], options: TiledOptions) -> TiledSink:
    return make_sink(options)


@pytest.fixture
def lossy(root: Container) -> Iterator[Callable[..., Callable[[], Container]]]:
    """Makes a client whose every first answer to the requests chosen is lost on the way."""
    http = root.context.http_client
    send = http.send

    def make(chosen: Callable[[httpx.Request], bool]) -> Callable[[], Container]:
        turn = count()

        def lose(request: httpx.Request, **kwargs: Any) -> httpx.Response:
            response = send(request, **kwargs)
            if chosen(request) and next(turn) % 2 == 0:
                raise Unavailable("connection reset")
            return response

        http.send = lose
        return lambda: root

    yield make
    http.send = send
