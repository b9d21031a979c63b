"""Scans of the detectors, their documents, and a store of raw runs in memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
from bluesky.run_engine import RunEngine, RunEngineInterrupted
from detectors_support import Documents, StreamDetector
from numpy.typing import NDArray
from ptychoseg_callbacks.documents import copied
from ptychoseg_callbacks.frames.finder import FinderOptions, FrameFinder

from ptychoseg_stream.science.frame import Frame


def fly(detector: StreamDetector, collections: Sequence[int]) -> Iterator[Any]:
    """Collect so many events at a time while the detector runs freely."""

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Iterator[Any]:
        yield from bps.declare_stream(detector, name="primary", collect=True)
        yield from bps.kickoff(detector, wait=True)
        for events in collections:
            detector.write(events)
            yield from bps.collect(detector, name="primary")
        yield from bps.complete(detector, wait=True)

    return plan()


def step(
    detector: Any,
    points: int,
    checkpoint_every: int = 1,
    pause_at: Sequence[int] = (),
    dark_at: Sequence[int] = (),
    darks: int = 2,
) -> Iterator[Any]:
    """Take points one by one.

    Parameters
    ----------
    detector
        Any of `FLAVOURS`.
    points : int
        Of the stream primary.
    checkpoint_every : int
        Points between checkpoints: what a resumed scan goes back to.
    pause_at : sequence of int
        Pause before these points, once each.
    dark_at : sequence of int
        Before these points, `darks` frames of the stream dark are taken.
    """
    left = list(pause_at)

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Iterator[Any]:
        for point in range(points):
            if point % checkpoint_every == 0:
                yield from bps.checkpoint()
            for _ in range(darks if point in dark_at else 0):
                yield from bps.trigger_and_read([detector], name="dark")
            if point in left:
                left.remove(point)
                yield from bps.pause()
            yield from bps.trigger_and_read([detector])

    return plan()


def recorded(RE: RunEngine, plan: Any) -> Documents:
    """Run a plan, resuming whenever it pauses; return copies of its documents."""
    documents: Documents = []
    token = RE.subscribe(lambda name, doc: documents.append((name, copied(doc))))
    try:
        RE(plan)
    except RunEngineInterrupted:
        while RE.state == "paused":
            try:
                RE.resume()
            except RunEngineInterrupted:
                continue
    RE.unsubscribe(token)
    return documents


class MemoryStore:
    """Raw runs in memory: a real `RawStore`, filled from the documents of a scan.

    Parameters
    ----------
    documents
        Of one run.
    frames : sequence of Frame
        Its frames, none of them lost.
    late : int
        So many questions for frames are answered with nothing first.
    """

    def __init__(self, documents: Documents, frames: Sequence[Frame] = (), late: int = 0) -> None:
        self.documents = documents
        self.frames = frames
        self.late = late
        self.reads: list[tuple[int, int]] = []
        self.asked_for_notes = 0

    def start_of(self, uid: str) -> Mapping[str, Any] | None:
        start = self.documents[0][1]
        mine = [doc["uid"] for name, doc in self.documents if name in ("start", "descriptor")]
        return start if uid in mine else None

    def notes_of(self, run_uid: str) -> Documents:
        self.asked_for_notes += 1
        notes = ("descriptor", "resource", "stream_resource")
        return [(name, doc) for name, doc in self.documents if name in notes]

    def stop_of(self, run_uid: str) -> Mapping[str, Any] | None:
        return next((doc for name, doc in self.documents if name == "stop"), None)

    def read(
        self, run_uid: str, stream: str, data_key: str, first: int, last: int
    ) -> NDArray[Any] | None:
        self.reads.append((first, last))
        if self.late > 0:
            self.late -= 1
            return None
        stored = [
            frame.image
            for frame in self.frames[first:last]
            if (frame.stream, frame.data_key) == (stream, data_key) and frame.image is not None
        ]
        return np.stack(stored) if stored else None

    def count(self, run_uid: str, stream: str, data_key: str) -> int:
        return len(self.frames)


def found(
    documents: Documents,
    raw: Any = None,
    handlers: Mapping[str, Callable[..., Any]] | None = None,
    skip_before: int = 0,
    **options: Any,
) -> tuple[list[Frame], int]:
    """Return the frames of a run, those of its end included, and how many it announces itself."""
    options = {"read_timeout": 0.02, "refill_timeout": 0.02, **options}
    finder = FrameFinder(documents[0][1], FinderOptions(**options), raw, handlers)
    finder.skip_before = skip_before
    frames = [frame for name, doc in documents for frame in finder.of(name, doc, 1.0)]
    stop = documents[-1][1]
    frames += finder.finish(stop)
    finder.close()
    return frames, finder.announced(stop)


def numbers(frames: Sequence[Frame]) -> list[int]:
    """Return the watermark of each frame; -1 for a frame without image."""
    return [-1 if frame.image is None else int(frame.image[0, 0]) for frame in frames]


def without(documents: Documents, lost: Callable[[str, Any], bool]) -> Documents:
    """Return the documents that are not lost."""
    return [(name, doc) for name, doc in documents if not lost(name, doc)]
