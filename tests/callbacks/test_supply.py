"""Images that a store of raw runs has, and files have not."""

from typing import Any

import numpy as np
import pytest
from bluesky.run_engine import RunEngine
from detectors_support import InlineDetector
from ptychoseg_callbacks.assets.keys import ImageKey
from ptychoseg_callbacks.frames.files import Files
from ptychoseg_callbacks.frames.images import Images
from ptychoseg_callbacks.frames.options import FinderOptions
from ptychoseg_callbacks.frames.supply import Supply
from scans_support import MemoryStore, found, recorded, step

KEY = ImageKey("primary", "det_image", (12, 16), 1, "")


def supply(store: Any, slept: list[float], timeout: float = 1.0) -> Supply:
    options = FinderOptions(refill_timeout=timeout, block=4)
    return Supply("run", options, Files(options), store, lambda: sum(slept), slept.append)


def test_store_that_lags_is_waited_for_once_and_again_after_it_answered(
    RE: RunEngine,
) -> None:
    documents = recorded(RE, step(InlineDetector(), 8))
    store = MemoryStore(documents, found(documents)[0], late=3)
    slept: list[float] = []
    refill = supply(store, slept)
    (first, second) = refill.stored(KEY, Images(8, fault="lost"), 0)
    assert [image[0, 0] for image in first.stack] == [0, 1, 2, 3]
    assert second.refilled == "tiled"
    assert len(slept) == 3
    store.late = 10**6
    (lost,) = refill.stored(KEY, Images(8, fault="lost"), 0)
    assert (lost.count, lost.fault) == (8, "lost")
    waited = sum(slept)
    assert waited < 2.1
    for _ in range(3):
        (lost,) = refill.stored(KEY, Images(8, fault="lost"), 0)
    assert sum(slept) == waited  # patience ran out
    store.late = 0
    assert len(list(refill.stored(KEY, Images(8, fault="lost"), 0))) == 2
    store.late = 10**6
    list(refill.stored(KEY, Images(8, fault="lost"), 0))
    assert sum(slept) > waited  # and came back


@pytest.mark.parametrize(
    "answer",
    [np.zeros((2, 3)), np.zeros((0, 3, 4)), np.zeros((2, 3, 4), complex), np.zeros((1, 9, 0))],
)
def test_store_that_answers_with_no_images_has_none(answer: Any) -> None:
    store = MemoryStore([])
    store.read = lambda *_: answer  # type: ignore[method-assign]
    (lost,) = supply(store, [], timeout=0.0).stored(KEY, Images(3, fault="lost"), 0)
    assert (lost.stack, lost.count) == (None, 3)
