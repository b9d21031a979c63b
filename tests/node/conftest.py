import threading
from collections.abc import Iterator

import numpy as np
import pytest
from beams import frames_of
from node_support import labelled


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [t.name for t in threading.enumerate() if "ptychoseg" in t.name] == []


@pytest.fixture(scope="session")
def images(strong):
    """Sixteen frames; the sixth and the scheduled third cannot be labelled."""
    images = [f.astype(np.float32) for f in strong.frames[:16]]
    images[3] = np.zeros((104, 104), np.float32)
    images[6] = np.full((104, 104), np.nan, np.float32)
    return images


@pytest.fixture(scope="session")
def one_by_one(images):
    return labelled(frames_of(images), cuts=range(1, 16))
