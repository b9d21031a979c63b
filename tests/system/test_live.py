"""The whole way: RunEngine, detector, node in its own process, Tiled, and back."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky.run_engine import RunEngine
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, init_devices
from tiled.queries import Key

from ptychoseg_stream.assemble import attach_to, single_threaded
from ptychoseg_stream.evaluation.offline import label_all
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.profile import Profile
from ptychoseg_stream.science.frame import ClassCode
from ptychoseg_stream.sim import Scan
from ptychoseg_stream.sim.detectors import PlayedDetector, PlayedHDF5Detector
from ptychoseg_stream.sim.plans import fly_frames, ptycho_scan, sample_stage, take_frames
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.spool import waiting
from ptychoseg_stream.sinks.upload import upload_all


def offline(frames: Any, profile: Profile) -> Any:
    single_threaded()
    masks = label_all(frames, profile.node, MemoryStore())
    return np.stack([mask.classes for mask in masks])


def scanned(engine: RunEngine, plan: Any, profile: Profile, tiled: EmbeddedTiled) -> Any:
    """Run a plan with a node attached; return the derived run once all is stored."""
    attachment = attach_to(profile, tiled.api_key)
    try:
        engine.subscribe(attachment)
        (uid,) = engine(plan)
        assert attachment.wait(120)
        assert attachment.vitals().fault == ""
        return derived(tiled.client()["processed"]["ptychoseg"], uid)
    finally:
        attachment.close()


def derived(container: Any, raw_uid: str) -> Any:
    found = container.search(Key("start.original_run_uid") == raw_uid)
    assert len(found) == 1
    return found.values().first()


def mask_of(run: Any) -> Any:
    return np.asarray(run["primary"].base["mask"].read())


@pytest.mark.parametrize("own_process", [True, False])
def test_masks_through_a_run_engine_equal_those_made_offline_byte_by_byte(
    own_process: bool, engine: RunEngine, scan: Scan, profile: Profile, tiled: EmbeddedTiled
) -> None:
    x, y = sample_stage()
    plan = ptycho_scan(PlayedDetector(scan.frames, name="det"), x, y, scan.positions)
    run = scanned(engine, plan, replace(profile, own_process=own_process), tiled)
    assert np.array_equal(mask_of(run), offline(scan.frames, profile))


@pytest.mark.parametrize("plan", [take_frames, fly_frames])
def test_masks_of_a_growing_swmr_file_equal_those_made_offline(
    plan: Any,
    engine: RunEngine,
    scan: Scan,
    profile: Profile,
    tiled: EmbeddedTiled,
    tmp_path: Path,
) -> None:
    provider = StaticPathProvider(UUIDFilenameProvider(), tmp_path)
    with init_devices():
        detector = PlayedHDF5Detector(scan.frames, provider, name="file_det")
    run = scanned(engine, plan(detector, len(scan.frames)), profile, tiled)
    assert np.array_equal(mask_of(run), offline(scan.frames, profile))


def test_a_derived_run_has_one_row_per_frame_with_its_provenance(
    engine: RunEngine, scan: Scan, profile: Profile, tiled: EmbeddedTiled
) -> None:
    plan = take_frames(PlayedDetector(scan.frames, name="det"), len(scan.frames))
    run = scanned(engine, plan, profile, tiled)
    table = run["primary"].base["internal"].read()
    assert table["raw_index"].tolist() == list(range(len(scan.frames)))
    assert table["student_revision"].tolist() == [0] * 5 + [1] * 5 + [2] * 14
    assert set(table["source"]) == {"fused"}
    assert table["centroids_hash"].nunique() == 1
    assert table["student_hash"].nunique() == 3
    assert (table["latency_ms"] > 0).all()
    start, stop = run.metadata["start"], run.metadata["stop"]
    assert start["processing"]["profile"] == "demo"
    assert start["processing"]["options"]["stages"] == [0, 5, 10]
    assert start["class_codes"]["255"] == "invalid"
    assert stop["account"]["received"] == stop["account"]["written"] == len(scan.frames)
    assert dict(run["primary"].read().sizes)["time"] == len(scan.frames)
    assert {"start", "descriptor", "stop"} <= {name for name, _ in run.documents()}


def test_frames_that_cannot_be_labelled_get_rows_of_255_and_the_scan_goes_on(
    engine: RunEngine, scan: Scan, profile: Profile, tiled: EmbeddedTiled
) -> None:
    frames = scan.frames.astype(np.float32)
    frames[3] = np.nan
    frames[7] = -5
    frames[9] = 0
    plan = take_frames(PlayedDetector(frames, name="det"), len(frames))
    run = scanned(engine, plan, profile, tiled)
    masks, table = mask_of(run), run["primary"].base["internal"].read()
    assert table.index[table["status"] == "refused"].tolist() == [3, 7, 9]
    assert (masks[[3, 7, 9]] == ClassCode.INVALID).all()
    assert "NaN" in table["reason"][3]
    assert "above zero" in table["reason"][7]
    assert "shutter" in table["reason"][9]
    assert not (masks[[0, 4, 8, 10]] == ClassCode.INVALID).any()
    account = run.metadata["stop"]["account"]
    assert account["received"] == 24
    assert account["written"] == 21
    assert sum(account["refused"].values()) == 3


def test_background_training_never_holds_a_frame_back(
    engine: RunEngine, scan: Scan, profile: Profile, tiled: EmbeddedTiled
) -> None:
    plan = take_frames(PlayedDetector(scan.frames, name="det", exposure=0.1), len(scan.frames))
    run = scanned(engine, plan, replace(profile, trainer="background"), tiled)
    table = run["primary"].base["internal"].read()
    assert len(table) == len(scan.frames)
    revisions = table["student_revision"].tolist()
    assert revisions == sorted(revisions)  # a student is never taken back
    assert (table["source"] == "teacher").tolist() == [r < 0 for r in revisions]
    assert table["source"][0] == "teacher"  # the first frame did not wait for its student


def test_a_server_that_refuses_costs_neither_the_scan_nor_a_mask(
    engine: RunEngine,
    scan: Scan,
    profile: Profile,
    tiled: EmbeddedTiled,
    caplog: pytest.LogCaptureFixture,
) -> None:
    attachment = attach_to(replace(profile, own_process=False), "not the key")
    engine.subscribe(attachment)
    with caplog.at_level(logging.WARNING):
        result: Any = engine(take_frames(PlayedDetector(scan.frames, name="det"), 24))
        assert attachment.wait(120)
    fault = attachment.vitals().fault
    attachment.close()
    assert len(result) == 1
    assert "TILED_API_KEY" in fault
    (waits,) = waiting(profile.spool)
    assert (waits.rows, waits.closed) == (24, True)
    (sent,) = upload_all(profile.tiled, profile.spool, tiled.api_key, 60)
    assert sent.why == ""
    assert not waiting(profile.spool)
    run = tiled.client()[profile.tiled.container][waits.derived]
    assert np.array_equal(run["primary"].base["mask"].read(), offline(scan.frames, profile))


def test_centroids_are_fitted_once_and_found_again_after_a_restart(
    engine: RunEngine, scan: Scan, profile: Profile, tiled: EmbeddedTiled, tmp_path: Path
) -> None:
    cached = replace(profile, cache=str(tmp_path / "cache"))
    runs = [
        scanned(engine, take_frames(PlayedDetector(frames, name="det"), 4), cached, tiled)
        for frames in (scan.frames, scan.frames[10:])
    ]
    hashes = [set(r["primary"].base["internal"].read()["centroids_hash"]) for r in runs]
    assert hashes[0] == hashes[1]
    assert len(list((tmp_path / "cache").glob("centroids-*.h5"))) == 1
