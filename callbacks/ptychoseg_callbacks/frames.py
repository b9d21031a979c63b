"""Finds the images of a run, whatever way its documents carry them."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np
from event_model import unpack_event_page
from event_model.documents import EventPage
from numpy.typing import NDArray

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.science.frame import Frame

from .documents import Document, drop_reason
from .keys import ImageKey, frames_in, image_key, image_keys
from .readers import SwmrReader, local_path

log = logging.getLogger(__name__)

_HDF5 = "application/x-hdf5"


@dataclass(frozen=True, slots=True)
class FinderOptions:
    """Which images of a run are looked at, and how files are read.

    Parameters
    ----------
    streams : tuple of str
        Event streams to look in; empty: all.
    data_keys : tuple of str
        Keys that hold images, the most wanted first; empty: the first that looks like an image.
    root_map : mapping of str to str
        Folder as the detector names it -> the same folder as it is mounted here.
    read_timeout : float
        How long to wait for frames that are announced but not in the file yet [s].
    locking : bool, optional
        False reads HDF5 without file locks, for file systems that have none.
    block : int
        At most so many frames are read from a file at once.
    """

    streams: tuple[str, ...] = ("primary",)
    data_keys: tuple[str, ...] = ()
    root_map: Mapping[str, str] = field(default_factory=dict[str, str])
    read_timeout: float = 2.0
    locking: bool | None = None
    block: int = 16


@dataclass(frozen=True, slots=True)
class _Images:
    """Consecutive images: ``(n, H, W)``, or why they are not there."""

    count: int
    stack: NDArray[Any] | None = None
    fault: str = ""
    origin: str = ""  # FILE:dataset whose row i is frame i


_Resolver: TypeAlias = Callable[[Any, ImageKey], _Images]
_Reader: TypeAlias = Callable[[Document, float], Iterator[Frame]]


class FrameFinder:
    """Turns the documents of one run into frames, in order.

    One (stream, data key) of a run is segmented: the first that matches the options. A frame that
    cannot be read is a `Frame` without image whose `fault` says why: no index is ever skipped.

    Parameters
    ----------
    start : mapping
        The run's start document.
    options : FinderOptions
        Which images, and how files are read.
    """

    def __init__(self, start: Document, options: FinderOptions | None = None) -> None:
        self._run: str = start["uid"]
        self._options = options or FinderOptions()
        self._chosen: tuple[str, str] | None = None
        self._seen: list[str] = []
        self._sources: dict[str, ImageKey] = {}  # by descriptor uid
        self._specs: dict[str, str] = {}  # spec by resource uid
        self._stream_resources: dict[str, Document] = {}
        self._readers: dict[str, SwmrReader] = {}  # by stream_resource uid
        self._next = 0
        self._told_missing = False
        self._notes: dict[str, Callable[[Document], None]] = {
            "descriptor": self._note_descriptor,
            "resource": self._note_resource,
            "stream_resource": self._note_stream_resource,
        }
        self._sights: dict[str, _Reader] = {
            "event": self._event,
            "event_page": self._event_page,
            "stream_datum": self._stream_datum,
        }
        # How the value of an event becomes images; "datum" is where area detector files plug in.
        self._resolvers: dict[str, _Resolver] = {"inline": self._inline, "datum": self._datum}

    def of(self, name: str, doc: Document, arrived: float = 0.0) -> Iterator[Frame]:
        """Yield the frames that a document carries or announces; files are read as you iterate.

        Parameters
        ----------
        name, doc
            Any document of this run.
        arrived : float
            The time of frames whose document carries none, as a stream_datum [s since the epoch].
        """
        if note := self._notes.get(name):
            note(doc)
        elif sight := self._sights.get(name):
            yield from sight(doc, arrived)

    def close(self) -> None:
        """Give all files back."""
        if self._chosen is None:
            streams = ", ".join(self._options.streams) or "any"
            keys = ", ".join(self._options.data_keys) or "any that looks like an image"
            # A run without images is nothing strange, unless images of a name were asked for.
            log.log(
                logging.WARNING if self._options.data_keys else logging.INFO,
                "run %s: no images found (streams: %s; data keys: %s); there was: %s; "
                "see frames.streams and frames.data_keys of the profile",
                self._run,
                streams,
                keys,
                ", ".join(self._seen) or "nothing",
            )
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def _note_descriptor(self, doc: Document) -> None:
        stream = str(doc.get("name", ""))
        if self._options.streams and stream not in self._options.streams:
            return
        self._seen += [f"{stream}/{key}" for key in doc["data_keys"]]
        keys = image_keys(doc["data_keys"], self._options.data_keys)
        if not keys:
            return
        if self._chosen is None:
            self._chosen = (stream, keys[0])
            ignored = (
                f"; ignored: {', '.join(keys[1:])} (frames.data_keys chooses)" if keys[1:] else ""
            )
            # Only a choice among several may be the wrong one, and worth a line on the screen.
            level = logging.WARNING if ignored else logging.INFO
            log.log(level, "run %s: segmenting %s of %s%s", self._run, keys[0], stream, ignored)
        if self._chosen[0] == stream and self._chosen[1] in keys:
            key = self._chosen[1]
            self._sources[doc["uid"]] = image_key(stream, key, doc["data_keys"][key])
        else:
            log.info("run %s: images of stream %s are ignored", self._run, stream)

    def _note_resource(self, doc: Document) -> None:
        self._specs[doc["uid"]] = str(doc.get("spec", ""))

    def _note_stream_resource(self, doc: Document) -> None:
        self._stream_resources[doc["uid"]] = doc

    def _event(self, doc: Document, arrived: float) -> Iterator[Frame]:
        source = self._sources.get(doc["descriptor"])
        if source is None or source.key not in doc["data"]:
            return  # the images of a stream_datum have no value in the event
        value = doc["data"][source.key]
        images = self._resolvers["datum" if isinstance(value, str) else "inline"](value, source)
        taken = doc.get("timestamps", {}).get(source.key, doc.get("time", arrived))
        seq_nums = [int(doc.get("seq_num", 0))] * images.count
        yield from self._frames(source, images, seq_nums, float(taken))

    def _event_page(self, doc: Document, arrived: float) -> Iterator[Frame]:
        for event in unpack_event_page(cast(EventPage, doc)):
            yield from self._event(event, arrived)

    def _stream_datum(self, doc: Document, arrived: float) -> Iterator[Frame]:
        source = self._sources.get(doc["descriptor"])
        resource = self._stream_resources.get(doc["stream_resource"])
        if source is not None and resource is None and not self._told_missing:
            self._told_missing = True
            log.warning(
                "run %s: stream_resource %s was missed; frames of its stream_datum have no rows",
                self._run,
                doc["stream_resource"],
            )
        if source is None or resource is None or resource["data_key"] != source.key:
            return
        multiplier = resource.get("parameters", {}).get("multiplier")  # of older ophyd-async
        per = max(source.per_event, int(multiplier or 1))
        start, stop = (int(doc["indices"][end]) * per for end in ("start", "stop"))
        seq_num = int(doc["seq_nums"]["start"])
        for first in range(start, stop, self._options.block):
            last = min(first + self._options.block, stop)
            seq_nums = [seq_num + (row - start) // per for row in range(first, last)]
            for images in self._read(resource, first, last):
                yield from self._frames(source, images, seq_nums[: images.count], arrived)
                seq_nums = seq_nums[images.count :]

    def _read(self, resource: Document, first: int, last: int) -> Iterator[_Images]:
        """Yield rows [first, last) of a file, and a fault for those that are not there."""
        wanted, origin = last - first, ""
        try:
            reader = self._reader(resource)
            origin = str(reader) if first == self._next else ""
            stack = reader.read(first, last)
        except DatasetError as error:
            yield _Images(wanted, fault=str(error), origin=origin)
            return
        if len(stack):
            yield _Images(len(stack), stack, origin=origin)
        if len(stack) < wanted:
            fault = (
                f"{reader} holds only {first + len(stack)} of the {last} frames announced: "
                "its writer stopped or lags; raise read_timeout if it lags"
            )
            yield _Images(wanted - len(stack), fault=fault, origin=origin)

    def _reader(self, resource: Document) -> SwmrReader:
        if (reader := self._readers.get(resource["uid"])) is not None:
            return reader
        dataset = resource.get("parameters", {}).get("dataset")
        if resource.get("mimetype", _HDF5) != _HDF5 or not dataset:
            raise DatasetError(
                f"cannot read {resource.get('uri')} of mimetype {resource.get('mimetype')}, "
                f"dataset {dataset}: only datasets of HDF5 files are read; write frames to one"
            )
        options = self._options
        path = local_path(resource["uri"], options.root_map)
        reader = SwmrReader(path, dataset, options.read_timeout, options.locking)
        self._readers[resource["uid"]] = reader
        return reader

    def _inline(self, value: Any, source: ImageKey) -> _Images:
        """Resolve images that are in the event itself, as an array or as lists."""
        if reason := drop_reason(value):
            shape = value["shape"]
            return _Images(frames_in(shape), fault=f"data key {source.key} was dropped: {reason}")
        where = f"data key {source.key} of stream {source.stream}"
        try:
            stack = np.asarray(value, (source.dtype or None) if isinstance(value, list) else None)
        except (ValueError, TypeError, OverflowError) as error:
            return _Images(source.per_event, fault=f"{where} does not hold numbers: {error}")
        if stack.ndim < 2 or stack.dtype.kind not in "biuf":
            fault = f"{where} holds {stack.dtype} of shape {stack.shape}, not a real (H, W) image"
            return _Images(source.per_event, fault=f"{fault}; name another one in data_keys")
        stack = stack.reshape(frames_in(stack.shape), *stack.shape[-2:])  # (n, h, w)
        return _Images(len(stack), stack)

    def _datum(self, value: str, source: ImageKey) -> _Images:
        """Refuse an image that is named by a datum id."""
        spec = self._specs.get(value.rsplit("/", 1)[0], "unknown")
        fault = (
            f"data key {source.key} of stream {source.stream} comes as resource/datum "
            f"(spec {spec}), which is not supported yet: put images into the Event, or emit "
            "stream_resource/stream_datum"
        )
        return _Images(source.per_event, fault=fault)

    def _frames(
        self, source: ImageKey, images: _Images, seq_nums: Sequence[int], taken: float
    ) -> Iterator[Frame]:
        for n, seq_num in enumerate(seq_nums):
            image = None if images.stack is None else images.stack[n]
            index, self._next = self._next, self._next + 1
            yield Frame(
                run=self._run,
                index=index,
                image=image,
                shape=source.shape if image is None else (image.shape[0], image.shape[1]),
                seq_num=seq_num,
                stream=source.stream,
                data_key=source.key,
                time=taken,
                fault=images.fault,
                origin=images.origin,
            )
