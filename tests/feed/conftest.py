import threading
from collections.abc import Iterator

import pytest
from feed_support import free_port


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("ptychoseg")] == []


@pytest.fixture
def port() -> int:
    return free_port()
