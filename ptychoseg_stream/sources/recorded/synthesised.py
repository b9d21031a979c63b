"""Bluesky documents over frames that are in a file already; nothing is copied.

The uids follow from the file: the same frames give the same documents.
"""

import logging
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, cast

import h5py
import numpy as np
from event_model import ComposeDescriptorBundle, ComposeRunBundle, StreamRange, compose_run
from ptychoseg_callbacks.documents import Document

from ...node.guard import Guard
from ..arrays.discovery import candidates
from ..arrays.stack import FrameStack, open_hdf5, open_stack, split_target
from .document_files import Named
from .scan_facts import ScanFacts, modified, read_facts, scan_id_of

log = logging.getLogger(__name__)

Doc: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SynthesisOptions:
    """How frames of a file become documents.

    Parameters
    ----------
    stream, data_key : str
        Names that stream and images get; those that the profile looks for.
    block : int
        Most frames that one document announces.
    limit : int
        Only the first frames (of a grid: whole rows); 0 for all.
    period : float
        From one frame to the next [s]; 0: as the file says.
    """

    stream: str = "primary"
    data_key: str = "frames"
    block: int = 16
    limit: int = 0
    period: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.block < 1:
            raise ValueError(f"block: {self.block} must be 1 or more")
        if self.limit < 0:
            raise ValueError(f"limit: {self.limit} must be 0 (all frames) or more")
        if not 0 <= self.period < float("inf"):
            raise ValueError(f"period: {self.period} must be 0 or more seconds")


def synthesise(
    target: str | PathLike[str], options: SynthesisOptions | None = None
) -> Iterator[Named]:
    """Yield the documents of a run whose frames are the stack of a file.

    HDF5 (NeXus, CXI): a stream_resource over the dataset, and per block a stream_datum and an
    event_page with the times and, where the file has them, the positions of the frames. A grid
    ``(rows, columns, H, W)`` has one point per row, with all its frames. ``.npy``: the frames
    travel in events.

    Parameters
    ----------
    target : str or path
        ``FILE`` or ``FILE:/dataset``, as for `open_stack`.
    options : SynthesisOptions, optional
        Names and sizes.

    Raises
    ------
    DatasetError
        When iterated: there are no frames in the file.
    """
    options = options or SynthesisOptions()
    with open_stack(target) as stack:
        given, _ = split_target(target)
        path, dataset = given.resolve(), stack.name.removeprefix(str(given)).removeprefix(":")
        if dataset:  # HDF5 cannot be read in two ways at once: whoever reads the frames opens it
            stack.close()
        scan = _Scan(stack, path, dataset, _facts(path, dataset, len(stack)), options)
        yield from scan.from_file() if dataset else scan.inline()


def _facts(path: Path, dataset: str, n_frames: int) -> ScanFacts:
    scan_id = scan_id_of(path)
    bare = ScanFacts(modified(path), 0.0, {"scan_id": scan_id} if scan_id else {}, None)
    if not dataset:
        return bare

    def read() -> ScanFacts:
        with open_hdf5(path) as file:
            _tell_others(file, path, dataset)
            return read_facts(file, dataset, n_frames)

    # A file that is damaged somewhere may still have all its frames.
    return Guard(log).call(f"read what {path} says of the scan", read, bare)


def _tell_others(file: h5py.File, path: Path, dataset: str) -> None:
    """Warn of datasets that differ by a number in their name: the scan may go on in them."""
    taken = dataset.strip("/")
    others = [
        other
        for other in candidates(file)
        if other != taken and re.sub(r"\d+", "", other) == re.sub(r"\d+", "", taken)
    ]
    if others:
        log.warning(
            "%s: only %s is replayed, not %s: name each as FILE:/dataset",
            path,
            dataset,
            ", ".join(f"/{other}" for other in others[:5]) + (", ..." if len(others) > 5 else ""),
        )


class _Scan:
    """One run: the frames of `stack`, and what is known of them."""

    def __init__(
        self,
        stack: FrameStack,
        path: Path,
        dataset: str,
        facts: ScanFacts,
        options: SynthesisOptions,
    ) -> None:
        status = path.stat()
        name = f"{path.as_uri()}#{dataset}?{status.st_size}&{status.st_mtime_ns}"
        self._uid = uuid.uuid5(uuid.NAMESPACE_URL, name)
        self._stack = stack
        self._path = path
        self._dataset = dataset
        self._facts = facts
        self._options = options
        self._period = options.period or facts.period
        self._positions: dict[str, Any] = {}
        self._per = 1  # frames per point

    def from_file(self) -> Iterator[Named]:
        """Yield documents that say where the frames are."""
        rows, *columns = self._stack.grid
        self._per = columns[0] if columns else 1
        points = rows
        if self._options.limit:
            points = min(rows, -(-self._options.limit // self._per))
        if self._facts.positions is not None:
            self._positions = dict(zip(("y", "x"), self._facts.positions.T, strict=True))
        run, described = self._begin(points, external=True)
        yield "start", run.start_doc
        yield "descriptor", described.descriptor_doc
        yield from self._announced(run, described, points)
        yield "stop", self._stop(run, points)

    def _announced(
        self, run: ComposeRunBundle, described: ComposeDescriptorBundle, points: int
    ) -> Iterator[Named]:
        assert run.compose_stream_resource is not None
        resource = run.compose_stream_resource(
            mimetype="application/x-hdf5",
            uri=self._path.as_uri().replace("file:///", "file://localhost/", 1),
            data_key=self._options.data_key,
            parameters={"dataset": self._dataset, "chunk_shape": self._chunks()},
            uid=self._uid_of("stream_resource"),
        )
        yield "stream_resource", resource.stream_resource_doc
        step = max(1, self._options.block // self._per)
        for first in range(0, points, step):
            last = min(first + step, points)
            yield (
                "stream_datum",
                resource.compose_stream_datum(
                    indices=StreamRange(start=first, stop=last),
                    seq_nums=StreamRange(start=first + 1, stop=last + 1),
                    descriptor=described.descriptor_doc,
                ),
            )
            yield "event_page", self._page(described, first, last)

    def inline(self) -> Iterator[Named]:
        """Yield documents that carry the frames."""
        count = min(len(self._stack), self._options.limit or len(self._stack))
        run, described = self._begin(count, external=False)
        yield "start", run.start_doc
        yield "descriptor", described.descriptor_doc
        for index in range(count):
            taken = self._time(index + 1)
            event = described.compose_event(
                data={self._options.data_key: self._stack[index]},
                timestamps={self._options.data_key: taken},
                seq_num=index + 1,
                uid=self._uid_of(f"event {index}"),
                time=taken,
                validate=False,  # it would look at every pixel
            )
            yield "event", event
        yield "stop", self._stop(run, count)

    def _begin(
        self, points: int, external: bool
    ) -> tuple[ComposeRunBundle, ComposeDescriptorBundle]:
        facts, options = self._facts, self._options
        origin = f"{self._path}:{self._dataset}" if external else str(self._path)
        metadata = {"plan_name": "replay", "replayed_from": origin, "num_points": points}
        run = compose_run(
            uid=str(self._uid), time=facts.began, metadata={**metadata, **facts.metadata}
        )
        frame = list(self._stack.shape[1:])
        image: Doc = {
            "source": origin,
            "dtype": "array",
            "dtype_numpy": self._stack.dtype.str,
            "shape": [self._per, *frame] if external else frame,
        }
        if external:
            image["external"] = "STREAM:"
        position: Doc = {"source": origin, "dtype": "number", "dtype_numpy": "<f8", "shape": []}
        if self._per > 1:
            position |= {"dtype": "array", "shape": [self._per]}
        described = run.compose_descriptor(
            name=options.stream,
            data_keys={
                options.data_key: image,
                **{f"sample_{axis}": {**position, "units": "m"} for axis in self._positions},
            },
            uid=self._uid_of("descriptor"),
            time=facts.began,
        )
        return run, described

    def _page(self, described: ComposeDescriptorBundle, first: int, last: int) -> Document:
        times = [self._time(point + 1) for point in range(first, last)]
        data: dict[str, list[Any]] = {
            f"sample_{axis}": self._of_points(values, first, last)
            for axis, values in self._positions.items()
        }
        page = described.compose_event_page(
            data=data,
            timestamps=dict.fromkeys(data, times),
            seq_num=list(range(first + 1, last + 1)),
            uid=[self._uid_of(f"event {point}") for point in range(first, last)],
            time=times,
        )
        return cast(Document, page)

    def _of_points(self, values: Any, first: int, last: int) -> list[Any]:
        part = np.asarray(values)[first * self._per : last * self._per]
        return (part.reshape(-1, self._per) if self._per > 1 else part).tolist()

    def _stop(self, run: ComposeRunBundle, points: int) -> Doc:
        stop = run.compose_stop(uid=self._uid_of("stop"), time=self._time(points))
        return {**stop, "num_events": {self._options.stream: points}}

    def _chunks(self) -> list[int]:
        return list(self._stack.chunks or (1, *self._stack.grid[1:], *self._stack.shape[1:]))

    def _time(self, points: int) -> float:
        """Return when so many points are complete [s since the epoch]."""
        return self._facts.began + points * self._per * self._period

    def _uid_of(self, what: str) -> str:
        return str(uuid.uuid5(self._uid, what))
