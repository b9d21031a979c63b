"""When documents of a replay are due, on a clock that the tests turn."""

import json
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from replay_support import asymmetric

from ptychoseg_stream.errors import SourceError
from ptychoseg_stream.sources.recorded.frame_count import FrameCounter
from ptychoseg_stream.sources.recorded.pace import Pace, Pacer
from ptychoseg_stream.sources.recorded.replay import ReplayOptions, open_replay

IMAGE = {"dtype": "array", "shape": [12, 16], "source": "test"}
FILED = {"dtype": "array", "shape": [1, 12, 16], "source": "test", "external": "STREAM:"}


class HandClock:
    """A clock that only waiting moves; it can be told to stop somebody at a time."""

    def __init__(self, stop_at: float = float("inf")) -> None:
        self.now = 1000.0
        self.stop_at = 1000.0 + stop_at
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, stopping: threading.Event, seconds: float) -> bool:
        assert seconds > 0
        self.waits.append(seconds)
        self.now += seconds
        if self.now >= self.stop_at:
            stopping.set()
        return stopping.is_set()


def due(documents: list[tuple[str, Any]], pace: Pace, **clock: Any) -> list[tuple[float, str]]:
    """Return when each document comes [s], and its kind."""
    hand = HandClock(**clock)
    pacer = Pacer(pace, FrameCounter(), hand, hand.wait)
    return [
        (round(hand.now - 1000.0, 6), name) for name, _ in pacer.of(documents, threading.Event())
    ]


def start(at: float, uid: str = "r") -> tuple[str, Any]:
    return "start", {"uid": uid, "time": at}


def descriptor(at: float, uid: str = "r", name: str = "primary", spec: Any = IMAGE) -> Any:
    keys = {"image": spec}
    doc = {"uid": f"{uid}-{name}", "run_start": uid, "name": name, "time": at, "data_keys": keys}
    return "descriptor", doc


def event(at: float, n: int = 1, uid: str = "r", name: str = "primary", **data: Any) -> Any:
    doc = {"uid": f"e{n}", "descriptor": f"{uid}-{name}", "time": at, "seq_num": n, "data": data}
    return "event", doc


def datum(first: int, last: int, uid: str = "r") -> tuple[str, Any]:
    spans = {"indices": (first, last), "seq_nums": (first + 1, last + 1)}
    ends = {key: {"start": start, "stop": stop} for key, (start, stop) in spans.items()}
    return "stream_datum", {"descriptor": f"{uid}-primary", "stream_resource": "s", **ends}


def resource(uid: str = "r") -> tuple[str, Any]:
    return "stream_resource", {"uid": "s", "run_start": uid, "data_key": "image"}


def stop(at: Any, uid: str = "r") -> tuple[str, Any]:
    return "stop", {"uid": "x", "run_start": uid, "time": at}


RECORDED = Pace(recorded=True)


def test_at_full_speed_nobody_waits() -> None:
    run = [start(0), descriptor(1), event(100, image=0), stop(200)]
    assert {at for at, _ in due(run, Pace())} == {0.0}


def test_recorded_documents_come_at_the_intervals_of_their_times() -> None:
    run = [start(50), descriptor(50.5), event(51), event(54), stop(54.25)]
    assert [at for at, _ in due(run, RECORDED)] == [0, 0.5, 1, 4, 4.25]


def test_a_page_comes_when_its_last_event_did() -> None:
    page = ("event_page", {"descriptor": "r-primary", "time": [1.0, 2.0, 3.0], "data": {}})
    assert due([start(0), page, stop(4)], RECORDED)[1] == (3.0, "event_page")


def test_what_has_no_time_comes_with_its_event() -> None:
    run = [
        start(0),
        descriptor(0, spec=FILED),
        resource(),
        datum(0, 1),
        event(2, 1),
        datum(1, 2),
        event(5, 2),
        stop(5),
    ]
    assert [at for at, _ in due(run, RECORDED)] == [0, 0, 2, 2, 2, 5, 5, 5]


def test_the_frames_of_a_fly_scan_are_spread_over_it() -> None:
    run = [start(0), descriptor(2, spec=FILED), resource()]
    run += [datum(0, 2), datum(2, 3), datum(3, 10), stop(12)]
    assert [at for at, name in due(run, RECORDED) if name == "stream_datum"] == [4, 5, 12]


def test_nobody_waits_from_one_run_to_the_next() -> None:
    run = [start(0), stop(1), start(1e6, "b"), stop(1e6 + 2, "b"), start(5, "c"), stop(6, "c")]
    assert [at for at, _ in due(run, RECORDED)] == [0, 1, 1, 3, 3, 4]


def test_runs_that_overlap_keep_their_intervals() -> None:
    run = [start(0), start(2, "b"), event(3), stop(4, "b"), stop(5)]
    assert [at for at, _ in due(run, RECORDED)] == [0, 2, 3, 4, 5]


def test_real_pauses_are_kept_and_those_of_more_than_an_hour_are_cut_to_one() -> None:
    run = [start(0), event(1800, 1), event(4000, 2), event(9e6, 3), stop(9e6 + 1)]
    assert [at for at, _ in due(run, RECORDED)] == [0, 1800, 4000, 7600, 7601]


def test_a_fly_scan_takes_as_long_as_it_took_however_long_that_was() -> None:
    run = [start(0), descriptor(0, spec=FILED), resource()]
    run += [*(datum(n, n + 1) for n in range(4)), stop(4 * 3000)]
    came = [at for at, name in due(run, RECORDED) if name == "stream_datum"]
    assert came == [3000, 6000, 9000, 12_000]
    run[-1] = stop(8 * 3600)  # two hours a frame are not believed
    came = [at for at, name in due(run, RECORDED) if name == "stream_datum"]
    assert came == [3600, 7200, 10_800, 14_400]


def test_what_should_have_a_time_and_has_none_is_not_kept_waiting() -> None:
    taken: list[str] = []

    def documents():
        yield start(0)
        for n in range(5):
            yield event(float("nan"), n, image=np.zeros(3))
            assert len(taken) == n + 2  # it was handed on at once: it may hold an image

    hand = HandClock()
    for name, _ in Pacer(RECORDED, FrameCounter(), hand, hand.wait).of(
        documents(), threading.Event()
    ):
        taken.append(name)
    assert taken == ["start", *["event"] * 5]


@pytest.mark.parametrize("time", [None, "noon", float("nan"), float("inf"), 10**400, [], {}])
def test_a_time_that_makes_no_sense_is_none(time: Any) -> None:
    came = due([start(0), event(1), event(time), stop(3)], RECORDED)
    assert [name for _, name in came] == ["start", "event", "event", "stop"]
    assert came[-1][0] == 3


def test_times_that_go_back_are_not_waited_for() -> None:
    assert [at for at, _ in due([start(5), event(3), event(6), stop(7)], RECORDED)] == [0, 0, 1, 2]


def test_more_documents_without_a_time_than_can_be_held_all_come() -> None:
    run = [start(0), descriptor(0, spec=FILED), *(datum(n, n + 1) for n in range(40_000)), stop(10)]
    assert len(due(run, RECORDED)) == 40_003


def test_at_a_rate_frames_come_one_interval_apart() -> None:
    run = [start(0), descriptor(0), *(event(0, n, image=0) for n in range(1, 4)), stop(0)]
    assert [at for at, _ in due(run, Pace(rate=10))] == [0, 0, 0.1, 0.2, 0.3, 0.3]


def test_at_a_rate_frames_in_files_count_and_events_beside_them_do_not() -> None:
    run = [start(0), descriptor(0, spec={**FILED, "shape": [2, 12, 16]}), resource()]
    run += [datum(0, 3), event(0, 1), event(0, 2), datum(3, 4), stop(0)]
    assert [at for at, _ in due(run, Pace(rate=2))] == [0, 0, 0, 3, 3, 3, 4, 4]


def test_other_streams_and_pages_are_counted_right() -> None:
    page = ("event_page", {"descriptor": "r-primary", "time": [0] * 4, "data": {"image": [0] * 4}})
    run = [start(0), descriptor(0, name="baseline"), event(0, name="baseline", image=0)]
    run += [descriptor(0), page, stop(0)]
    assert [at for at, _ in due(run, Pace(rate=1))] == [0, 0, 0, 0, 4, 4]


def test_a_slow_taker_delays_what_follows_and_nothing_is_hurried() -> None:
    hand = HandClock()
    run = [start(0), descriptor(0), *(event(0, n, image=0) for n in range(4))]
    came = []
    for name, _ in Pacer(Pace(rate=10), FrameCounter(), hand, hand.wait).of(run, threading.Event()):
        came.append(round(hand.now - 1000, 6))
        if name == "event" and len(came) == 4:
            hand.now += 5.0
    assert came == [0, 0, 0.1, 0.2, 5.2, 5.3]


def test_a_stop_ends_a_long_wait_and_nothing_more_comes() -> None:
    run = [start(0), event(30), event(50), stop(60)]
    assert due(run, RECORDED, stop_at=30) == [(0, "start")]


def test_the_real_wait_ends_as_soon_as_it_is_told() -> None:
    stopping, came = threading.Event(), list[str]()
    run = [start(0), event(59), stop(60)]

    def take() -> None:
        came.extend(name for name, _ in Pacer(RECORDED, FrameCounter()).of(run, stopping))

    thread = threading.Thread(target=take)
    thread.start()
    stopping.set()
    thread.join(timeout=20)  # without the stop it would take 60 s
    assert not thread.is_alive()
    assert "stop" not in came


@pytest.mark.parametrize("text", ["fast", "-3", "0", "nan", "inf", "10/s"])
def test_a_pace_that_is_not_understood_says_what_is(text: str) -> None:
    with pytest.raises(SourceError, match=f"pace '{text}' is not understood: give frames per sec"):
        Pace.parse(text)


def test_the_words_of_a_pace() -> None:
    assert Pace.parse("") == Pace()
    assert Pace.parse("recorded") == RECORDED
    assert Pace.parse("12.5") == Pace(rate=12.5)


# ---- with files


def came_from(path: Path, **options: Any) -> list[tuple[float, str]]:
    hand, came = HandClock(), list[tuple[float, str]]()

    def take(name: str, _: Any) -> int:
        came.append((round(hand.now - 1000, 6), name))
        return len(came)

    replay = open_replay(path, ReplayOptions(**options), hand, hand.wait)
    replay.run(take, threading.Event())
    return came


def frames_came(path: Path, **options: Any) -> list[float]:
    return [at for at, name in came_from(path, **options) if name in ("stream_datum", "event")]


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["entry/data/data"] = asymmetric(5)
        file["entry/instrument/detector/frame_time"] = 0.25
    return tmp_path / "f.h5"


def test_frames_of_a_file_come_one_by_one_at_a_rate(frames: Path) -> None:
    assert frames_came(frames, pace="10") == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_frames_of_a_file_come_as_its_frame_time_says(frames: Path) -> None:
    assert frames_came(frames, pace="recorded") == [0.25, 0.5, 0.75, 1.0, 1.25]


def test_a_given_period_wins(frames: Path) -> None:
    assert frames_came(frames, pace="recorded", period=2.0) == [2, 4, 6, 8, 10]


def test_frames_of_npy_keep_a_pace_too(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", asymmetric(3))
    assert frames_came(tmp_path / "f.npy", pace="4") == [0.25, 0.5, 0.75]


def test_recorded_lines_come_as_they_were_recorded(tmp_path: Path) -> None:
    run = [start(10), descriptor(10), event(11, 1, image=0), event(13, 2, image=0), stop(13)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(item) + "\n" for item in run))
    came = came_from(tmp_path / "r.jsonl", pace="recorded")
    assert [at for at, _ in came] == [0, 0, 1, 3, 3]


def test_a_file_without_a_frame_time_says_so_and_comes_at_once(tmp_path: Path, caplog: Any) -> None:
    np.save(tmp_path / "f.npy", asymmetric(3))
    assert frames_came(tmp_path / "f.npy", pace="recorded") == [0, 0, 0]
    assert "f.npy: says nothing of the time between frames" in caplog.text
