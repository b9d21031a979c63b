"""One Tiled server for the tests of what reads from Tiled."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from ptychoseg_stream.sinks.embedded import EmbeddedTiled

_NUMBERS = count()


@pytest.fixture(scope="session")
def detector_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("detector")


@pytest.fixture(scope="session")
def tiled_server(
    tmp_path_factory: pytest.TempPathFactory, detector_files: Path
) -> Iterator[EmbeddedTiled]:
    folder = tmp_path_factory.mktemp("raw-tiled")
    with EmbeddedTiled(folder, readable=[detector_files]) as server:
        yield server


@pytest.fixture
def api_key(tiled_server: EmbeddedTiled, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TILED_API_KEY", tiled_server.api_key)
    return tiled_server.api_key


@pytest.fixture
def container() -> str:
    """A container that no other test uses."""
    return f"raw-{next(_NUMBERS)}"
