"""The Tiled sink against a real Tiled in this process."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from bluesky_tiled_plugins.clients.bluesky_run import BlueskyRunV3
from event_model import DocumentNames, schema_validators
from sinks_support import account_of, indices_in, mask_of, masks_of, run_info, until
from tiled.client.container import Container
from tiled.queries import Key

from ptychoseg_stream.errors import StoreError
from ptychoseg_stream.science.frame import legend
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.tiled import TiledSink

MakeSink = Callable[..., TiledSink]


def derived(root: Container, options: TiledOptions, sink: TiledSink, run: str = "raw-1"):
    return root[options.container][sink.derived_uid(run)]


def stored_masks(run: BlueskyRunV3, name: str = "mask") -> np.ndarray:
    return run["primary"].base[name].read()


def write_run(sink: TiledSink, *batches: range | list[int], uid: str = "raw-1", **more) -> None:
    """Write a run whose batches are stored one by one."""
    sink.open(run_info(uid))
    for batch in batches:
        sink.write(uid, masks_of(batch, run=uid, **more))
        assert sink.drain(30)
    sink.close(uid, account_of(sum(map(len, batches))))
    assert sink.drain(30)
    assert sink.fault() == ""


def test_rows_appear_while_the_run_is_open(root, options, sink):
    sink.open(run_info())
    sink.write("raw-1", [mask_of(0)])
    assert until(lambda: sink.stored("raw-1") == 1)
    run = derived(root, options, sink)
    assert isinstance(run, BlueskyRunV3)
    assert "stop" not in run.metadata
    assert indices_in(stored_masks(run)) == [0]
    sink.write("raw-1", masks_of(range(1, 40)))
    assert until(lambda: sink.stored("raw-1") == 40)
    assert indices_in(stored_masks(derived(root, options, sink))) == list(range(40))
    assert sink.address("raw-1").endswith(f"/metadata/{options.container}/{run.start['uid']}")
    sink.close("raw-1", account_of(40))


@pytest.mark.parametrize("sizes", [(33,), (1, 1, 17), (16, 16), (5, 130)], ids=str)
def test_there_are_exactly_as_many_rows_as_frames_however_they_come(root, options, sink, sizes):
    edges = np.cumsum((0, *sizes)).tolist()
    write_run(sink, *(range(a, b) for a, b in pairwise(edges)))
    run = derived(root, options, sink)
    assert indices_in(stored_masks(run)) == list(range(sum(sizes)))
    table = run["primary"].base["internal"].read()
    assert table.seq_num.tolist() == list(range(1, sum(sizes) + 1))
    assert table.raw_index.tolist() == list(range(sum(sizes)))
    assert run["primary"].base["mask"].chunks[0][0] == min(sizes[0], 64)


def test_a_run_reads_as_xarray_with_one_time_for_arrays_and_table(root, options, sink):
    refused = mask_of(20, status="refused", reason="NaN only", source="none")
    sink.open(run_info())
    sink.write("raw-1", [*masks_of(range(20)), refused])
    sink.close("raw-1", account_of(21, written=20, refused={"NaN only": 1}))
    assert sink.drain(30)
    dataset = derived(root, options, sink)["primary"].read()
    assert dict(dataset.sizes) == {"time": 21, "y": 6, "x": 8}
    assert dataset["mask"].dims == ("time", "y", "x")
    assert dataset["mask"].dtype == np.uint8
    assert dataset["status"].values.tolist() == ["ok"] * 20 + ["refused"]
    assert dataset["reason"].values.tolist() == [""] * 20 + ["NaN only"]
    assert dataset["centroids_hash"].values.tolist() == ["c0ffee"] * 21
    assert dataset["shift_x"].values.tolist() == [-0.5] * 21
    assert dataset["latency_ms"].values.tolist() == [2.0] * 21


def test_start_and_stop_say_where_masks_come_from_and_what_became_of_the_frames(
    root, options, sink
):
    sink.open(run_info(sample=None))
    sink.write("raw-1", masks_of(range(3)))
    seen = {"verdicts": {"annulus": 3, "no beam": 2}, "alarms": 4}
    ended = {"exit_status": "abort", "reason": "beam"}
    sink.close("raw-1", account_of(6, written=3, refused={"empty": 2}, lost=1, **ended, **seen))
    assert sink.drain(30)
    run = derived(root, options, sink)
    assert run.start["original_run_uid"] == "raw-1"
    assert run.start["raw_scan_id"] == 7
    assert run.start["processing"]["profile"] == "demo"
    assert run.start["class_codes"] == legend()
    assert "sample" not in run.start
    assert run["primary"].base["mask"].metadata["class_codes"] == legend()
    assert run.stop["exit_status"] == "abort"
    assert run.stop["reason"] == "beam"
    assert run.stop["num_events"] == {"primary": 3}
    assert run.stop["account"] == {
        "received": 6,
        "written": 3,
        "refused": {"empty": 2},
        "lost": 1,
        "announced": -1,
        "refilled": 0,
        "retaken": 0,
        "teacher_only": 0,
        "filled": 0,
        "repeated": 0,
        **seen,
    }
    assert run.stop["verdict"] == "annulus"
    for name in ("start", "stop"):
        schema_validators[DocumentNames[name]].validate(dict(run.metadata[name]))
    assert len(run.descriptors) == 1


def test_every_node_of_a_run_is_asked_for_with_the_access_tags_of_the_raw_run(
    options, make_sink, lossy
):
    # A server without an access policy drops the tags, so look at what it is sent.
    bodies = []

    def look(request) -> bool:
        if request.method == "POST":
            bodies.append(json.loads(request.content))
        return False

    sink = make_sink(options, lossy(look))
    sink.open(run_info(tiled_access_tags=["beamline"]))
    sink.write("raw-1", [mask_of(0)])
    sink.close("raw-1", account_of(1))
    assert sink.drain(30)
    nodes = {body["id"]: body["access_tags"] for body in bodies[-5:]}
    assert list(nodes) == [
        sink.derived_uid("raw-1"),
        "primary",
        "mask",
        "valid_bits",
        "internal",
    ]
    assert list(nodes.values()) == [["beamline"]] * 5


def test_frames_that_were_never_announced_are_rows_of_class_255(root, options, sink):
    write_run(sink, [2], [3, 7])
    run = derived(root, options, sink)
    assert indices_in(stored_masks(run)) == [-1, -1, 2, 3, -1, -1, -1, 7]
    table = run["primary"].base["internal"].read()
    assert table.status.tolist() == ["lost"] * 2 + ["ok"] * 2 + ["lost"] * 3 + ["ok"]
    assert table.reason.tolist()[0] == "frame was never announced"
    assert run.stop["num_events"] == {"primary": 8}
    assert run.stop["account"]["filled"] == 5


def test_a_row_that_comes_again_is_refused_and_counted(root, options, sink, caplog):
    sink.open(run_info())
    sink.write("raw-1", masks_of([0, 1, 2]))
    sink.write("raw-1", masks_of([1, 0], classes=np.zeros((6, 8), np.uint8)))
    sink.write("raw-1", masks_of([3]))
    sink.close("raw-1", account_of(4))
    assert sink.drain(30)
    run = derived(root, options, sink)
    assert indices_in(stored_masks(run)) == [0, 1, 2, 3]
    assert run.stop["account"]["repeated"] == 2
    warnings = [r.getMessage() for r in caplog.records if r.name == "ptychoseg_stream.sinks"]
    assert len(warnings) == 1
    assert "raw-1" in warnings[0]
    assert "frame 1" in warnings[0]


def test_interleaved_runs_do_not_mix(root, options, sink):
    for uid in ("a", "b", "c"):
        sink.open(run_info(uid))
    for index in range(20):
        for uid in ("a", "b"):
            sink.write(uid, [mask_of(index + 100 * (uid == "b"), uid)])
    for uid in ("b", "a", "c"):
        sink.close(uid, account_of(20))
    assert sink.drain(30)
    runs = {uid: derived(root, options, sink, uid) for uid in ("a", "b", "c")}
    assert indices_in(stored_masks(runs["a"])) == list(range(20))
    assert indices_in(stored_masks(runs["b"])) == [-1] * 100 + list(range(100, 120))
    assert list(runs["c"]) == []
    assert runs["c"].stop["num_events"] == {"primary": 0}
    assert {run.start["original_run_uid"] for run in runs.values()} == {"a", "b", "c"}


def test_a_run_can_be_processed_again_and_found_by_the_raw_uid(root, options, sink):
    write_run(sink, range(2))
    first = sink.derived_uid("raw-1")
    write_run(sink, range(2))
    write_run(sink, range(2), uid="raw-2")
    found = root[options.container].search(Key("start.original_run_uid") == "raw-1")
    assert set(found) == {first, sink.derived_uid("raw-1")}


def test_large_frames_go_in_requests_that_a_websocket_takes(root, options, sink):
    write_run(sink, range(5), shape=(400, 400))
    arrays = derived(root, options, sink)["primary"].base
    assert indices_in(arrays["mask"].read()) == list(range(5))
    for name in ("mask", "valid_bits"):
        assert arrays[name].shape == (5, 400, 400)
        assert arrays[name].chunks[0] == (2, 2, 1)  # three rows of bits are 960 kB


def test_other_class_maps_are_published_where_asked_for(root, options, make_sink):
    sink = make_sink(replace(options, arrays=("mask", "teacher", "student")))
    student = np.full((6, 8), 2, np.uint8)
    sink.open(run_info())
    sink.write("raw-1", [mask_of(0)])
    sink.write("raw-1", [mask_of(1, source="fused", alternatives={"student": student})])
    sink.close("raw-1", account_of(2))
    assert sink.drain(30)
    run = derived(root, options, sink)
    assert indices_in(stored_masks(run)) == [0, 1]
    assert indices_in(stored_masks(run, "teacher")) == [0, -1]
    assert np.array_equal(stored_masks(run, "student")[1], student)
    assert (stored_masks(run, "student")[0] == 255).all()
    assert dict(run["primary"].read().sizes) == {"time": 2, "y": 6, "x": 8}


def test_a_mask_of_another_size_gets_a_row_that_says_so(root, options, sink):
    sink.open(run_info())
    sink.write("raw-1", [mask_of(0), mask_of(1, shape=(3, 3)), mask_of(2)])
    sink.close("raw-1", account_of(3))
    assert sink.drain(30)
    run = derived(root, options, sink)
    assert indices_in(stored_masks(run)) == [0, -1, 2]
    table = run["primary"].base["internal"].read()
    assert table.status.tolist() == ["ok", "refused", "ok"]
    assert table.reason.tolist()[1] == "mask is (3, 3), those of this run are (6, 8)"


def test_a_run_that_begins_with_frames_of_unknown_size_waits_for_the_first_size(
    root, options, sink
):
    unknown = replace(mask_of(0), classes=np.empty((0, 0), np.uint8), status="lost", source="none")
    unknown = replace(unknown, frame=replace(unknown.frame, shape=(0, 0)))
    sink.open(run_info())
    sink.write("raw-1", [unknown])
    assert sink.drain(30)
    sink.write("raw-1", [mask_of(1)])
    sink.close("raw-1", account_of(2))
    assert sink.drain(30)
    assert indices_in(stored_masks(derived(root, options, sink))) == [-1, 1]


def test_containers_that_exist_are_used_and_missing_ones_are_made(root, options, make_sink):
    first, second = make_sink(options), make_sink(options)
    write_run(first, range(1))
    write_run(second, range(1), uid="raw-2")
    assert len(root[options.container]) == 2


def test_rows_are_stored_once_when_the_answer_of_a_request_is_lost(root, options, make_sink, lossy):
    sink = make_sink(options, lossy(lambda request: request.method in ("PATCH", "POST")))
    sink.open(run_info())
    for index in range(0, 6, 2):
        sink.write("raw-1", masks_of([index, index + 1]))
        assert sink.drain(30)
    sink.close("raw-1", account_of(6))
    assert until(lambda: sink.address("raw-1").startswith("http"))
    run = derived(root, options, sink)
    assert indices_in(stored_masks(run)) == list(range(6))
    assert run["primary"].base["internal"].read().raw_index.tolist() == list(range(6))
    assert run.stop["num_events"] == {"primary": 6}


def test_a_run_that_is_not_open_is_an_error_that_names_it(sink):
    with pytest.raises(StoreError, match="nowhere is not open"):
        sink.write("nowhere", [mask_of(0)])
    sink.open(run_info())
    sink.close("raw-1", account_of(0))
    with pytest.raises(StoreError, match="raw-1 is not open"):
        sink.close("raw-1", account_of(0))
    assert sink.stored("nowhere") == 0
    assert sink.address("nowhere") == ""


def test_shutdown_stores_what_is_left(root, options, make_sink):
    sink = make_sink(replace(options, batch_seconds=600.0))
    sink.open(run_info())
    sink.write("raw-1", masks_of(range(3)))
    sink.shutdown()
    assert sink.stored("raw-1") == 3
    assert indices_in(stored_masks(derived(root, options, sink))) == [0, 1, 2]
