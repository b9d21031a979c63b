"""Runs are followed while a real RunEngine writes them to a real Tiled server."""

import logging
import threading

import numpy as np
import pytest
from tiled_support import (
    address_of,
    container_of,
    engine,
    file_detector,
    frames_of,
    inline_detector,
    points,
    running,
    seq_nums,
    until,
    writer,
)

from ptychoseg_stream.errors import SourceError
from ptychoseg_stream.sim.plans import fly_frames
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sources.tiled.documents import Wanted
from ptychoseg_stream.sources.tiled.live import LiveOptions, TiledLive

pytestmark = pytest.mark.usefixtures("api_key")

NOTICED = LiveOptions(poll_seconds=30.0)  # so seldom that only notices can be what is heard
POLLED = LiveOptions(poll_seconds=0.1, websocket=False)
ANY_ROW = Wanted(row_wait=0.2)


def following(server, container, options=POLLED, **more):
    container_of(server, container)
    return running(TiledLive(address_of(server, container), options, ANY_ROW, **more))


@pytest.mark.parametrize("options", [NOTICED, POLLED], ids=["websocket", "polling"])
def test_each_frame_is_delivered_before_the_next_is_taken(tiled_server, container, options):
    frames = frames_of(5)
    seen: list[bool] = []
    with following(tiled_server, container, options) as got:

        def arrived(point: int) -> None:
            if point:
                seen.append(got.wait(lambda got: len(got.events()) >= point))

        scan = engine(writer(tiled_server, container))
        (uid,) = scan(points(inline_detector(frames), 5, arrived))
        assert got.wait(lambda got: got.has_stop(uid))
    assert seen == [True] * 4
    assert got.names() == ["start", "descriptor", *["event"] * 5, "stop"]
    np.testing.assert_array_equal(got.images("det_image"), frames)
    assert seq_nums(got.events()) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("options", [NOTICED, POLLED], ids=["websocket", "polling"])
def test_frames_in_a_growing_file_are_delivered_as_they_are_announced(
    tiled_server, container, detector_files, options
):
    frames = frames_of(4, seed=1)
    seen: list[bool] = []
    with following(tiled_server, container, options) as got:

        def arrived(point: int) -> None:
            if point:
                seen.append(got.wait(lambda got: len(got.events()) >= point))

        detector = file_detector(frames, detector_files, f"growing-{options.websocket}")
        (uid,) = engine(writer(tiled_server, container))(points(detector, 4, arrived))
        assert got.wait(lambda got: got.has_stop(uid))
    assert seen == [True] * 3
    np.testing.assert_array_equal(got.images("cam"), frames)


def test_a_fly_scan_without_any_event_is_delivered(tiled_server, container, detector_files):
    frames = frames_of(6, seed=2)
    with following(tiled_server, container) as got:
        detector = file_detector(frames, detector_files, "flying")
        (uid,) = engine(writer(tiled_server, container))(fly_frames(detector, 6))
        assert got.wait(lambda got: got.has_stop(uid))
    np.testing.assert_array_equal(got.images("cam"), frames)
    assert seq_nums(got.events()) == [1, 2, 3, 4, 5, 6]


def test_a_writer_that_collects_shows_nothing_before_the_end_and_loses_nothing(
    tiled_server, container
):
    frames = frames_of(5)
    before: list[int] = []
    with following(tiled_server, container) as got:

        def look(point: int) -> None:
            if point == 4:
                assert got.wait(lambda got: "descriptor" in got.names())
                before.append(len(got.events()))

        scan = engine(writer(tiled_server, container, batch_size=10_000))
        (uid,) = scan(points(inline_detector(frames), 5, look))
        assert got.wait(lambda got: got.has_stop(uid))
    assert before == [0]
    np.testing.assert_array_equal(got.images("det_image"), frames)


def test_who_comes_late_gets_the_open_run_from_its_first_frame_and_no_run_that_ended(
    tiled_server, container
):
    frames = frames_of(8)
    detector = inline_detector(frames)
    scan = engine(writer(tiled_server, container))
    scan(points(detector, 2))
    with running(TiledLive(address_of(tiled_server, container), POLLED)) as _:
        pass  # the source can be ended at any time
    gate, came = threading.Event(), threading.Event()

    def hold(point: int) -> None:
        if point == 3:
            came.set()
            assert gate.wait(60)

    scanning = threading.Thread(target=scan, args=(points(detector, 6, hold),))
    scanning.start()
    try:
        assert came.wait(60)
        with following(tiled_server, container) as got:
            assert got.wait(lambda got: len(got.events()) == 3)
            gate.set()
            assert got.wait(lambda got: "stop" in got.names())
        first = [event["uid"] for event in got.events()]
        np.testing.assert_array_equal(got.images("det_image"), frames[2:])
    finally:
        gate.set()
        scanning.join()
    # A node that was killed meanwhile asks for the run, which has ended; the uids are the same.
    run = got.documents[0][1]["uid"]
    with following(tiled_server, container, also=[run]) as again:
        assert again.wait(lambda got: got.has_stop(run))
    assert [event["uid"] for event in again.events()] == first
    assert again.names().count("start") == 1
    with following(tiled_server, container, LiveOptions(since="1h", websocket=False)) as both:
        assert both.wait(lambda got: got.names().count("stop") == 2)
    assert [len(both.events(doc["uid"])) for n, doc in both.documents if n == "start"] == [2, 6]


def test_runs_made_of_other_runs_are_left_out(tiled_server, container):
    scan = engine(writer(tiled_server, container))
    detector = inline_detector(frames_of(4))
    with following(tiled_server, container) as got:
        scan(points(detector, 1, md={"original_run_uid": "a"}))
        (uid,) = scan(points(detector, 2))
        assert got.wait(lambda got: got.has_stop(uid))
    assert [doc["uid"] for name, doc in got.documents if name == "start"] == [uid]


def test_interleaved_runs_are_delivered_each_in_order(tiled_server, container):
    frames = frames_of(4)
    with following(tiled_server, container) as got:
        other = engine(writer(tiled_server, container))
        plan = points(inline_detector(frames[::-1]), 3)

        def meanwhile(point: int) -> None:
            if point == 2:
                scanning = threading.Thread(target=other, args=(plan,))
                scanning.start()
                scanning.join()

        (outer,) = engine(writer(tiled_server, container))(
            points(inline_detector(frames), 4, meanwhile)
        )
        assert got.wait(lambda got: got.has_stop(outer) and got.names().count("stop") == 2)
    (inner,) = [doc["uid"] for n, doc in got.documents if n == "start" and doc["uid"] != outer]
    np.testing.assert_array_equal(got.images("det_image", outer), frames)
    np.testing.assert_array_equal(got.images("det_image", inner), frames[::-1][:3])


@pytest.mark.slow
def test_a_server_that_is_restarted_in_the_middle_costs_nothing(tmp_path, monkeypatch, caplog):
    frames = frames_of(6)
    server = EmbeddedTiled(tmp_path)
    monkeypatch.setenv("TILED_API_KEY", server.api_key)
    with server, caplog.at_level(logging.WARNING):
        port = int(server.uri.rsplit(":", 1)[1])
        options = LiveOptions(poll_seconds=0.1, timeout=2.0)
        with following(server, "raw", options) as got:

            def restart(point: int) -> None:
                if point == 3:
                    assert got.wait(lambda got: len(got.events()) == 3)
                    server._end_process()
                    assert until(lambda: "does not answer" in caplog.text)
                    assert server._launch(port)

            (uid,) = engine(writer(server))(points(inline_detector(frames), 6, restart))
            assert got.wait(lambda got: got.has_stop(uid))
    np.testing.assert_array_equal(got.images("det_image"), frames)
    assert got.names() == ["start", "descriptor", *["event"] * 6, "stop"]
    assert "answers again" in caplog.text


def test_a_container_that_is_not_there_is_an_error(tiled_server):
    with (
        pytest.raises(SourceError, match="no such node"),
        running(TiledLive(address_of(tiled_server, "nowhere"), POLLED)),
    ):
        assert until(lambda: "source under test" not in {t.name for t in threading.enumerate()})


@pytest.mark.parametrize(
    ("field", "value"),
    [("timeout", 0), ("poll_seconds", 0), ("open_hours", -1), ("since", "soon")],
)
def test_options_that_make_no_sense_are_refused(field, value):
    with pytest.raises(ValueError, match=f"^{field}: "):
        LiveOptions(**{field: value})


class WithoutNotices(EmbeddedTiled):
    """A server that was started without a cache for notices, as by default from a config file."""

    def _config(self, port: int) -> dict[str, object]:
        config = super()._config(port)
        del config["streaming_cache"]
        return config


@pytest.mark.slow
def test_a_server_without_notices_is_polled_and_that_is_said_once(tmp_path, monkeypatch, caplog):
    frames = frames_of(3)
    with WithoutNotices(tmp_path) as server, caplog.at_level(logging.WARNING):
        monkeypatch.setenv("TILED_API_KEY", server.api_key)
        with following(server, "raw", LiveOptions(poll_seconds=0.1)) as got:
            assert until(lambda: "sends no notices" in caplog.text)
            (uid,) = engine(writer(server))(points(inline_detector(frames), 3))
            assert got.wait(lambda got: got.has_stop(uid))
    np.testing.assert_array_equal(got.images("det_image"), frames)
    assert caplog.text.count("sends no notices") == 1
