"""Documents that others recorded: nothing of them may raise, and every frame gets a row."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from callbacks_support import ListSink, adds_up, segmentation
from ptychoseg_callbacks.frames import FinderOptions
from ptychoseg_callbacks.segmentation import SegmentationOptions

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "bluesky_documents"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason=f"no recorded documents at {FOLDER}")
IMPATIENT = SegmentationOptions(finder=FinderOptions(read_timeout=0.01))


def tutorial_documents(path: Path) -> Iterator[tuple[str, Any]]:
    for line in path.read_text().splitlines():
        name, doc = json.loads(line)
        yield name, doc


def template_documents(path: Path, root: Path) -> Iterator[tuple[str, Any]]:
    text = path.read_text().replace("{{ uuid }}", "00000000-0000-0000-0000")
    for item in json.loads(text.replace("{{ root_path }}", str(root).lstrip("/"))):
        yield item["name"], item["doc"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("tutorial_runs/*.jsonl")), ids=lambda p: p.stem)
def test_tutorial_runs_are_walked_through(path: Path) -> None:
    sink = ListSink()
    segment = segmentation(sink=sink, options=IMPATIENT)
    documents = list(tutorial_documents(path))
    for name, doc in documents:
        segment(name, doc)
    (account,) = sink.accounts.values()
    has_images = any(name == "resource" for name, _ in documents)
    assert account.received == account.lost == (25 if has_images else 0)
    (masks,) = sink.masks.values()
    assert all("spec newton" in mask.reason for mask in masks)
    assert segment.unknown == 0


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("internal_events", 0),
        ("external_assets", 3),
        ("external_assets_single_key", 8),
        ("external_assets_legacy", 3),
    ],
)
def test_templates_are_walked_through(tmp_path: Path, name: str, frames: int) -> None:
    sink = ListSink()
    segment = segmentation(sink=sink, options=IMPATIENT)
    for kind, doc in template_documents(FOLDER / "templates" / f"{name}.json", tmp_path):
        segment(kind, doc)
    (account,) = sink.accounts.values()
    assert account.received == account.lost == frames
    assert adds_up(account)
    (masks,) = sink.masks.values()
    assert {mask.classes.shape for mask in masks} <= {(13, 17)}
    assert segment.unknown == 0
