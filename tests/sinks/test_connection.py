"""How a server is found: one attempt, a clear error, and nothing left open."""

import gc
import warnings

import pytest
from faulty_proxy import FaultyProxy

from ptychoseg_stream.sinks.connection import Unavailable, connect, translated


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
