"""Replays files for tests, and finds the frames in what comes."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ptychoseg_callbacks.frames.finder import FinderOptions, FrameFinder

from ptychoseg_stream.science.frame import Frame
from ptychoseg_stream.sources.recorded.replay import Replay, ReplayOptions, open_replay

Documents = list[tuple[str, Any]]


def asymmetric(n: int = 6, height: int = 12, width: int = 16) -> np.ndarray:
    """Return frames that differ, and that any flip, turn or swap of axes would change."""
    y, x = np.indices((height, width))
    return np.stack([1000 * i + 30 * y + x for i in range(n)]).astype(np.uint16)


def documents_of(replay: Replay) -> Documents:
    """Run a replay to its end; return what it fed."""
    fed: Documents = []

    def take(name: str, doc: Any) -> int:
        fed.append((name, doc))
        return len(fed)

    replay.run(take, threading.Event())
    assert replay.documents == len(fed)
    return fed


def replayed(targets: str | Path | Sequence[str], **options: Any) -> Documents:
    return documents_of(open_replay(targets, ReplayOptions(**options)))


def names_of(documents: Documents) -> list[str]:
    return [name for name, _ in documents]


def frames_of(documents: Documents, **options: Any) -> list[Frame]:
    """Return the frames of one run, found by what finds them live; fails if any is missing."""
    options.setdefault("read_timeout", 0.01)
    finder = FrameFinder(documents[0][1], FinderOptions(**options))
    frames = [frame for name, doc in documents for frame in finder.of(name, doc, 0.0)]
    name, stop = documents[-1]
    if name == "stop":
        assert list(finder.finish(stop)) == []  # the run counts none that did not come
        assert finder.announced(stop) in (-1, len(frames))
    finder.close()
    return frames


def images_of(documents: Documents, **options: Any) -> np.ndarray:
    """Return ``(n, H, W)``: all images, in order; fails where one could not be read."""
    frames = frames_of(documents, **options)
    assert [frame.fault for frame in frames] == [""] * len(frames)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return np.stack([frame.image for frame in frames])
