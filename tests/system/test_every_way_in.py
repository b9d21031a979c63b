"""The documents of one scan, by every way in: the same bytes and the same rows come out."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from bluesky.callbacks.json_writer import JSONLinesWriter
from bluesky.callbacks.zmq import Publisher
from bluesky_tiled_plugins import TiledWriter
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, init_devices
from ptychoseg_callbacks.documents import encode
from typer.testing import CliRunner
from ways_support import (
    Answer,
    MockKafka,
    N,
    Named,
    Node,
    Recorder,
    answer_of,
    check_orientation,
    check_same,
    emit,
    eventually,
    find_derived,
    label,
    marked_frames,
    run_engine,
    zmq_proxy,
)

from ptychoseg_stream.assemble import attach_to, single_threaded
from ptychoseg_stream.cli import app
from ptychoseg_stream.evaluation.offline import label_all
from ptychoseg_stream.ingest import ReplayArguments, open_recorded
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.profile import Profile, load_profile
from ptychoseg_stream.science.learning import StudentOptions
from ptychoseg_stream.sim.detectors import PlayedDetector, PlayedHDF5Detector
from ptychoseg_stream.sim.plans import fly_frames, take_frames
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sources.addresses import open_source
from ptychoseg_stream.sources.kafka.documents import KafkaDocuments
from ptychoseg_stream.sources.kafka.options import KafkaOptions
from ptychoseg_stream.sources.recorded.document_writer import DocumentWriter
from ptychoseg_stream.sources.tiled.documents import Wanted
from ptychoseg_stream.sources.tiled.live import LiveOptions, TiledLive
from ptychoseg_stream.sources.tiled.replay import TiledReplay


@dataclass(frozen=True)
class World:
    """A server for raw and derived runs, and folders."""

    tiled: EmbeddedTiled
    folder: Path

    def profile(self, way: str) -> Profile:
        """Return a deterministic profile with a container and a spool of its own."""
        base = load_profile("demo")
        student = StudentOptions(first_steps=4, steps=2, rounds=1, round_steps=1)
        tiled = replace(base.tiled, uri=self.tiled.uri, container=f"processed/{way}")
        return replace(
            base,
            node=NodeOptions(stages=(0, 5, 10), student=student),
            tiled=replace(tiled, arrays=("mask", "valid_bits")),
            spool=SpoolOptions(str(self.folder / f"spool-{way}"), min_free_bytes=0),
        )

    def raw(self, name: str) -> Any:
        root: Any = self.tiled.client()
        return root[name] if name in root else root.create_container(name)

    def address(self, name: str) -> str:
        return self.tiled.uri.replace("http://", "tiled://") + "/" + name


@dataclass(frozen=True)
class Taken:
    """A scan that was taken, with nodes attached to its RunEngine."""

    documents: list[Named]
    uid: str
    thread: Answer
    child: Answer | None = None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("ways")
    (folder / "detector").mkdir()
    with (
        pytest.MonkeyPatch.context() as patch,
        EmbeddedTiled(folder / "tiled", readable=[folder / "detector"]) as server,
    ):
        patch.setenv("TILED_API_KEY", server.api_key)
        yield World(server, folder)


@pytest.fixture(scope="module")
def inline(world: World) -> Taken:
    """Images in events; a node as a thread and one in a process of its own take part live."""
    detector = PlayedDetector(marked_frames(), name="det")
    return taken(world, "inline", lambda: take_frames(detector, N), own_process=True)


@pytest.fixture(scope="module")
def stepped(world: World) -> Taken:
    """A file that grows point by point, read while it is being written."""
    return taken(world, "stepped", lambda: take_frames(file_detector(world), N))


@pytest.fixture(scope="module")
def flown(world: World) -> Taken:
    """The same file with not one event document."""
    return taken(world, "flown", lambda: fly_frames(file_detector(world), N))


def file_detector(world: World) -> PlayedHDF5Detector:
    provider = StaticPathProvider(UUIDFilenameProvider(), world.folder / "detector")
    with init_devices():
        return PlayedHDF5Detector(marked_frames(), provider, name="det")


def taken(
    world: World, name: str, make_plan: Callable[[], Any], own_process: bool = False
) -> Taken:
    recorder = Recorder()
    writer = TiledWriter(world.raw("raw"), batch_size=1)
    profiles = {"thread": replace(world.profile(f"{name}-thread"), own_process=False)}
    if own_process:
        profiles["child"] = replace(world.profile(f"{name}-child"), own_process=True)
    attached = {way: attach_to(p, world.tiled.api_key) for way, p in profiles.items()}
    try:
        with run_engine() as engine:
            for callback in (*attached.values(), recorder, writer):
                engine.subscribe(callback)
            engine(make_plan())
        for attachment in attached.values():
            assert attachment.wait(120)
            assert attachment.vitals().fault == ""
    finally:
        for attachment in attached.values():
            attachment.close()
    answers = {way: answer_of(world.tiled, p, recorder.uid) for way, p in profiles.items()}
    return Taken(recorder.documents, recorder.uid, **answers)


def check_stored(world: World, profile: Profile, uid: str, expected: Answer, *but: str) -> None:
    check_same(answer_of(world.tiled, profile, uid), expected, *but)


def is_closed(world: World, profile: Profile, uid: str) -> bool:
    run = find_derived(world.tiled, profile, uid)
    return run is not None and bool(run.metadata.get("stop"))


def test_masks_of_a_thread_equal_those_made_offline_and_stand_where_the_frames_do(
    world: World, inline: Taken
) -> None:
    single_threaded()
    masks = label_all(marked_frames(), world.profile("offline").node, MemoryStore())
    classes = np.stack([mask.classes for mask in masks])
    bits = np.stack([mask.valid_bits for mask in masks if mask.valid_bits is not None])
    check_orientation(classes, bits)
    check_same(inline.thread, inline.thread)
    assert inline.thread.masks.tobytes() == classes.tobytes()
    assert inline.thread.bits.tobytes() == bits.tobytes()
    rows = inline.thread.rows
    assert rows["student_revision"].tolist() == [0] * 5 + [1] * 5 + [2] * 14
    assert rows["raw_seq_num"].tolist() == list(range(1, N + 1))
    assert np.abs(rows["centre_y"].iloc[0] - 33.0) < 1
    assert np.abs(rows["centre_x"].iloc[0] - 66.0) < 1


def test_a_process_of_its_own_gives_the_same(inline: Taken) -> None:
    assert inline.child is not None
    check_same(inline.child, inline.thread)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stepped", "flown"])
def test_a_growing_file_gives_the_same(
    kind: str, inline: Taken, request: pytest.FixtureRequest
) -> None:
    scan: Taken = request.getfixturevalue(kind)
    names = {name for name, _ in scan.documents}
    assert "stream_datum" in names
    assert ("event" in names) == (kind == "stepped")
    check_same(scan.thread, inline.thread)


SCANS = ["inline", pytest.param("stepped", marks=pytest.mark.slow)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["inline", "stepped"])
def test_documents_over_0mq_give_the_same(
    kind: str, world: World, inline: Taken, request: pytest.FixtureRequest
) -> None:
    scan: Taken = request.getfixturevalue(kind)
    profile = world.profile(f"zmq-{kind}")
    with zmq_proxy() as (into, out):
        source = open_source(out, profile.sources, Wanted())
        publisher = Publisher(into, serializer=encode)
        with Node(profile, world.tiled.api_key, lambda _: source) as node:
            check_heard(publisher, node)
            emit(scan.documents, publisher)
            assert eventually(partial(is_closed, world, profile, scan.uid))
        publisher.close()
    check_stored(world, profile, scan.uid, inline.thread)


def check_heard(publisher: Publisher, node: Node) -> None:
    """0MQ joins slowly: send what belongs to no run until it is heard."""

    def heard() -> bool:
        publisher("stop", {"uid": "nobody's", "run_start": "nobody", "exit_status": "success"})
        return node.inbox.number > 0

    assert eventually(heard)


@pytest.mark.slow
def test_documents_over_kafka_give_the_same(world: World, inline: Taken) -> None:
    cluster, profile = MockKafka(), world.profile("kafka")
    options = KafkaOptions("node", "earliest", {"session.timeout.ms": "6000"})
    cluster.send("scan", encode(("stop", {"uid": "nobody's", "run_start": "nobody"})))
    source = KafkaDocuments(f"kafka://{cluster.servers}/scan", options)
    with Node(profile, world.tiled.api_key, lambda _: source):
        emit(inline.documents, lambda name, doc: cluster.send("scan", encode((name, doc))))
        assert eventually(partial(is_closed, world, profile, inline.uid))
        assert eventually(lambda: source.waiting == 0)  # committed: stored
    check_stored(world, profile, inline.uid, inline.thread)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["inline", "stepped"])
def test_a_run_followed_live_in_tiled_gives_the_same(
    kind: str, world: World, inline: Taken, request: pytest.FixtureRequest
) -> None:
    scan: Taken = request.getfixturevalue(kind)
    profile = world.profile(f"live-{kind}")
    container = world.raw(f"live-{kind}")
    options = LiveOptions(poll_seconds=0.5, since="1h")
    source = TiledLive(world.address(f"live-{kind}"), options)
    with Node(profile, world.tiled.api_key, lambda _: source):
        emit(scan.documents, TiledWriter(container, batch_size=1))
        assert eventually(partial(is_closed, world, profile, scan.uid))
    check_stored(world, profile, scan.uid, inline.thread)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["inline", "stepped", "flown"])
def test_a_run_replayed_from_tiled_gives_the_same(
    kind: str, world: World, inline: Taken, request: pytest.FixtureRequest
) -> None:
    scan: Taken = request.getfixturevalue(kind)
    profile = world.profile(f"replay-{kind}")
    label(profile, world.tiled.api_key, TiledReplay(world.address(f"raw/{scan.uid}")))
    check_stored(world, profile, scan.uid, inline.thread, "refilled")


def as_msgpack(documents: list[Named], folder: Path) -> Path:
    emit(documents, DocumentWriter(folder))
    (path,) = folder.glob("*.msgpack")
    return path


def as_json_lines(documents: list[Named], folder: Path) -> Path:
    """Write what Bluesky itself writes, with images as nested lists where there are any."""
    folder.mkdir()
    writer = JSONLinesWriter(str(folder))
    for name, doc in documents:
        writer(name, json.loads(json.dumps(doc, default=lambda array: array.tolist())))
    (path,) = folder.glob("*.jsonl")
    return path


@pytest.mark.parametrize("write", [as_msgpack, as_json_lines])
@pytest.mark.parametrize("kind", SCANS)
def test_recorded_documents_give_the_same(
    kind: str,
    write: Callable[[list[Named], Path], Path],
    world: World,
    inline: Taken,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    scan: Taken = request.getfixturevalue(kind)
    profile = world.profile(f"{write.__name__}-{kind}")
    path = write(scan.documents, tmp_path / "documents")
    source, profile = open_recorded(ReplayArguments([str(path)]), profile)
    label(profile, world.tiled.api_key, source)
    check_stored(world, profile, scan.uid, inline.thread)


def write_frames(path: Path, dataset: str) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(dataset, data=marked_frames(), chunks=(1, *marked_frames().shape[1:]))
    return path


@pytest.mark.parametrize(
    ("name", "dataset"), [("scan.cxi", "entry_1/data_1/data"), ("scan.h5", "measured/frames")]
)
def test_a_file_of_frames_gives_the_same(
    name: str, dataset: str, world: World, inline: Taken, tmp_path: Path
) -> None:
    path = write_frames(tmp_path / name, dataset)
    profile = world.profile(name)
    source, profile = open_recorded(ReplayArguments([str(path)]), profile)
    uids: list[str] = []

    class Noted:
        redelivers = source.redelivers
        stored = source.stored

        def run(self, callback: Any, stopping: Any) -> None:
            def note(kind: str, doc: Any) -> int:
                if kind == "start":
                    uids.append(doc["uid"])
                return callback(kind, doc)

            source.run(note, stopping)

    label(profile, world.tiled.api_key, Noted())
    check_stored(world, profile, uids[0], inline.thread)


def as_yaml(profile: Profile, path: Path) -> Path:
    path.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(profile)))))
    return path


@pytest.mark.slow
def test_evaluate_writes_the_same_masks(world: World, inline: Taken, tmp_path: Path) -> None:
    path = write_frames(tmp_path / "scan.h5", "frames")
    profile = as_yaml(world.profile("evaluate"), tmp_path / "evaluate.yml")
    options = ["--seeds", "1", "--quick", "--profile", str(profile)]
    masks = tmp_path / "masks.h5"
    arguments = ["evaluate", f"{path}:/frames", *options, "--masks", str(masks)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    with h5py.File(masks) as file:
        assert file["mask"][:].tobytes() == inline.thread.masks.tobytes()


@pytest.mark.slow
def test_the_command_run_gives_the_same_and_ends_at_sigterm(
    world: World, inline: Taken, tmp_path: Path
) -> None:
    profile = world.profile("command")
    path = as_yaml(profile, tmp_path / "command.yml")
    with zmq_proxy() as (into, out):
        command = [sys.executable, "-m", "ptychoseg_stream", "run", "--source", out]
        node = subprocess.Popen(
            [*command, "--profile", str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        publisher = Publisher(into, serializer=encode)
        try:
            # Nothing waits in 0MQ: say hello until the node has joined.
            def heard() -> bool:
                publisher("start", {"uid": "hello", "time": 1.0})
                return find_derived(world.tiled, profile, "hello") is not None

            assert eventually(heard, 120)
            emit(inline.documents, publisher)
            assert eventually(partial(is_closed, world, profile, inline.uid))
        finally:
            node.send_signal(signal.SIGTERM)
            output = node.communicate(timeout=60)[0].decode()
            publisher.close()
    assert node.returncode == 0, output
    check_stored(world, profile, inline.uid, inline.thread)
