from typing import Any, cast

import pytest

from ptychoseg_stream.sources.tiled.client import TiledClient
from ptychoseg_stream.sources.tiled.layout import StoredRun


class OneNode:
    """Answers as a server does that has one run."""

    def __init__(self, tags: Any) -> None:
        self.tags = tags

    def item(self, path: Any) -> dict[str, Any]:
        metadata = {"start": {"uid": "a", "time": 1.0}, "stop": None}
        return {"id": "a", "attributes": {"metadata": metadata, "access_tags": self.tags}}


@pytest.mark.parametrize(("tags", "found"), [(["proposal-1"], ["proposal-1"]), ([], None)])
def test_access_tags_of_a_node_are_those_of_its_start_document(tags: Any, found: Any) -> None:
    start, stop = StoredRun(cast(TiledClient, OneNode(tags)), ("raw", "a")).documents()
    assert start is not None
    assert start.get("tiled_access_tags") == found
    assert stop is None
