"""The composition root: the only place where parts are wired together."""

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from ptychoseg_callbacks.ingress import Ingress
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.segmentation import Segmentation, SegmentationOptions
from ptychoseg_callbacks.workers.process import ProcessWorker
from ptychoseg_callbacks.workers.thread import ThreadWorker
from ptychoseg_callbacks.workers.worker import Worker
from threadpoolctl import threadpool_limits
from tiled.client.container import Container

from .errors import ProfileError
from .node.node import Node
from .node.ports import Feed, RawStore
from .node.store import FolderStore, MemoryStore, Store
from .node.trainer import BackgroundTrainer, InlineTrainer, Trainer
from .profile import EMBEDDED, Profile, load_profile
from .provenance import describe_with
from .science.frame import METHODS, Method
from .sinks.connection import connect, translated, without_key
from .sinks.embedded import EmbeddedTiled
from .sinks.feed.server import FeedServer
from .sinks.tiled import TiledSink
from .sources.arrays.pixel_mask import read_pixel_mask
from .sources.tiled.raw import TiledRaw

CHILD = "ptychoseg_stream.child"


class Attachment(Ingress):
    """A node attached to a RunEngine: ``RE.subscribe(attach("demo"))``.

    A callback, and a handle: `vitals` says how it is doing, `wait` until masks are stored, `client`
    opens the container of derived runs, `close` ends it (so does the end of Python, after the last
    masks are stored).

    Parameters
    ----------
    profile : Profile
        With the address of a real server.
    worker : Worker
        Labels.
    api_key : str
        Of the server; empty: what the environment holds.
    server : EmbeddedTiled or None
        Ended with the attachment.
    """

    def __init__(
        self,
        profile: Profile,
        worker: Worker,
        api_key: str = "",
        server: EmbeddedTiled | None = None,
    ) -> None:
        super().__init__(worker)
        self.profile = profile
        self.worker = worker
        self._api_key = api_key
        self._server = server
        self._root: Container | None = None

    def client(self) -> Container:
        """Return a Tiled client of the container that holds the derived runs.

        It can be used until `close`.

        Raises
        ------
        StoreError
            If the server does not answer or refuses.
        KeyError
            If there is no such container yet: the first run makes it.
        """
        tiled = self.profile.tiled
        if self._root is None:
            key = self._api_key or os.environ.get(tiled.api_key_env, "")
            with translated(tiled.uri, tiled.api_key_env):
                self._root = connect(tiled.uri, key, tiled.timeout)
        root: Any = self._root
        return root[tiled.container.strip("/")]

    def close(self, timeout: float | None = None) -> None:
        """Store what is under way, then end the worker and the embedded server."""
        super().close(timeout)
        if self._root is not None:
            self._root.context.http_client.close()
            self._root = None
        if self._server is not None:
            self._server.stop()


def attach(profile: "str | os.PathLike[str] | Profile") -> Attachment:
    """Start a node for a RunEngine: ``RE.subscribe(attach("demo"))``.

    Parameters
    ----------
    profile : str, path or Profile
        Name of a profile, its file, or the object.

    Returns
    -------
    Attachment
        The callback to subscribe.

    Raises
    ------
    ProfileError
        If the profile cannot be used.
    StoreError
        If the embedded server does not start.
    """
    settings = load_profile(profile)
    if settings.tiled.uri != EMBEDDED:
        return attach_to(settings)
    server = EmbeddedTiled()
    server.start()
    settings = with_server(settings, server)
    sys.stderr.write(
        f"ptychoseg: masks go to an embedded Tiled server, {server.uri}, that ends with Python "
        "(profile: tiled.uri)\n"
    )
    return attach_to(settings, server.api_key, server)


def with_server(profile: Profile, server: EmbeddedTiled) -> Profile:
    """Return a profile whose masks, and what waits for Tiled, end with an embedded server."""
    spool = replace(profile.spool, folder=str(server.folder / "spool"))
    return replace(profile, tiled=replace(profile.tiled, uri=server.uri), spool=spool)


def attach_to(
    profile: Profile, api_key: str = "", server: EmbeddedTiled | None = None
) -> Attachment:
    """Start a node that writes to the server of the profile.

    Parameters
    ----------
    profile : Profile
        With the address of a server that runs.
    api_key : str
        Of the server; empty: what the environment variable of the profile holds.
    server : EmbeddedTiled, optional
        Ended with the attachment.
    """
    if profile.overload.policy == "wait":
        raise ProfileError(
            f"profile {profile.name}: overload.policy wait would make the RunEngine wait; choose "
            "spill or teacher-only, or feed the node with `ptychoseg run`"
        )
    secrets = {profile.tiled.api_key_env: api_key} if api_key else {}
    if profile.own_process:
        worker: Worker = ProcessWorker(
            [sys.executable, "-P", "-m", CHILD],
            {"profile": json.loads(json.dumps(asdict(profile)))},
            # One thread per library: two cores have a scan to run besides.
            {**secrets, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            resumes=profile.spool.journal,
        )
    else:
        raw = build_raw(profile)
        worker = ThreadWorker(
            lambda: build_segmentation(profile, api_key, raw),
            inbox=lambda: build_inbox(profile, raw, later=True),
        )
    return Attachment(profile, worker, api_key, server)


def build_raw(profile: Profile) -> TiledRaw | None:
    """Return the store of raw runs that a profile names, if it names one."""
    return TiledRaw(profile.raw) if profile.raw.uri else None


def build_inbox(
    profile: Profile, raw: RawStore | None, purpose: str = "", later: bool = False
) -> Inbox:
    """Return the queue of documents of a node; runs that an earlier node left come first.

    Parameters
    ----------
    profile : Profile
    raw : RawStore or None
        Asked for the beginning of runs that were missed.
    purpose : str
        Nodes of one profile and different purposes leave each other's runs alone.
    later : bool
        Whether runs that an earlier node left are read by `Inbox.recover`, and not now.
    """
    owner = f"{profile.name} {purpose}".strip()
    journals = Journals(profile.spool, owner=owner) if profile.spool.journal else None
    return Inbox(journals, profile.overload, raw, later=later)


def build_segmentation(
    profile: Profile, api_key: str = "", raw: RawStore | None = None
) -> Segmentation:
    """Wire a pipeline that writes to Tiled; it lives on the thread that feeds it."""
    single_threaded()
    sink = TiledSink(profile.tiled, profile.spool, api_key=api_key)
    options = replace(
        profile.node,
        also=tuple(dict.fromkeys([*profile.node.also, *_alternatives(profile)])),
        confidence=profile.node.confidence or "confidence" in profile.tiled.arrays,
    )
    user = read_pixel_mask(profile.pixel_mask) if profile.pixel_mask else None
    segmentation: Segmentation

    def make_trainer() -> Trainer:
        if profile.trainer == "background":
            return BackgroundTrainer(options.student, promotion=options.promotion)
        # Frames wait for an inline stage: let who watches see that it goes on.
        return InlineTrainer(options.student, lambda _: segmentation.heartbeat(), options.promotion)

    node = Node(options, make_trainer, make_store(profile), user)
    segmentation = Segmentation(
        node,
        sink,
        describe_with(profile, user),
        SegmentationOptions(
            profile.frames,
            profile.batch,
            idle_timeout=profile.idle_timeout,
            checkpoint_frames=profile.spool.checkpoint_frames,
            products_every=profile.products_every,
        ),
        raw=raw,
        feed=build_feed(profile),
    )
    return segmentation


def build_feed(profile: Profile) -> Feed | None:
    """Return the live feed that a profile asks for, if it does; it lives on a thread of its own.

    Raises
    ------
    ProfileError
        If its keys cannot be used.
    """
    if not profile.feed.wanted:
        return None
    tiled = f"{without_key(profile.tiled.uri).rstrip('/')}/{profile.tiled.container.strip('/')}"
    return FeedServer(profile.feed, profile.spool, tiled)


def make_store(profile: Profile) -> Store:
    """Return the cache that a profile asks for."""
    return FolderStore(Path(profile.cache).expanduser()) if profile.cache else MemoryStore()


def single_threaded() -> None:
    """Have numerical libraries use one thread each.

    For 104x104 frames threads cost more than they bring, and results would depend, in the last
    bit, on how many there are: live and replayed masks must be the same.
    """
    torch.set_num_threads(1)
    threadpool_limits(1)


def _alternatives(profile: Profile) -> list[Method]:
    return [name for name in METHODS if name in profile.tiled.arrays]
