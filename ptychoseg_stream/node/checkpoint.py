"""What is remembered of a run as bytes, so that another process goes on with it, bit for bit.

::

    "PTYCHOSEG-RUN" format (2)       integers little-endian
    length of all (8), of the head (8)
    SHA-256 (32) of all before and behind it
    head                             msgpack: whose run, options, versions, the tree of objects
    arrays                           one behind the other, as they lie in memory

Nothing is made but objects of the classes in `CLASSES`. What can be worked out again is left out:
the transform of the reference, the teacher's table, the nets around the weights.
"""

import dataclasses
import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import msgpack
import numpy as np

from ..errors import CheckpointError
from ..science.augment import Example
from ..science.background import Background
from ..science.chart import Chart
from ..science.consensus import Consensus, RunningMean
from ..science.counts import PrepareOptions
from ..science.drift import Monitors
from ..science.features import FEATURE_VERSION
from ..science.frame import BoolArray
from ..science.fusion import Fusion
from ..science.geometry import Geometry
from ..science.learning import Student, StudentOptions, Weights
from ..science.prepare import Prepared
from ..science.promotion import CheckSet
from ..science.prototypes import TeacherOptions
from ..science.records import Alarm, StageRecord
from ..science.som import Centroids
from ..science.totals import Totals
from ..science.track import BeamTracker
from ..science.validity import PixelHistory
from ..science.verdict import PolarProfile
from ..science.window import Window
from .graph import Blob, Layout, Reader, Writer
from .ladder import Kept, Ladder
from .options import NodeOptions
from .state import RunState
from .store import Known
from .trainer import Outcome, Stage, TrainerState
from .vitals import Progress

MAGIC = b"PTYCHOSEG-RUN"
FORMAT = 1
START = struct.Struct(f"<{len(MAGIC)}sHQQ")
BEHIND = START.size + hashlib.sha256().digest_size
"""Where the head begins."""
LARGEST_HEAD = 1 << 24
"""Bytes; the numbers that are no arrays fill a hundredth of that."""

CLASSES: tuple[type, ...] = (
    *(Alarm, Background, BeamTracker, Centroids, Chart, CheckSet, Consensus, Example, Fusion),
    *(Geometry, Kept, Known, Ladder, Monitors, Outcome, PixelHistory, PolarProfile, PrepareOptions),
    *(Prepared, Progress, RunState, RunningMean, Stage, StageRecord, TeacherOptions, TrainerState),
    *(Totals, Window),
)
"""All that a checkpoint may hold, beside a `Student`, numbers, texts, arrays and containers."""

DAMAGE = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError)
"""What reading bytes that were tampered with may end in."""


@dataclass(frozen=True, slots=True, eq=False)
class Owner:
    """Whose checkpoint it is, and what must be the same to go on with it.

    Parameters
    ----------
    run : str
        Uid of the raw run.
    options : NodeOptions
    user : ndarray of bool or None
        ``(h, w)`` the user's pixel mask.
    """

    run: str
    options: NodeOptions
    user: BoolArray | None = None

    def header(self) -> dict[str, Any]:
        """Return what is compared, as plain values."""
        user = self.user
        mask = "" if user is None else f"{user.shape} {hashlib.sha256(user.tobytes()).hexdigest()}"
        return {
            "features": FEATURE_VERSION,
            "layout": layout_digest(),
            "run": self.run,
            "options": json.dumps(asdict(self.options), sort_keys=True),
            "user": mask,
        }

    def given(self) -> list[object]:
        """Return the options and the options of each part: a checkpoint names them only."""
        parts = [getattr(self.options, f.name) for f in dataclasses.fields(self.options)]
        return [self.options, *(part for part in parts if dataclasses.is_dataclass(part))]


def pack(state: RunState, trainer: TrainerState, owner: Owner) -> bytes:
    """Return a run and its trainer as bytes.

    Raises
    ------
    CheckpointError
        If they hold what cannot be written.
    """
    writer = Writer(_layouts(owner.options.student), owner.given())
    try:
        tree = [writer.tree(state), writer.tree(trainer)]
        sizes = [blob.size for blob in writer.blobs]
        made_by = version("ptychoseg-stream")
        head = msgpack.packb({**owner.header(), "version": made_by, "sizes": sizes, "tree": tree})
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"run {owner.run} cannot be written down: {error}") from error
    start = START.pack(MAGIC, FORMAT, BEHIND + len(head) + sum(sizes), len(head))
    digest = hashlib.sha256(start + head)
    for blob in writer.blobs:
        digest.update(blob.data)
    return b"".join([start, digest.digest(), head, *(blob.data for blob in writer.blobs)])


def unpack(data: bytes, owner: Owner) -> tuple[RunState, TrainerState]:
    """Return the run and its trainer as they were packed.

    Raises
    ------
    CheckpointError
        If the bytes are damaged, of another version, of another run or made with other options.
    """
    content, size = _content(data)
    try:
        head, arrays = _head(content, size)
        _compare(head, owner)
        reader = Reader(_layouts(owner.options.student), owner.given(), _blobs(head, arrays))
        state, trainer = (reader.value(tree) for tree in head["tree"])
        if type(state) is not RunState or type(trainer) is not TrainerState:
            raise ValueError("it does not hold a run and its trainer")
        if misfit := state.misfit():
            raise ValueError(misfit)
    except DAMAGE as error:
        raise CheckpointError(f"the checkpoint of run {owner.run} is damaged: {error}") from error
    return state, trainer


def _content(data: bytes) -> tuple[memoryview, int]:
    """Return head and arrays, and the length of the head, if nothing is missing or altered."""
    if len(data) < BEHIND or not data.startswith(MAGIC):
        raise CheckpointError(
            "this is no checkpoint, or its beginning is damaged; without it the run is labelled "
            "again from its first frame"
        )
    _, form, length, head = START.unpack_from(data)
    if form != FORMAT:
        raise CheckpointError(
            f"the checkpoint is of format {form}, this version reads format {FORMAT}; go on with "
            "the version that wrote it, or label the run again"
        )
    if length != len(data):
        raise CheckpointError(f"the checkpoint is cut off: {len(data)} of {length} bytes are there")
    content = memoryview(data)[BEHIND:]
    digest = hashlib.sha256(data[: START.size])
    digest.update(content)
    if digest.digest() != data[START.size : BEHIND]:
        raise CheckpointError("the checkpoint is damaged: its content does not match its SHA-256")
    return content, head


def _head(content: memoryview, size: int) -> tuple[dict[str, Any], memoryview]:
    if size > min(len(content), LARGEST_HEAD):
        raise ValueError(f"its head cannot be {size} bytes long")
    head = msgpack.unpackb(content[:size], max_ext_len=0)
    if not isinstance(head, dict):
        raise ValueError("its head is no table")
    return head, content[size:]


def _compare(head: dict[str, Any], owner: Owner) -> None:
    """Refuse a checkpoint that belongs to something else."""
    ours = owner.header()
    if head["features"] != ours["features"] or head["layout"] != ours["layout"]:
        raise CheckpointError(
            f"the checkpoint was written by ptychoseg_stream {head['version']} with features "
            f"{head['features']}, this is {version('ptychoseg-stream')} with {FEATURE_VERSION}, "
            "which remembers other things; go on with that version, or label the run again"
        )
    if head["run"] != ours["run"]:
        raise CheckpointError(f"the checkpoint is of run {head['run']}, not of {owner.run}")
    if head["options"] != ours["options"]:
        changes = _changes(json.loads(head["options"]), json.loads(ours["options"]), "node")
        raise CheckpointError(
            f"the options changed: {', '.join(changes)}; go on with those of the checkpoint, or "
            "label the run again"
        )
    if head["user"] != ours["user"]:
        raise CheckpointError("the options changed: `pixel_mask` is another one")


def _changes(before: Any, now: Any, name: str) -> list[str]:
    """Name what differs: ``node.student.steps 30 -> 20``."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            change
            for key in sorted(before.keys() | now.keys())
            for change in _changes(before.get(key), now.get(key), f"{name}.{key}")
        ]
    return [] if before == now else [f"{name} {before} -> {now}"]


def _blobs(head: dict[str, Any], arrays: memoryview) -> list[Blob]:
    sizes: list[int] = head["sizes"]
    if any(type(size) is not int or size < 0 for size in sizes) or sum(sizes) != len(arrays):
        raise ValueError("its arrays are not of the lengths that its head tells")
    blobs: list[Blob] = []
    at = 0
    for size in sizes:
        blobs.append(np.frombuffer(arrays[at : at + size], np.uint8).copy())
        at += size
    return blobs


@cache
def _plain_layouts() -> dict[type, Layout]:
    return {kind: Layout.of(kind) for kind in CLASSES}


def _layouts(options: StudentOptions) -> dict[type, Layout]:
    """Return the layouts of all classes; a student is its weights, and its net is built anew."""

    def student(values: dict[str, Any]) -> Student:
        made = Student.of(values["weights"], values["revision"], options)
        if made.hash != values["hash"]:
            raise ValueError("the weights of a student do not match their hash")
        return made

    fields = {"weights": Weights, "revision": int, "hash": str}
    return {**_plain_layouts(), Student: Layout(Student, fields, student)}


@cache
def layout_digest() -> str:
    """Digest of the classes and their fields: two versions that remember other things differ."""
    what = {kind.__name__: list(layout.fields) for kind, layout in _plain_layouts().items()}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
