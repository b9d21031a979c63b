"""Runs that end after so many frames: nothing is announced that does not come."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from replay_support import Documents, asymmetric, documents_of, images_of, names_of, replayed

from ptychoseg_stream.sources.recorded.frame_count import FrameCounter, Limit
from ptychoseg_stream.sources.recorded.replay import ReplayOptions, open_replay
from ptychoseg_stream.sources.recorded.synthesised import SynthesisOptions, synthesise

FRAMES = asymmetric(10)


def limited(documents: Documents, frames: int) -> Documents:
    return list(Limit(frames, FrameCounter()).of(documents))


@pytest.fixture
def inline(tmp_path: Path) -> Documents:
    np.save(tmp_path / "f.npy", FRAMES)
    return list(synthesise(tmp_path / "f.npy"))


@pytest.fixture
def filed(tmp_path: Path) -> Documents:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["frames"] = FRAMES
    return list(synthesise(tmp_path / "f.h5", SynthesisOptions(block=4)))


def check_cut(fed: Documents, frames: int) -> None:
    assert np.array_equal(images_of(fed), FRAMES[:frames])
    stop = fed[-1][1]
    assert stop["num_events"] == {"primary": frames}
    assert stop["reason"] == f"replayed up to frame {frames} only"
    assert stop["exit_status"] == "success"


@pytest.mark.parametrize("frames", [1, 4, 6, 9])
def test_a_run_with_images_in_events_is_cut(inline: Documents, frames: int) -> None:
    check_cut(limited(inline, frames), frames)


@pytest.mark.parametrize("frames", [1, 4, 6, 9])
def test_a_run_with_images_in_a_file_is_cut(filed: Documents, frames: int) -> None:
    fed = limited(filed, frames)
    check_cut(fed, frames)
    numbers = [doc["seq_num"] for name, doc in fed if name == "event"]
    assert numbers == list(range(1, frames + 1))


@pytest.mark.parametrize("frames", [0, 10, 11])
def test_a_run_that_is_short_enough_keeps_its_stop_document(inline: Documents, frames: int) -> None:
    assert limited(inline, frames) is not inline
    assert names_of(limited(inline, frames)) == names_of(inline)
    assert limited(inline, frames)[-1] == inline[-1]


def test_a_page_is_divided(inline: Documents) -> None:
    events = [doc for name, doc in inline if name == "event"]
    page = {
        "descriptor": events[0]["descriptor"],
        **{key: [event[key] for event in events] for key in ("uid", "time", "seq_num")},
        **{
            key: {"frames": [event[key]["frames"] for event in events]}
            for key in ("data", "timestamps")
        },
        "filled": {},
    }
    fed = limited([*inline[:2], ("event_page", page), inline[-1]], 7)
    check_cut(fed, 7)


def test_each_run_is_cut_for_itself(inline: Documents, filed: Documents) -> None:
    fed = limited([*inline, *filed], 3)
    cut = names_of(fed).index("stop") + 1
    check_cut(fed[:cut], 3)
    check_cut(fed[cut:], 3)


def test_other_streams_are_left_whole(inline: Documents) -> None:
    other = {**inline[1][1], "uid": "other", "name": "baseline"}
    readings = [("event", {"descriptor": "other", "seq_num": n, "data": {}}) for n in range(5)]
    fed = limited([*inline[:2], ("descriptor", other), *inline[2:-1], *readings, inline[-1]], 2)
    assert [item for item in fed if item in readings] == readings


@pytest.mark.parametrize(
    "doc",
    [
        {},
        {"descriptor": 3},
        {"indices": 5},
        {"indices": {"start": "a", "stop": None}},
        {"data": 7},
        {"data": {"frames": 7}, "seq_num": "x"},
    ],
)
@pytest.mark.parametrize("name", ["event", "event_page", "stream_datum", "descriptor", "stop"])
def test_a_document_that_makes_no_sense_is_left_to_others(
    filed: Documents, name: str, doc: Any
) -> None:
    bad = {"descriptor": filed[1][1]["uid"], "stream_resource": filed[2][1]["uid"], **doc}
    fed = limited([*filed[:3], (name, bad), *filed[3:]], 5)
    assert len(images_of([item for item in fed if item[1] is not bad])) == 5


def test_the_replay_of_a_file_is_cut(tmp_path: Path, filed: Documents) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(item, default=str) + "\n" for item in filed))
    check_cut(replayed(path, limit=6), 6)
    replay = open_replay(tmp_path / "f.h5", ReplayOptions(limit=6))
    assert np.array_equal(images_of(documents_of(replay)), FRAMES[:6])
