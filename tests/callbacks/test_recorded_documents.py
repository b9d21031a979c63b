"""Documents that others recorded: nothing of them may raise, and the right images are found."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from callbacks_support import ListSink, adds_up, segmentation
from ptychoseg_callbacks.frames.finder import FinderOptions
from ptychoseg_callbacks.segmentation import SegmentationOptions
from scans_support import found

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "bluesky_documents"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason=f"no recorded documents at {FOLDER}")
IMPATIENT = SegmentationOptions(finder=FinderOptions(read_timeout=0.01))
TUTORIALS = sorted(FOLDER.glob("tutorial_runs/*.jsonl"))
TEMPLATES = {
    "internal_events": 0,
    "external_assets": 3,
    "external_assets_single_key": 8,
    "external_assets_legacy": 3,
}
"""Frames of each."""


def tutorial_documents(path: Path) -> Iterator[tuple[str, Any]]:
    for line in path.read_text().splitlines():
        name, doc = json.loads(line)
        yield name, doc


def template_documents(name: str, root: Path) -> Iterator[tuple[str, Any]]:
    text = (FOLDER / "templates" / f"{name}.json").read_text()
    text = text.replace("{{ uuid }}", "00000000-0000-0000-0000")
    text = text.replace("localhost/{{ root_path }}", f"localhost{root}")
    for item in json.loads(text.replace("{{ root_path }}", str(root))):
        yield item["name"], item["doc"]


def distinct(frames: int, shape: tuple[int, int], dtype: str, first: int = 0) -> np.ndarray:
    """Return images that all differ, also from their mirror images, ``(n, H, W)``."""
    pixels = shape[0] * shape[1]
    numbers = np.arange(frames * pixels).reshape(frames, *shape) + first * pixels
    return (numbers * 7 % 251).astype(dtype)


def written(root: Path) -> None:
    """Write the files that the templates name."""
    for name, frames, first in (("dataset", 3, 0), ("dataset_part2", 5, 3)):
        with h5py.File(root / f"{name}.h5", "w", libver="latest") as file:
            file["entry/data/data_1"] = np.arange(float(frames))
            file["entry/data/data_2"] = distinct(frames, (13, 17), "<i8", first)
    (root / "tiff_files").mkdir()
    for n, image in enumerate(distinct(3, (10, 15), "u1")):
        tifffile.imwrite(root / "tiff_files" / f"img_{n:05d}.tif", image)


class Newton:
    """Newton's rings, computed as the handler of bluesky's tutorial does: its runs hold no file."""

    def __init__(self, path: str, radius: float, wave_number: float) -> None:
        self.radius = radius
        self.wave_number = wave_number

    def __call__(self, gap: float) -> np.ndarray:
        y, x = np.meshgrid(*[np.linspace(-10, 10, 128)] * 2, indexing="ij")
        return np.sin(self.wave_number * (gap + (x**2 + y**2) / (2 * self.radius))) ** 2


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs_are_walked_through(path: Path) -> None:
    sink = ListSink()
    segment = segmentation(sink=sink, options=IMPATIENT)
    documents = list(tutorial_documents(path))
    for name, doc in documents:
        segment(name, doc)
    (account,) = sink.accounts.values()
    has_images = any(name == "resource" for name, _ in documents)
    assert account.received == account.lost == (25 if has_images else 0)
    assert account.imbalance == ""
    (masks,) = sink.masks.values()
    assert all("newton" in mask.reason for mask in masks)
    assert segment.unknown == 0


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_images_of_tutorial_runs_are_had_of_their_handler(path: Path) -> None:
    documents = list(tutorial_documents(path))
    frames, announced = found(documents, handlers={"newton": Newton})
    gaps = [
        gap for name, doc in documents if name == "datum_page" for gap in doc["datum_kwargs"]["gap"]
    ]
    assert len(frames) == announced == len(gaps)
    kwargs = [doc["resource_kwargs"] for name, doc in documents if name == "resource"]
    for frame, gap in zip(frames, gaps, strict=True):
        assert frame.fault == ""
        np.testing.assert_array_equal(frame.image, Newton("", **kwargs[0])(gap))


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_are_walked_through_without_their_files(tmp_path: Path, name: str) -> None:
    sink = ListSink()
    segment = segmentation(sink=sink, options=IMPATIENT)
    for kind, doc in template_documents(name, tmp_path):
        segment(kind, doc)
    (account,) = sink.accounts.values()
    assert account.received == account.lost == TEMPLATES[name]
    assert adds_up(account)
    assert account.imbalance == ""
    (masks,) = sink.masks.values()
    assert {mask.classes.shape for mask in masks} <= {(13, 17)}
    assert segment.unknown == 0


@pytest.mark.parametrize("name", TEMPLATES)
def test_images_of_templates_are_found_in_the_files_they_name(tmp_path: Path, name: str) -> None:
    written(tmp_path)
    frames, announced = found(list(template_documents(name, tmp_path)))
    assert len(frames) == TEMPLATES[name]
    assert announced in (-1, len(frames))
    for frame, image in zip(frames, distinct(len(frames), (13, 17), "<i8"), strict=True):
        np.testing.assert_array_equal(frame.image, image)


def test_tiff_files_of_a_template_are_found(tmp_path: Path) -> None:
    written(tmp_path)
    documents = list(template_documents("external_assets", tmp_path))
    frames, announced = found(documents, streams=("secondary",))
    assert announced == -1  # this stop document counts events only, and this stream has none
    for frame, image in zip(frames, distinct(3, (10, 15), "u1"), strict=True):
        np.testing.assert_array_equal(frame.image, image)


@pytest.mark.parametrize("lost", [[0], [1], [0, 1], [2]])
def test_legacy_datums_that_were_lost_are_read_from_their_file(
    tmp_path: Path, lost: list[int]
) -> None:
    written(tmp_path)
    documents = list(template_documents("external_assets_legacy", tmp_path))
    gone = [f"/{n}" for n in lost]
    left = [
        (name, doc)
        for name, doc in documents
        if not str(doc.get("datum_id", doc.get("data", {}).get("det-key2"))).endswith(tuple(gone))
    ]
    frames, announced = found(left)
    assert announced == 3
    assert [frame.refilled for frame in frames] == ["file" if n in lost else "" for n in range(3)]
    for frame, image in zip(frames, distinct(3, (13, 17), "<i8"), strict=True):
        np.testing.assert_array_equal(frame.image, image)
