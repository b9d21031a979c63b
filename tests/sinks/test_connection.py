"""How a server is found: one attempt, a clear error, and nothing left open."""

import gc
import warnings

import pytest
from faulty_proxy import FaultyProxy

from ptychoseg_stream.sinks.connection import (
    Unavailable,
    connect,
    is_for,
    node_address,
    translated,
)
from ptychoseg_stream.sinks.options import TiledOptions


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_in_trouble_is_asked_once(status: int) -> None:
    # Tiled's own client would ask for most of a minute, and keep a connection.
    with FaultyProxy("http://127.0.0.1:9") as proxy, warnings.catch_warnings():
        warnings.simplefilter("error")
        proxy.status = status
        with (
            pytest.raises(Unavailable, match=f"{proxy.uri} does not answer .{status} "),
            translated(proxy.uri, "KEY"),
        ):
            connect(proxy.uri, "secret-key", 5.0)
        assert proxy.requests == ["GET /"]
        gc.collect()


@pytest.mark.parametrize(
    ("server", "container", "same"),
    [
        ("http://localhost:8000", "a/b", True),
        ("http://127.0.0.1:8000/api/v1", "a/b", True),
        ("http://127.0.0.1:8001", "a/b", False),
        ("http://beamline:8000", "a/b", False),
        ("http://127.0.0.1:8000", "a", False),
        ("http://[", "a/b", False),
    ],
)
def test_rows_go_to_the_same_server_whatever_it_is_called(
    server: str, container: str, same: bool
) -> None:
    options = TiledOptions(uri="http://127.0.0.1:8000", container="a/b")
    assert is_for(options, server, container) is same


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("http://h:8000/a/b", "http://h:8000/api/v1/metadata/a/b"),
        ("http://h/api/v1/metadata/a", "http://h/api/v1/metadata/a"),
        ("https://h/tiled/api/v1/metadata/a", "https://h/tiled/api/v1/metadata/a"),
        ("http://h:8000", "http://h:8000"),
        ("http://h:8000/", "http://h:8000/"),
    ],
)
def test_a_node_may_be_named_by_its_path_alone(given, wanted):
    assert node_address(given) == wanted
