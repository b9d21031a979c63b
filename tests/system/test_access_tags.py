"""Access tags of a raw run in Tiled, and who can read its masks: a server of many users."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from bluesky_tiled_plugins import TiledWriter
from many_users import EVERYBODY, ManyUsers
from tiled.client import from_uri
from tiled.queries import Key
from ways_support import Node, eventually, label, marked_frames, run_engine

from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.profile import Profile, load_profile
from ptychoseg_stream.sim.detectors import PlayedDetector
from ptychoseg_stream.sim.plans import take_frames
from ptychoseg_stream.sinks.connection import SCOPES
from ptychoseg_stream.sources.tiled.live import LiveOptions, TiledLive
from ptychoseg_stream.sources.tiled.replay import TiledReplay

pytestmark = pytest.mark.slow

FRAMES = 4
SECRET = "proposal-7"
READ = ("read:metadata", "read:data")
WRITE = tuple(SCOPES.split(", "))


@dataclass(frozen=True)
class World:
    """A server where alice may see and do everything, and bob may read what is for everybody."""

    server: ManyUsers
    folder: Path
    alice: str  # API keys
    bob: str

    @contextmanager
    def root(self, key: str) -> Iterator[Any]:
        client = from_uri(self.server.uri, api_key=key, remember_me=False, trust_env=False)
        try:
            yield client
        finally:
            client.context.close()

    def address(self, path: str) -> str:
        return self.server.uri.replace("http://", "tiled://") + "/" + path

    def profile(self, way: str) -> Profile:
        base = load_profile("demo")
        return replace(
            base,
            node=NodeOptions(stages=()),
            tiled=replace(base.tiled, uri=self.server.uri, container=f"masks/{way}"),
            spool=SpoolOptions(str(self.folder / way), min_free_bytes=0),
        )

    def take(self, container: str, tag: str) -> str:
        """Write a raw run that has a tag; return its uid."""
        detector = PlayedDetector(marked_frames()[:FRAMES], name="det")
        with self.root(self.alice) as root, run_engine() as engine:
            engine.subscribe(TiledWriter(root[container], batch_size=1))
            (uid,) = engine(take_frames(detector, FRAMES), tiled_access_tags=[tag])
        return str(uid)

    def derived(self, profile: Profile, raw_uid: str, key: str) -> Any:
        """Return tags and masks of the derived run of a raw one, as the owner of a key sees it."""
        with self.root(key) as root:
            found = root[profile.tiled.container].search(Key("start.original_run_uid") == raw_uid)
            seen = [
                (node.item["attributes"]["access_tags"], node.metadata.get("stop") is not None)
                for node in found.values()
            ]
            ended = all(stop for _, stop in seen)
            runs = found.values() if ended else ()
            masks = [node["primary"].base["mask"].read().shape for node in runs]
        return seen, masks


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("tags")
    with ManyUsers(folder / "server", strict=True) as server:
        server.grant(EVERYBODY, "alice", WRITE, owner=True)
        server.grant(EVERYBODY, "bob", READ)
        server.grant(SECRET, "alice", WRITE, owner=True)
        world = World(server, folder, server.key(WRITE), server.key(READ, "bob"))
        with world.root(world.alice) as root:
            for path in ("raw", "raw/live", "raw/replay", "masks", "masks/live", "masks/replay"):
                *above, name = path.split("/")
                parent = root[above[0]] if above else root
                parent.create_container(name, access_tags=[EVERYBODY])
        yield world


def replayed(world: World, profile: Profile, taken: Callable[[], list[str]]) -> list[str]:
    uids = taken()
    for uid in uids:
        label(profile, world.alice, TiledReplay(world.address(f"raw/replay/{uid}")))
    return uids


def labelled_live(world: World, profile: Profile, taken: Callable[[], list[str]]) -> list[str]:
    source = TiledLive(world.address("raw/live"), LiveOptions(poll_seconds=0.5, since="1h"))
    with Node(profile, world.alice, lambda _: source):
        uids = taken()
        for uid in uids:
            assert eventually(lambda uid=uid: stops(world, profile, uid) == [True])
    return uids


def stops(world: World, profile: Profile, uid: str) -> list[bool]:
    return [ended for _, ended in world.derived(profile, uid, world.alice)[0]]


@pytest.mark.parametrize("way", [replayed, labelled_live])
def test_masks_have_the_tags_of_the_raw_run_and_are_kept_from_who_may_not_read_that(
    world: World, monkeypatch: pytest.MonkeyPatch, way: Callable[..., list[str]]
) -> None:
    monkeypatch.setenv("TILED_API_KEY", world.alice)
    name = "replay" if way is replayed else "live"
    profile = world.profile(name)
    tags = (SECRET, EVERYBODY)
    uids = way(world, profile, lambda: [world.take(f"raw/{name}", tag) for tag in tags])
    for uid, tag in zip(uids, tags, strict=True):
        seen, masks = world.derived(profile, uid, world.alice)
        assert seen == [([tag], True)]
        assert [shape[0] for shape in masks] == [FRAMES]
    secret, public = (world.derived(profile, uid, world.bob) for uid in uids)
    assert secret == ([], [])
    assert [tags for tags, _ in public[0]] == [[EVERYBODY]]
    assert [shape[0] for shape in public[1]] == [FRAMES]


def test_a_node_of_masks_that_may_not_be_read_is_not_there_by_its_address_either(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILED_API_KEY", world.alice)
    profile = world.profile("replay")
    uid = world.take("raw/replay", SECRET)
    label(profile, world.alice, TiledReplay(world.address(f"raw/replay/{uid}")))
    with world.root(world.alice) as root:
        found = root["masks"]["replay"].search(Key("start.original_run_uid") == uid)
        (derived,) = found.keys()
    with world.root(world.bob) as root, pytest.raises(KeyError):
        root["masks"]["replay"][derived]["primary"].base["mask"].read()
