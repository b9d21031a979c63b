"""How many frames a document carries or announces, and a run that ends after so many of them."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from event_model import unpack_event_page
from event_model.documents import EventPage
from ptychoseg_callbacks.assets.keys import described, image_keys
from ptychoseg_callbacks.documents import Document

from ...node.guard import Guard
from .document_files import Named

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Stream:
    """A descriptor: its run, its name, and the key that holds images."""

    run: str
    name: str
    key: str
    per_event: int
    announced: bool  # images are in files that a stream_datum tells of


class FrameCounter:
    """Counts the frames of documents; knows descriptors and resources of the open runs.

    Parameters
    ----------
    streams, data_keys : tuple of str
        Which images count, as in `frames` of the profile: of several, the first.
    """

    def __init__(
        self, streams: tuple[str, ...] = ("primary",), data_keys: tuple[str, ...] = ()
    ) -> None:
        self._wanted = streams
        self._keys = data_keys
        self._chosen: dict[str, tuple[str, str]] = {}  # stream and key by run
        self._streams: dict[str, _Stream] = {}  # by descriptor uid
        self._resources: dict[str, str] = {}  # key by uid of a stream_resource
        self._guard = Guard(log)  # somebody else wrote the documents

    def of(self, name: str, doc: Document) -> int:
        """Take note of a document; return its frames, 0 for one without."""
        return self._guard.call(f"count the frames of a {name}", lambda: self._count(name, doc), 0)

    def stream_of(self, doc: Document) -> _Stream | None:
        """Return the stream with images that an event, page or stream_datum belongs to."""
        return self._streams.get(str(doc.get("descriptor")))

    def _count(self, name: str, doc: Document) -> int:
        if name == "descriptor":
            self._note(doc)
        elif name == "stream_resource":
            self._resources[str(doc.get("uid"))] = str(doc.get("data_key"))
        elif name == "stop":
            self._forget(str(doc.get("run_start")))
        return self._frames(name, doc)

    def _frames(self, name: str, doc: Document) -> int:
        if (stream := self.stream_of(doc)) is None:
            return 0
        if name == "stream_datum":
            fits = self._resources.get(str(doc.get("stream_resource")), stream.key) == stream.key
            span = doc.get("indices", {})
            points = int(span.get("stop", 0)) - int(span.get("start", 0))
            return max(0, points) * stream.per_event if fits else 0
        if stream.announced or stream.key not in doc.get("data", {}):
            return 0
        if name == "event_page":
            return len(doc["data"][stream.key]) * stream.per_event
        return stream.per_event if name == "event" else 0

    def _note(self, doc: Document) -> None:
        run, name = str(doc.get("run_start")), str(doc.get("name"))
        specs: dict[str, Any] = doc.get("data_keys", {})
        keys = image_keys(specs, self._keys)
        if not keys or (self._wanted and name not in self._wanted):
            return
        chosen = self._chosen.setdefault(run, (name, keys[0]))
        if chosen[0] == name and chosen[1] in keys:
            found = described(name, specs)[chosen[1]]
            self._streams[str(doc.get("uid"))] = _Stream(
                run, name, found.key, found.per_event, found.streamed
            )

    def _forget(self, run: str) -> None:
        self._chosen.pop(run, None)
        for uid in [uid for uid, stream in self._streams.items() if stream.run == run]:
            del self._streams[uid]
        if not self._chosen:  # no run is open
            self._resources.clear()


@dataclass(slots=True)
class _Passed:
    """What was passed on of a run."""

    frames: int = 0
    last: int = 0  # highest seq_num that has frames
    stream: str = ""
    cut: bool = False


class Limit:
    """Ends each run after so many frames; its stop document is told.

    Parameters
    ----------
    frames : int
        Of each run; a point of the scan is not divided. 0 for all.
    counter : FrameCounter
        Knows what is a frame; nobody else may use it.
    """

    def __init__(self, frames: int, counter: FrameCounter) -> None:
        self._frames = frames
        self._counter = counter
        self._runs: dict[str, _Passed] = {}
        self._guard = Guard(log)

    def of(self, documents: Iterable[Named]) -> Iterator[Named]:
        """Yield the documents that are left, cut where needed."""
        for name, doc in documents:
            if self._frames:
                yield from self._left_of(name, doc)
            else:
                yield name, doc

    def _left_of(self, name: str, doc: Document) -> list[Named]:
        """Return what is left of a document; one that is not understood is left as it is."""
        step = self._of_page if name == "event_page" else self._of
        return self._guard.call(f"cut a {name}", lambda: list(step(name, doc)), [(name, doc)])

    def _of_page(self, _: str, doc: Document) -> Iterator[Named]:
        for event in unpack_event_page(cast(EventPage, doc)):  # it may have to be divided
            yield from self._of("event", cast(Document, event))

    def _of(self, name: str, doc: Document) -> Iterator[Named]:
        frames = self._counter.of(name, doc)
        stream = self._counter.stream_of(doc) if name in ("event", "stream_datum") else None
        if name == "stop":
            yield name, self._ended(doc)
        elif stream is None:
            yield name, doc
        else:
            yield from self._of_stream(name, doc, stream, frames)

    def _of_stream(self, name: str, doc: Document, stream: _Stream, frames: int) -> Iterator[Named]:
        passed = self._runs.setdefault(stream.run, _Passed(stream=stream.name))
        left = self._frames - passed.frames
        if not frames:  # an event beside frames that are in files
            if left > 0 or doc.get("seq_num", 0) <= passed.last:
                yield name, doc
            return
        passed.cut |= frames > left
        if left <= 0:
            return
        if name == "stream_datum":
            doc = _first_points(doc, -(-left // stream.per_event))
            passed.last = max(passed.last, int(doc["seq_nums"]["stop"]) - 1)
        else:
            passed.last = max(passed.last, int(doc.get("seq_num", 0)))
        passed.frames += frames
        yield name, doc

    def _ended(self, stop: Document) -> Document:
        passed = self._runs.pop(str(stop.get("run_start")), None)
        if passed is None or not passed.cut:
            return stop
        counts = {**stop.get("num_events", {}), passed.stream: passed.last}
        reason = f"replayed up to frame {self._frames} only"
        return {**stop, "num_events": counts, "reason": stop.get("reason") or reason}


def _first_points(doc: Document, points: int) -> Document:
    """Return a stream_datum with at most so many points."""
    cut = dict(doc)
    for key in ("indices", "seq_nums"):
        start, stop = int(doc[key]["start"]), int(doc[key]["stop"])
        cut[key] = {"start": start, "stop": min(stop, start + points)}
    return cut
