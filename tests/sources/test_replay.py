"""What can be named for a replay, and what is said of that which cannot be read."""

import json
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from replay_support import asymmetric, documents_of, images_of, names_of, replayed

from ptychoseg_stream.errors import SourceError
from ptychoseg_stream.sources.recorded.replay import ReplayOptions, open_replay

FRAMES = asymmetric(4)


def write_frames(path: Path, frames: Any = FRAMES) -> Path:
    with h5py.File(path, "w") as file:
        file["frames"] = frames
    return path


def write_lines(path: Path, uid: str = "a") -> Path:
    run = [("start", {"uid": uid, "time": 0}), ("stop", {"uid": "s", "run_start": uid, "time": 1})]
    path.write_text("".join(json.dumps(item) + "\n" for item in run))
    return path


def refusal(*targets: str | Path) -> str:
    with pytest.raises(SourceError) as error:
        open_replay([str(target) for target in targets])
    return str(error.value)


# ---- what can be named


@pytest.mark.parametrize(
    "name", ["scan.h5", "scan.cxi", "scan.nxs", "scan.hdf5", "scan", "scan.dat"]
)
def test_frames_are_found_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    assert np.array_equal(images_of(replayed(write_frames(tmp_path / name))), FRAMES)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.ndjson", "a", "a.txt"])
def test_documents_are_found_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    assert names_of(replayed(write_lines(tmp_path / name))) == ["start", "stop"]


def test_npy_and_msgpack_are_known_by_how_they_begin(tmp_path: Path) -> None:
    with (tmp_path / "frames").open("wb") as file:
        np.save(file, FRAMES)
    (tmp_path / "documents").write_bytes(b"\x92\xa5start\x82\xa3uid\xa1a\xa4time\x00")
    fed = replayed(tmp_path / "documents")
    assert fed == [("start", {"uid": "a", "time": 0})]
    assert "frames: not an HDF5 file" in refusal(tmp_path / "frames")  # numpy wants the suffix


def test_a_dataset_may_be_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["small"], file["large"] = FRAMES[:2], FRAMES
    assert len(images_of(replayed(f"{tmp_path / 'f.h5'}:/small"))) == 2


def test_a_folder_is_replayed_by_name_with_numbers_in_order(tmp_path: Path) -> None:
    for n in (10, 2, 1):
        write_lines(tmp_path / f"scan_{n}.jsonl", uid=str(n))
    (tmp_path / "below").mkdir()
    write_lines(tmp_path / "below" / "scan_3.jsonl", uid="3")
    write_lines(tmp_path / ".hidden.jsonl", uid="hidden")
    uids = [doc["uid"] for name, doc in replayed(tmp_path) if name == "start"]
    assert uids == ["1", "2", "10"]


def test_a_pattern_names_files_and_a_dataset(tmp_path: Path) -> None:
    for n in range(3):
        with h5py.File(tmp_path / f"scan_{n}.h5", "w") as file:
            file["dark"], file["light"] = FRAMES, FRAMES[: n + 1]
    fed = replayed(f"{tmp_path}/scan_[12].h5:/light")
    ends = [doc["num_events"]["primary"] for name, doc in fed if name == "stop"]
    assert ends == [2, 3]


def test_several_targets_come_in_the_order_given(tmp_path: Path) -> None:
    first, second = write_lines(tmp_path / "b.jsonl", "b"), write_frames(tmp_path / "a.h5")
    fed = replayed([str(first), str(second)])
    assert fed[0][1]["uid"] == "b"
    assert np.array_equal(images_of(fed[2:]), FRAMES)


def test_names_of_the_profile_are_those_of_the_frames(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "f.h5")
    fed = replayed(path, streams=("fly", "primary"), data_keys=("eiger",))
    assert np.array_equal(images_of(fed, streams=("fly",), data_keys=("eiger",)), FRAMES)


def test_a_replay_can_be_run_again_and_gives_the_same(tmp_path: Path) -> None:
    write_frames(tmp_path / "f.h5")
    write_lines(tmp_path / "g.jsonl")
    replay = open_replay(tmp_path)
    first: list[Any] = []
    replay.run(lambda name, doc: len(first) if first.append((name, doc)) else 0, threading.Event())
    second = replayed(tmp_path)
    assert first == second


def test_the_node_is_told_which_folders_it_must_be_allowed_to_read(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    write_frames(tmp_path / "real" / "f.h5")
    (tmp_path / "link.h5").symlink_to(tmp_path / "real" / "f.h5")
    assert open_replay(tmp_path / "link.h5").folders == (tmp_path / "real",)


# ---- stopping


def test_nothing_comes_once_it_is_stopped(tmp_path: Path) -> None:
    stopping, fed = threading.Event(), list[str]()

    def take(name: str, _: Any) -> int:
        fed.append(name)
        if len(fed) == 3:
            stopping.set()
        return len(fed)

    replay = open_replay(write_frames(tmp_path / "f.h5"))
    replay.run(take, stopping)
    assert fed == ["start", "descriptor", "stream_resource"]


def test_a_source_that_is_stopped_before_it_began_is_no_error(tmp_path: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    replay = open_replay(write_frames(tmp_path / "f.h5"))
    replay.run(lambda name, doc: 0, stopping)
    assert replay.documents == 0


def test_it_is_a_source_that_does_not_redeliver(tmp_path: Path) -> None:
    replay = open_replay(write_frames(tmp_path / "f.h5"))
    assert replay.redelivers is False
    assert replay.stored(3) is None


# ---- what cannot be read


def test_files_of_a_folder_that_cannot_be_read_are_named_and_left_out(
    tmp_path: Path, caplog: Any
) -> None:
    write_lines(tmp_path / "a.jsonl")
    (tmp_path / "b.h5").write_bytes(b"no HDF5")
    (tmp_path / "c.txt").write_text("notes\n")
    (tmp_path / "d.npy").write_bytes(b"")
    (tmp_path / "e").write_bytes(b"")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["line"] = np.arange(3)
    (tmp_path / "g.jsonl").write_text("")
    write_frames(tmp_path / "h.h5")
    replay = open_replay(tmp_path)
    fed = documents_of(replay)
    assert np.array_equal(images_of(fed[2:]), FRAMES)
    assert replay.left_out == 6
    named = [Path(problem.split(": ")[0]).name for problem in replay.problems]
    assert named == ["b.h5", "c.txt", "d.npy", "e", "f.h5", "g.jsonl"]
    assert all(problem in caplog.text for problem in replay.problems)


def test_a_folder_with_nothing_to_replay_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("notes\n")
    with pytest.raises(SourceError, match=r"c\.txt: neither documents nor frames; give files"):
        replayed(tmp_path)


def test_an_empty_folder_and_a_pattern_of_nothing_are_errors(tmp_path: Path) -> None:
    assert f"{tmp_path}: there are no files" in refusal(tmp_path)
    assert "there are no files" in refusal(f"{tmp_path}/*.h5")
    assert "nothing to replay" in refusal()


@pytest.mark.parametrize("name", ["gone.h5", "gone.jsonl", "gone", "gone/"])
def test_what_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    assert "there is no such file or folder; give files of documents" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["tiled://host/x", "http://host/x", "kafka://host:9092/topic"])
def test_an_address_is_no_file(name: str) -> None:
    assert f"{name}: an address, not a file" in refusal(name)


def test_a_file_that_was_named_is_looked_at_before_anything_begins(tmp_path: Path) -> None:
    good = write_frames(tmp_path / "good.h5")
    (tmp_path / "b.h5").write_bytes(b"no HDF5")
    (tmp_path / "c.txt").write_text("notes\n")
    assert "b.h5: not an HDF5 file" in refusal(good, tmp_path / "b.h5")
    assert "c.txt: neither documents nor frames" in refusal(good, tmp_path / "c.txt")
    assert "no dataset '/none'" in refusal(f"{good}:/none")


@pytest.mark.parametrize("options", [{"limit": -1}, {"period": -1.0}, {"period": float("inf")}])
def test_options_that_make_no_sense_are_refused_by_name(options: Any) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name}: "):
        ReplayOptions(**options)
