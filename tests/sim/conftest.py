from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bluesky import RunEngine

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def engine() -> Iterator[RunEngine]:
    """A RunEngine whose thread and loop end with the test."""
    engine = RunEngine({}, context_managers=[])
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join()
    engine.loop.close()


@pytest.fixture
def gold_labels():
    path = SHARED / "gold_balls" / "reference_labels_from_pupil.npz"
    if not path.is_file():
        pytest.skip(f"the shared gold-ball labels are not there: {path}")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
