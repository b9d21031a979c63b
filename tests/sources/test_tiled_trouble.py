"""A Tiled server that refuses, is slow, or has a run in trouble: a proxy before it makes it so."""

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from faulty_proxy import FaultyProxy
from tiled_support import (
    Collected,
    container_of,
    engine,
    frames_of,
    inline_detector,
    points,
    replayed,
    running,
    until,
    writer,
)

from ptychoseg_stream.errors import SourceError, SourceLost
from ptychoseg_stream.sources.tiled.blocks import BLOCK_BYTES, Blocks
from ptychoseg_stream.sources.tiled.documents import Wanted
from ptychoseg_stream.sources.tiled.live import LiveOptions, TiledLive
from ptychoseg_stream.sources.tiled.replay import ReplayOptions, TiledReplay

pytestmark = pytest.mark.usefixtures("api_key")

OPTIONS = LiveOptions(poll_seconds=0.05, websocket=False, since="1h")
QUICK = ReplayOptions(attempts=3, retry_wait=0.01)
REFUSALS = [401, 403, 404]


@pytest.fixture
def proxy(tiled_server) -> Iterator[FaultyProxy]:
    with FaultyProxy(tiled_server.uri) as proxy:
        yield proxy


def through(proxy: FaultyProxy, path: str) -> str:
    return proxy.uri.replace("http://", "tiled://") + "/" + path


def live(proxy: FaultyProxy, container: str, options=OPTIONS, **wanted: float) -> TiledLive:
    return TiledLive(through(proxy, container), options, Wanted(row_wait=0.2, **wanted))


@contextmanager
def failing(proxy: FaultyProxy, status: int, part: str = "") -> Iterator[None]:
    """Have requests fail whose path holds something."""
    proxy.chosen = lambda method, path: part in path
    proxy.status = status
    try:
        yield
    finally:
        proxy.mend()


def asked(proxy: FaultyProxy, part: str = "") -> int:
    return sum(part in request for request in list(proxy.requests))


def taken(server, container: str, count: int, seed: int = 0) -> tuple[str, np.ndarray]:
    """Take a scan; return its uid and frames."""
    frames = frames_of(count, seed=seed)
    (uid,) = engine(writer(server, container))(points(inline_detector(frames), count))
    return uid, frames


def stop_of(got: Collected, uid: str) -> dict:
    return next(doc for name, doc in got.of(uid) if name == "stop")


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_is_told_at_once_when_the_server_is_first_asked(
    tiled_server, container, proxy, status
):
    container_of(tiled_server, container)
    with failing(proxy, status):
        with pytest.raises(SourceError, match=str(status)) as told:
            live(proxy, container).run(lambda *_: 1, threading.Event())
        assert told.value.exit_code == 2
        with pytest.raises(SourceError, match=str(status)) as told:
            replayed(TiledReplay(through(proxy, container), options=QUICK))
        assert told.value.exit_code == 2
    assert len(proxy.requests) <= 3


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_of_a_server_that_has_worked_is_an_outage(
    tiled_server, container, proxy, status, caplog
):
    frames = frames_of(6)
    container_of(tiled_server, container)
    with (
        caplog.at_level(logging.WARNING),
        running(live(proxy, container, read_wait=1.0)) as got,
    ):

        def refuse(point: int) -> None:
            if point == 3:
                assert got.wait(lambda got: len(got.events()) == 3)
                with failing(proxy, status):
                    before = asked(proxy)
                    assert until(lambda: asked(proxy) > before + 25)  # for longer than read_wait

        scan = engine(writer(tiled_server, container))
        (uid,) = scan(points(inline_detector(frames), 6, refuse))
        assert got.wait(lambda got: got.has_stop(uid))
    np.testing.assert_array_equal(got.images("det_image"), frames)
    assert stop_of(got, uid)["exit_status"] == "success"
    assert len(re.findall(rf"\({status}\).*asked again", caplog.text)) <= 2  # server, and run
    assert "answers again" in caplog.text


def test_a_run_that_is_refused_for_a_moment_is_gone_on_with(tiled_server, container, proxy):
    frames = frames_of(6)
    container_of(tiled_server, container)
    with running(live(proxy, container, read_wait=60.0)) as got:
        uids: list[str] = []

        def refuse(point: int) -> None:
            if point == 3:
                assert got.wait(lambda got: len(got.events()) == 3)
                uids.append(got.documents[0][1]["uid"])
                with failing(proxy, 404, uids[0]):
                    before = asked(proxy, uids[0])
                    assert until(lambda: asked(proxy, uids[0]) > before + 2)

        engine(writer(tiled_server, container))(points(inline_detector(frames), 6, refuse))
        assert got.wait(lambda got: got.has_stop(uids[0]))
    np.testing.assert_array_equal(got.images("det_image"), frames)
    assert stop_of(got, uids[0])["exit_status"] == "success"


def test_a_run_that_stays_refused_ends_as_failed_and_others_go_on(
    tiled_server, container, proxy, caplog
):
    frames = frames_of(4)
    container_of(tiled_server, container)
    with running(live(proxy, container, read_wait=0.5)) as got:
        uids: list[str] = []

        def refuse(point: int) -> None:
            if point == 2:
                assert got.wait(lambda got: len(got.events()) == 2)
                uids.append(got.documents[0][1]["uid"])
                proxy.chosen = lambda method, path: uids[0] in path
                proxy.status = 403

        engine(writer(tiled_server, container))(points(inline_detector(frames), 4, refuse))
        assert got.wait(lambda got: got.has_stop(uids[0]))
        other, more = taken(tiled_server, container, 3, seed=1)
        assert got.wait(lambda got: got.has_stop(other))
    stop = stop_of(got, uids[0])
    assert (stop["exit_status"], stop["num_events"]) == ("fail", {"primary": 2})
    assert "refuses (403)" in stop["reason"]
    np.testing.assert_array_equal(got.images("det_image", other), more)
    assert caplog.text.count("is followed no more") == 1


@pytest.mark.parametrize("status", [-1, 500])
def test_a_run_in_trouble_does_not_keep_others_waiting(tiled_server, container, proxy, status):
    bad, frames = taken(tiled_server, container, 3)
    with running(live(proxy, container)) as got, failing(proxy, status, f"/{bad}"):
        assert until(lambda: asked(proxy, bad) > 1)
        others = [taken(tiled_server, container, 3, seed) for seed in (1, 2)]
        for uid, more in others:
            assert got.wait(lambda got, uid=uid: got.has_stop(uid))
            np.testing.assert_array_equal(got.images("det_image", uid), more)
        assert not got.of(bad)
        proxy.mend()
        assert got.wait(lambda got: got.has_stop(bad))
    np.testing.assert_array_equal(got.images("det_image", bad), frames)


def test_a_long_run_and_one_who_takes_slowly_do_not_keep_others_waiting(
    tiled_server, container, proxy
):
    long, frames = taken(tiled_server, container, 90)
    short, more = taken(tiled_server, container, 2, seed=1)
    late = threading.Event()

    class Slow(Collected):
        def __call__(self, name, doc):
            late.wait(0.1)  # 90 frames take 9 s, several turns
            return super().__call__(name, doc)

    got, stopping = Slow(), threading.Event()
    thread = threading.Thread(target=live(proxy, container).run, args=(got, stopping))
    thread.start()
    try:
        assert got.wait(lambda got: got.has_stop(short))
        assert not got.has_stop(long)
        late.set()
        assert got.wait(lambda got: got.has_stop(long))
    finally:
        stopping.set()
        thread.join()
    np.testing.assert_array_equal(got.images("det_image", long), frames)
    np.testing.assert_array_equal(got.images("det_image", short), more)
    assert [doc["seq_num"] for doc in got.events(long)] == list(range(1, 91))


def test_runs_that_have_ended_are_not_all_begun_at_once(tiled_server, container, proxy):
    uids = [taken(tiled_server, container, 70, seed)[0] for seed in range(6)]  # two looks each
    with running(live(proxy, container)) as got:
        assert got.wait(lambda got: got.names().count("stop") == 6)
    names = [(name, doc.get("uid")) for name, doc in got.documents if name in ("start", "stop")]
    first_stop = [name for name, _ in names].index("stop")
    assert first_stop <= 5
    assert {doc["uid"] for name, doc in got.documents if name == "start"} == set(uids)
    assert {len(got.events(uid)) for uid in uids} == {70}


def rows_asked(path: str) -> int:
    found = re.search(r"array/full.*slice=(\d+)(?:%3A|:)(\d+)", path)
    return int(found[2]) - int(found[1]) if found else 0


@pytest.mark.parametrize("most", [2, 0], ids=["large blocks", "every frame"])
@pytest.mark.parametrize("source", ["live", "replay"])
def test_images_that_come_too_late_are_asked_for_in_smaller_blocks_and_with_more_time(
    tiled_server, container, proxy, source, most
):
    uid, frames = taken(tiled_server, container, 9)
    proxy.delay = 0.8
    proxy.chosen = lambda method, path: rows_asked(path) > most
    timeout = 0.5
    if source == "live":
        options = LiveOptions(timeout=timeout, poll_seconds=0.05, websocket=False, since="1h")
        with running(live(proxy, container, options)) as got:
            assert got.wait(lambda got: got.has_stop(uid))
    else:
        options = ReplayOptions(timeout=timeout, attempts=99, retry_wait=0.01)
        got = replayed(TiledReplay(through(proxy, container), options=options))
    np.testing.assert_array_equal(got.images("det_image"), frames)
    asked_for = [rows for rows in map(rows_asked, proxy.requests) if rows]
    assert asked_for[0] == 9
    assert min(asked_for) <= max(1, most)


def test_blocks_shrink_to_what_comes_in_time_and_grow_again():
    blocks = Blocks(timeout=4.0, patience=8.0)
    assert blocks.rows(1 << 20, 1) == 32
    blocks.late(32 << 20)
    assert blocks.rows(1 << 20, 1) == 16
    blocks.came(16 << 20, 3.0)  # in time, and not so quickly that more would be
    assert blocks.rows(1 << 20, 1) == 16
    for _ in range(6):
        blocks.late(1 << 20)
    assert blocks.rows(1 << 20, 1) == 1
    assert blocks.seconds(1 << 20) == 32.0  # a frame that cannot be divided has more time
    assert blocks.seconds(16) == 4.0
    for _ in range(30):
        blocks.came(1 << 25, 0.1)
    assert blocks.bytes == BLOCK_BYTES


# ---- replay


def test_a_run_that_is_refused_is_left_out_of_a_replay_and_the_others_come(
    tiled_server, container, proxy
):
    taking = [taken(tiled_server, container, 3, seed) for seed in range(3)]
    bad = taking[1][0]
    source = TiledReplay(through(proxy, container), options=QUICK, wanted=Wanted(read_wait=0.0))
    with failing(proxy, 403, f"/{bad}"):
        got = replayed(source)
    assert [doc["uid"] for name, doc in got.documents if name == "start"] == [
        taking[0][0],
        taking[2][0],
    ]
    for uid, frames in taking[::2]:
        np.testing.assert_array_equal(got.images("det_image", uid), frames)
    (why,) = source.left_out
    assert bad in why
    assert "(403)" in why


@pytest.mark.parametrize("status", [500, -1])
def test_a_run_that_breaks_in_the_middle_ends_as_failed_and_the_others_come(
    tiled_server, container, proxy, status
):
    (bad, _), (good, frames) = (taken(tiled_server, container, 70, seed) for seed in range(2))
    source = TiledReplay(through(proxy, container), options=QUICK)
    got, stopping = Collected(), threading.Event()

    def take(name, doc):
        if name == "event" and doc["seq_num"] == 64 and not got.has_stop(bad):
            proxy.chosen = lambda method, path: bad in path
            proxy.status = status
        return got(name, doc)

    source.run(take, stopping)
    assert stop_of(got, bad)["exit_status"] == "fail"
    assert stop_of(got, bad)["num_events"] == {"primary": 64}
    np.testing.assert_array_equal(got.images("det_image", good), frames)
    assert [bad in why for why in source.left_out] == [True]


@pytest.mark.parametrize("status", [500, 401, 404, -1])
def test_the_list_of_runs_is_asked_for_again(tiled_server, container, proxy, status):
    uids = [taken(tiled_server, container, 2, seed)[0] for seed in range(2)]
    failed: list[str] = []

    def twice(method: str, path: str) -> bool:
        if "/search/" in path and container in path and len(failed) < 2:
            failed.append(path)
            return True
        return False

    proxy.chosen, proxy.status = twice, status
    got = replayed(TiledReplay(through(proxy, container), options=QUICK))
    assert len(failed) == 2
    assert [doc["uid"] for name, doc in got.documents if name == "start"] == uids


@pytest.mark.parametrize("status", [401, -1])
def test_a_server_that_fails_for_good_in_the_middle_ends_the_replay_with_exit_code_1(
    tiled_server, container, proxy, status
):
    uid, _ = taken(tiled_server, container, 70)
    got = Collected()

    def take(name, doc):
        proxy.status = status if name == "event" and doc["seq_num"] == 64 else 0
        return got(name, doc)

    source = TiledReplay(through(proxy, container), options=QUICK, wanted=Wanted(read_wait=0.0))
    if status == 401:  # of a run it is believed, and the server is asked for the next one
        source.run(take, threading.Event())
        assert uid in source.left_out[0]
        return
    with pytest.raises(SourceLost) as told:
        source.run(take, threading.Event())
    assert told.value.exit_code == 1
    assert len(got.events(uid)) == 64
    assert not got.has_stop(uid)  # it waits on disk; the same command goes on


def test_a_uid_that_is_not_there_is_told_before_anything_is_replayed(
    tiled_server, container, proxy
):
    uid, _ = taken(tiled_server, container, 2)
    got = Collected()
    with pytest.raises(SourceError, match="has no run mistyped") as told:
        TiledReplay(through(proxy, f"{container}/{uid},mistyped"), options=QUICK).run(
            got, threading.Event()
        )
    assert told.value.exit_code == 2
    assert got.documents == []
