"""A run that is reconstructed while it comes in."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recon_support import Small, revision_of, start_of, stop_of
from test_engine import compare

from ptychoseg_stream.errors import DatasetError, SourceError
from ptychoseg_stream.recon.engine import ENOUGH, ReconOptions
from ptychoseg_stream.recon.live import PATIENT, LiveOptions, ThreadInbox, Update, live
from ptychoseg_stream.recon.picture import draw, draw_ways, without_ramp
from ptychoseg_stream.recon.store import TiledReconstruction
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.feed.items import FrameItem, ProductsItem


class Paced:
    """Brings so many items each time it is asked."""

    def __init__(self, items: list, pace: int) -> None:
        self.items, self.pace = items, pace

    def take(self, *, wait: bool) -> list:
        now, self.items = self.items[: self.pace], self.items[self.pace :]
        return now


def updates(items: list, pace: int, after: int = 3) -> list[Update]:
    inbox = Paced(items, pace)
    return list(live(inbox, ReconOptions(rate=0.02), LiveOptions(after)))


def test_it_begins_with_twelve_frames_once_there_is_a_pupil(small: Small) -> None:
    *frames, products, stop = small.items()
    assert isinstance(products, ProductsItem)
    early = updates([*frames[:10], products, *frames[10:], stop], 10)
    assert ENOUGH <= early[0].step.frames < ENOUGH + 5


def test_it_waits_for_a_pupil_in_vain_and_ends_some_epochs_after_the_run(small: Small) -> None:
    seen = updates(small.items(), 10)
    assert PATIENT <= seen[0].step.frames < PATIENT + 5
    assert [update.ended for update in seen[-4:]] == [False, True, True, True]
    assert seen[-1].last
    assert seen[-1].step.frames == len(small.frames)
    assert [update.step.epoch for update in seen] == list(range(len(seen)))


def test_the_image_is_finished_when_the_scan_is(small: Small) -> None:
    seen = updates(small.items(), 3, after=1)
    assert compare(seen[-1].engine, small).nrmse < 0.3


def test_frames_before_the_start_are_of_another_run(small: Small) -> None:
    items = [small.item(0), stop_of()]
    items = [small.item(0), *small.items()]
    assert updates(items, 40)[-1].come == len(small.frames)


def test_a_run_with_few_frames_is_reconstructed_when_it_is_over(small: Small) -> None:
    items = [x for x in small.items() if not isinstance(x, FrameItem) or x.index < 5]
    seen = updates(items, 200)
    assert [update.step.frames for update in seen] == [5, 5, 5]


def test_a_run_without_positions_says_so(small: Small) -> None:
    items = [start_of(2), small.item(0), small.item(1), stop_of()]
    with pytest.raises(DatasetError, match="of 2 frames none has both a mask and a position"):
        updates(items, 2)
    with pytest.raises(DatasetError, match="no frame has come"):
        updates([start_of(), stop_of()], 1)


def test_revisions_reach_frames_that_came_before(small: Small) -> None:
    bits = np.zeros(small.bits.shape[1:], np.uint16)
    bits[60, 60] = 8
    items = small.items()
    seen = updates([*items[:-1], revision_of(0, len(small.frames), bits), stop_of()], 500, after=1)
    scan = seen[-1].engine._scan  # pyright: ignore
    assert not scan.usable(scan.ready)[:, 60, 60].any()


def test_a_feed_is_read_by_a_thread_while_the_caller_is_busy(small: Small) -> None:
    gate = threading.Event()

    def feed() -> Iterator[Any]:
        yield from small.items()[:-1]
        assert gate.wait(60)
        yield stop_of()

    inbox = ThreadInbox(feed())
    seen = []
    for update in live(inbox, follow=LiveOptions(after=1)):
        seen.append(update)
        if update.step.frames == len(small.frames):
            gate.set()
    assert seen[-1].last


def test_what_a_feed_raises_is_raised_where_it_is_used() -> None:
    def feed() -> Iterator[Any]:
        yield start_of()
        raise SourceError("nobody answers")

    with pytest.raises(SourceError, match="nobody answers"):
        list(live(ThreadInbox(feed())))
    with pytest.raises(DatasetError, match="ended before the run"):
        list(live(ThreadInbox([start_of()])))


def test_pictures_are_written(small: Small, tmp_path: Path) -> None:
    last = updates(small.items(), 500)[-1]
    path = tmp_path / "new" / "picture.png"
    draw(path, last.engine.object, last.engine.probe, [0.3, 0.2], "run 1")
    draw_ways(tmp_path / "ways.png", {"truth": (small.sample, ""), "ours": (small.sample, "x")})
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["picture.png", "ways.png"]


def test_a_ramp_of_the_phase_is_removed() -> None:
    y, x = np.indices((40, 50))
    tilted = np.exp(1j * (0.3 * y - 0.2 * x + 1))
    assert np.abs(np.angle(without_ramp(tilted))).max() < 1e-6


def test_a_reconstruction_grows_in_tiled_beside_the_derived_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with EmbeddedTiled(tmp_path) as server:
        root: Any = server.client()
        for frames in (12, 40):
            stored = TiledReconstruction(root, "processed/masks", "uid", {"derived_run_uid": "uid"})
            for epochs in (2, 5):
                obj = (rng.random((20 + frames, 21)) * 1j).astype(np.complex64)
                probe = rng.random((1, 8, 8)).astype(np.complex64)
                losses = list(np.arange(epochs + frames) / 7)
                stored.write(obj, probe, losses, {"frames": frames})
                node = root["processed/masks_recon/uid"]
                assert (node["object"].read() == obj).all()
                assert (node["probe"].read() == probe).all()
                assert node["error"].read().tolist() == losses
                assert node["object"].metadata["frames"] == frames
        assert list(root["processed"]) == ["masks_recon"]
        assert node.metadata["derived_run_uid"] == "uid"
