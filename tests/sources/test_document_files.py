"""Recorded documents: every form that Bluesky's tools write, and what is damaged."""

import gzip
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.callbacks.json_writer import JSONLinesWriter, JSONWriter
from bluesky.plans import count
from ophyd.sim import det
from ptychoseg_callbacks.documents import encode
from replay_support import asymmetric, documents_of, frames_of, images_of, names_of, replayed

from ptychoseg_stream.errors import SourceError
from ptychoseg_stream.sources.recorded import document_files
from ptychoseg_stream.sources.recorded.replay import open_replay

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "bluesky_documents"
needs_recorded = pytest.mark.skipif(
    not RECORDED.exists(), reason=f"no recorded documents at {RECORDED}"
)
FRAMES = asymmetric(3)


def inline_run(uid: str = "run-1", frames: Any = FRAMES) -> list[tuple[str, Any]]:
    """Return the documents of a run with its frames in events."""
    key = {
        "source": "test",
        "dtype": "array",
        "shape": list(frames.shape[1:]),
        "dtype_numpy": frames.dtype.str,
    }
    descriptor = {
        "uid": f"{uid}-d",
        "run_start": uid,
        "name": "primary",
        "time": 1.0,
        "data_keys": {"image": key},
    }
    events = [
        {
            "uid": f"{uid}-e{n}",
            "descriptor": f"{uid}-d",
            "seq_num": n + 1,
            "time": 2.0 + n,
            "data": {"image": frame},
            "timestamps": {"image": 2.0 + n},
            "filled": {},
        }
        for n, frame in enumerate(frames)
    ]
    stop = {
        "uid": f"{uid}-s",
        "run_start": uid,
        "time": 9.0,
        "exit_status": "success",
        "num_events": {"primary": len(events)},
    }
    return [
        ("start", {"uid": uid, "time": 1.0}),
        ("descriptor", descriptor),
        *(("event", event) for event in events),
        ("stop", stop),
    ]


def as_lists(documents: list[tuple[str, Any]]) -> str:
    """Return documents as suitcase-jsonl writes them: arrays as nested lists."""
    return "".join(json.dumps(item, default=np.ndarray.tolist) + "\n" for item in documents)


def as_suitcase(documents: list[tuple[str, Any]]) -> bytes:
    """Return documents as suitcase-msgpack writes them."""
    return b"".join(
        msgpack.packb(item, default=msgpack_numpy.encode, use_bin_type=True) for item in documents
    )


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


# ---- what is read


def test_json_lines_of_suitcase_are_replayed_with_their_images(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", as_lists(inline_run()))
    images = images_of(replayed(path))
    assert images.dtype == np.uint16
    assert np.array_equal(images, FRAMES)


def test_msgpack_of_suitcase_is_replayed_bit_by_bit(tmp_path: Path) -> None:
    path = write(tmp_path / "run.msgpack", as_suitcase(inline_run()))
    assert np.array_equal(images_of(replayed(path)), FRAMES)


@pytest.mark.parametrize("writer", [JSONLinesWriter, JSONWriter])
def test_what_the_json_writers_of_bluesky_recorded_is_replayed(tmp_path: Path, writer: Any) -> None:
    run_engine, seen = RunEngine({}), []
    run_engine.subscribe(writer(str(tmp_path)))
    run_engine.subscribe(lambda name, doc: seen.append((name, json.loads(json.dumps(doc)))))
    run_engine(count([det], 3))
    (path,) = tmp_path.iterdir()
    assert replayed(path) == seen


@pytest.mark.parametrize("name", ["run.jsonl.gz", "run.jsonl"])
def test_gzipped_lines_are_read_whatever_their_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, gzip.compress(as_lists(inline_run()).encode()))
    assert np.array_equal(images_of(replayed(path)), FRAMES)


def test_gzipped_msgpack_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "run.msgpack.gz", gzip.compress(as_suitcase(inline_run())))
    assert np.array_equal(images_of(replayed(path)), FRAMES)


@pytest.mark.parametrize(("form", "name"), [(as_lists, "r.jsonl"), (as_suitcase, "r.msgpack")])
def test_several_runs_of_one_file_come_in_order(tmp_path: Path, form: Any, name: str) -> None:
    path = write(tmp_path / name, form(inline_run("a") + inline_run("b")))
    fed = replayed(path)
    assert [doc["uid"] for name, doc in fed if name == "start"] == ["a", "b"]
    assert np.array_equal(images_of(fed[:6]), FRAMES)
    assert np.array_equal(images_of(fed[6:]), FRAMES)


def test_a_record_larger_than_what_is_read_at_once_comes_whole(tmp_path: Path) -> None:
    frames = np.arange(2 * 300 * 400, dtype=np.float64).reshape(2, 300, 400)  # 960 kB each
    path = write(tmp_path / "run.msgpack", as_suitcase(inline_run(frames=frames)))
    assert np.array_equal(images_of(replayed(path)), frames)


def test_empty_lines_are_nothing_to_talk_about(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", as_lists(inline_run()).replace("\n", "\n\n"))
    replay = open_replay(path)
    assert len(documents_of(replay)) == 6
    assert replay.left_out == 0


# ---- recorded by others


@needs_recorded
@pytest.mark.parametrize("number", range(17))
def test_each_recorded_tutorial_run_replays_without_a_word(number: int) -> None:
    path = sorted((RECORDED / "tutorial_runs").glob("*.jsonl"))[number]
    replay = open_replay(path)
    fed = documents_of(replay)
    assert fed == [tuple(json.loads(line)) for line in path.read_text().splitlines()]
    assert replay.left_out == 0
    has_images = "resource" in names_of(fed)
    assert len(frames_of(fed)) == (25 if has_images else 0)


@needs_recorded
def test_all_recorded_tutorial_runs_replay_from_their_folder(caplog: Any) -> None:
    fed = replayed(RECORDED / "tutorial_runs")
    assert names_of(fed).count("start") == names_of(fed).count("stop") == 17
    left_out = {
        record.message.partition(":")[0] for record in caplog.records if record.levelno > 20
    }
    assert {Path(name).name for name in left_out} == {"SOURCE.md", "LICENSE"}


@needs_recorded
@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("internal_events", 0),
        ("external_assets", 3),
        ("external_assets_single_key", 8),
        ("external_assets_legacy", 3),
    ],
)
def test_the_templates_of_bluesky_replay(tmp_path: Path, name: str, frames: int) -> None:
    text = (RECORDED / "templates" / f"{name}.json").read_text()
    text = text.replace("{{ uuid }}", "00000000-0000-0000-0000")
    items = json.loads(text.replace("{{ root_path }}", str(tmp_path).lstrip("/")))
    path = write(tmp_path / "t.jsonl", "".join(json.dumps(item) + "\n" for item in items))
    replay = open_replay(path)
    fed = documents_of(replay)
    assert fed == [(item["name"], item["doc"]) for item in items]
    assert replay.left_out == 0
    assert len(frames_of(fed)) == frames


# ---- what goes wrong


def problem_of(path: Path) -> tuple[list[tuple[str, Any]], str]:
    """Return what is replayed all the same, and the one problem."""
    replay = open_replay(path)
    fed = documents_of(replay)
    assert replay.left_out == 1
    (problem,) = replay.problems
    assert problem.startswith(str(path))
    return fed, problem


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('["event", {"uid": "x"', "Expecting"),
        ("rubbish", "Expecting value"),
        ("42", "no pair of a name and a document"),
        ('["event", {}, 3]', "no pair"),
        ('["evnt", {}]', "'evnt' is no kind of document"),
        ('["bulk_events", {}]', "'bulk_events' is no kind of document"),
        ('["event", [1]]', "the event is no mapping"),
        ('{"name": "event"}', "the event is no mapping"),
        ("[" * 100_000, ""),
        ('["event", {"seq_num": ' + "9" * 5000 + "}]", "digits"),
    ],
)
def test_a_line_that_is_no_document_is_named_and_the_next_one_read(
    tmp_path: Path, line: str, reason: str
) -> None:
    lines = as_lists(inline_run()).splitlines()
    lines.insert(3, line)
    path = write(tmp_path / "run.jsonl", "\n".join(lines))
    fed, problem = problem_of(path)
    assert f"{path}, line 4: not a document (" in problem
    assert reason in problem
    assert np.array_equal(images_of(fed), FRAMES)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    lines = as_lists(inline_run()).encode().splitlines()
    lines.insert(1, b'["event", {"\xff\xfe": 1}]')
    fed, problem = problem_of(write(tmp_path / "run.jsonl", b"\n".join(lines)))
    assert "line 2: not a document" in problem
    assert np.array_equal(images_of(fed), FRAMES)


def test_a_line_that_was_cut_off_is_named(tmp_path: Path) -> None:
    fed, problem = problem_of(write(tmp_path / "run.jsonl", as_lists(inline_run())[:-30]))
    assert names_of(fed) == ["start", "descriptor", "event", "event", "event"]
    assert "line 6: not a document" in problem


def test_a_line_too_long_for_memory_is_left_out_and_the_next_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_files, "LARGEST", 10_000)
    lines = as_lists(inline_run()).splitlines()
    lines.insert(2, '["event", {"note": "' + "x" * 200_000 + '"}]')
    fed, problem = problem_of(write(tmp_path / "run.jsonl", "\n".join(lines)))
    assert "line 3: longer than 10000 bytes" in problem
    assert np.array_equal(images_of(fed), FRAMES)


@pytest.mark.parametrize(("form", "name"), [(as_lists, "r.jsonl"), (as_suitcase, "r.msgpack")])
def test_a_gzipped_file_that_was_cut_off_is_read_up_to_there(
    tmp_path: Path, form: Any, name: str
) -> None:
    frames = np.random.default_rng(0).integers(0, 60000, (40, 12, 16), np.uint16)
    data = form(inline_run(frames=frames))
    packed = gzip.compress(data if isinstance(data, bytes) else data.encode())
    replay = open_replay(write(tmp_path / f"{name}.gz", packed[: len(packed) // 2]))
    fed = documents_of(replay)
    found = images_of(fed)
    assert 0 < len(found) < 40
    assert np.array_equal(found, frames[: len(found)])
    assert "cannot read on" in replay.problems[-1]


def test_msgpack_that_was_cut_off_names_the_byte_and_how_much_was_read(tmp_path: Path) -> None:
    records = [as_suitcase([item]) for item in inline_run()]
    path = write(tmp_path / "run.msgpack", b"".join(records)[:-3])
    fed, problem = problem_of(path)
    assert names_of(fed) == ["start", "descriptor", "event", "event", "event"]
    assert f"byte {sum(map(len, records[:-1]))}: cannot read on (the file ends within" in problem
    assert "5 documents were read, the rest is left out" in problem


def test_a_record_that_would_need_pickle_is_refused_and_the_next_one_read(tmp_path: Path) -> None:
    harmless = np.array([{"a": 1}], object)
    item = msgpack.packb(["event", {"data": harmless}], default=msgpack_numpy.encode)
    records = [as_suitcase([item]) for item in inline_run()]
    path = write(tmp_path / "run.msgpack", b"".join([records[0], item, *records[1:]]))
    fed, problem = problem_of(path)
    assert f"byte {len(records[0])}: not a document (refused an array of dtype" in problem
    assert np.array_equal(images_of(fed), FRAMES)


@pytest.mark.parametrize(
    "array",
    [
        {b"nd": True, b"type": "<u2", b"kind": b"", b"shape": [10**6, 10**6], b"data": b"ab"},
        {b"nd": True, b"type": "rubbish", b"kind": b"", b"shape": [1], b"data": b"ab"},
        {b"complex": True, b"data": "rubbish"},
    ],
    ids=["enormous shape", "dtype", "complex"],
)
def test_an_array_that_cannot_be_is_left_out_and_the_next_record_read(
    tmp_path: Path, array: Any
) -> None:
    bad = msgpack.packb(["event", {"data": array}])
    records = [as_suitcase([item]) for item in inline_run()]
    fed, problem = problem_of(write(tmp_path / "r.msgpack", b"".join([bad, *records])))
    assert "byte 0: not a document" in problem
    assert np.array_equal(images_of(fed), FRAMES)


@pytest.mark.parametrize(
    ("rubbish", "reason"),
    [
        (b"\xc1\xc1", "not msgpack"),
        (b"\x91" * 5000, "not msgpack"),
        (b"plain text", "this is not msgpack of documents"),
        (msgpack.packb(["event", {"x": "y" * 100_000}]), "a document of more than 70000 bytes"),
    ],
    ids=["invalid", "deep", "text", "large"],
)
def test_behind_rubbish_no_record_is_looked_for(
    tmp_path: Path, rubbish: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_files, "LARGEST", 70_000)
    good = as_suitcase(inline_run("a"))
    path = write(tmp_path / "r.msgpack", good + rubbish + as_suitcase(inline_run("b")))
    replay = open_replay(path)
    assert names_of(documents_of(replay)) == names_of(inline_run())
    assert f"byte {len(good)}: cannot read on ({reason}" in replay.problems[-1]
    assert "6 documents were read" in replay.problems[-1]


def test_many_damaged_lines_fill_neither_the_log_nor_memory(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    path = write(tmp_path / "r.jsonl", as_lists(inline_run()) + "rubbish\n" * 500)
    replay = open_replay(path)
    documents_of(replay)
    assert replay.left_out == 500
    assert len(replay.problems) == 100
    assert len(caplog.records) < 25
    assert "500 problems, not all of them shown" in caplog.text


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.msgpack"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=f"{name}: it holds no documents"):
        replayed(write(tmp_path / name, b""))


def test_encoded_documents_of_the_node_are_such_records(tmp_path: Path) -> None:
    path = write(tmp_path / "r.msgpack", b"".join(map(encode, inline_run())))
    assert np.array_equal(images_of(replayed(path)), FRAMES)


def test_memory_stays_bounded_when_a_gzipped_bomb_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.msgpack.gz"
    # An event that declares 2 GiB of zeros: 2 MB on disk.
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"\x92\xa5event\x81\xa1x\xc6\x80\x00\x00\x00")
        for _ in range(64):
            file.write(bytes(1 << 20))
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from ptychoseg_stream.sources.recorded import document_files as d\n"
        "d.LARGEST = 1 << 24; said = []\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "list(d.read_msgpack(Path(sys.argv[1]), said.append))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, said[0])\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    ).stdout
    grown, said = out.split(maxsplit=1)
    assert int(grown) < 60_000  # kB, of 64 MB in the file and 2 GiB declared
    assert "a document of more than 16777216 bytes" in said
