import threading
from collections.abc import Iterator

import pytest
from bluesky.run_engine import RunEngine


@pytest.fixture
def RE() -> Iterator[RunEngine]:
    engine = RunEngine({}, context_managers=[], call_returns_result=True)
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(5)
    engine.loop.close()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("ptychoseg")] == []
