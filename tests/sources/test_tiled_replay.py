"""Runs written by real writers to a real server come back as documents, frame by frame."""

import warnings
from datetime import datetime, timedelta

import bluesky.callbacks.tiled_writer as old_writer
import numpy as np
import pytest
from tiled_support import (
    address_of,
    area_detector_run,
    container_of,
    engine,
    file_detector,
    frames_of,
    inline_detector,
    pausing,
    points,
    replayed,
    seq_nums,
    writer,
)

from ptychoseg_stream.errors import SourceError
from ptychoseg_stream.sim.plans import fly_frames
from ptychoseg_stream.sources.tiled.client import TiledAddress, TiledClient
from ptychoseg_stream.sources.tiled.documents import Wanted
from ptychoseg_stream.sources.tiled.replay import EXPORT, ReplayOptions, TiledReplay, exported
from ptychoseg_stream.sources.tiled.search import Selection, moment

pytestmark = pytest.mark.usefixtures("api_key")


@pytest.mark.parametrize("dtype", ["<u2", "<f4", "<i4"])
@pytest.mark.parametrize("batch_size", [1, 4, 10_000])
def test_frames_of_events_come_back_as_they_were_written(
    tiled_server, container, dtype, batch_size
):
    frames = frames_of(6, dtype)
    scan = engine(writer(tiled_server, container, batch_size=batch_size))
    (uid,) = scan(points(inline_detector(frames), 6))
    documents = replayed(TiledReplay(address_of(tiled_server, container)))
    assert documents.names() == ["start", "descriptor", *["event"] * 6, "stop"]
    assert documents.documents[0][1]["uid"] == documents.documents[-1][1]["run_start"] == uid
    images = documents.images("det_image")
    assert images.dtype == frames.dtype
    np.testing.assert_array_equal(images, frames)
    assert seq_nums(documents.events()) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("old", [False, True], ids=["plugins", "bluesky"])
@pytest.mark.parametrize("fly", [False, True], ids=["steps", "fly"])
def test_frames_in_files_come_back_from_either_writer(
    tiled_server, container, detector_files, old, fly
):
    frames = frames_of(5, seed=1)
    if old:
        store = old_writer.TiledWriter(container_of(tiled_server, container), batch_size=1)
    else:
        store = writer(tiled_server, container)
    detector = file_detector(frames, detector_files, f"{old}-{fly}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older writer's own
        engine(store)(fly_frames(detector, 5) if fly else points(detector, 5))
    documents = replayed(TiledReplay(address_of(tiled_server, container)))
    np.testing.assert_array_equal(documents.images("cam"), frames)
    (descriptor,) = [doc for name, doc in documents.documents if name == "descriptor"]
    assert "external" not in descriptor["data_keys"]["cam"]
    assert len({event["uid"] for event in documents.events()}) == 5


@pytest.mark.parametrize("per", [1, 3])
def test_frames_of_area_detector_files_come_back(tiled_server, container, detector_files, per):
    frames = frames_of(4 * per, seed=6)
    store = writer(tiled_server, container)
    for name, doc in area_detector_run(frames, per, detector_files / f"area-{per}.h5"):
        store(name, doc)
    documents = replayed(TiledReplay(address_of(tiled_server, container)))
    assert documents.names() == ["start", "descriptor", *["event"] * 4, "stop"]
    np.testing.assert_array_equal(documents.images("cam"), frames)
    assert [event["data"]["motor"] for event in documents.events()] == [0.0, 0.5, 1.0, 1.5]


def test_points_that_were_taken_again_keep_their_numbers_and_images(tiled_server, container):
    frames = frames_of(12, seed=2)
    scan = engine(writer(tiled_server, container))
    with pytest.raises(Exception, match="pause"):
        scan(pausing(inline_detector(frames), 7, pause_at=4))
    scan.resume()
    documents = replayed(TiledReplay(address_of(tiled_server, container)))
    numbers = seq_nums(documents.events())
    assert numbers == [1, 2, 3, 4, 5, 4, 5, 6, 7]
    np.testing.assert_array_equal(documents.images("det_image"), frames[: len(numbers)])


def test_runs_are_chosen_by_uid_time_and_what_their_start_says(tiled_server, container):
    scan = engine(writer(tiled_server, container))
    detector = inline_detector(frames_of(9))
    uids = [
        scan(points(detector, 2, md={"sample": sample, "number": n}))[0]
        for n, sample in enumerate(["gold", "gold", "7"])
    ]
    address = address_of(tiled_server, container)

    def chosen(uri: str = address, **selection) -> list[int]:
        documents = replayed(TiledReplay(uri, Selection(**selection)))
        return [uids.index(doc["uid"]) for name, doc in documents.documents if name == "start"]

    assert chosen() == [0, 1, 2]
    assert chosen(f"{address}/{uids[1]}") == [1]
    assert chosen(f"{address}/{uids[2]},{uids[0]}") == [2, 0]
    assert chosen(where={"sample": "gold"}) == [0, 1]
    assert chosen(where={"sample": "gold", "number": "1"}) == [1]
    assert chosen(where={"sample": "7"}) == [2]
    assert chosen(since="1h", until="") == [0, 1, 2]
    tomorrow = (datetime.now() + timedelta(days=1)).date().isoformat()
    with pytest.raises(SourceError, match="see since, until and where"):
        chosen(since=tomorrow)
    with pytest.raises(SourceError, match="has no run nowhere"):
        chosen(f"{address}/nowhere")


def test_a_run_without_a_stop_document_ends_as_failed(tiled_server, container):
    frames = frames_of(4)
    store = writer(tiled_server, container)

    def all_but_the_stop(name, doc):
        if name != "stop":
            store(name, doc)

    (uid,) = engine(all_but_the_stop)(points(inline_detector(frames), 4))
    address = address_of(tiled_server, container)
    documents = replayed(TiledReplay(f"{address}/{uid}"))
    np.testing.assert_array_equal(documents.images("det_image"), frames)
    name, stop = documents.documents[-1]
    assert (name, stop["exit_status"]) == ("stop", "fail")
    assert "no stop document" in stop["reason"]
    # Among others it is left out: it may be running.
    with pytest.raises(SourceError, match="no run"):
        replayed(TiledReplay(address))


def test_what_the_server_exports_holds_the_same_images(tiled_server, container):
    frames = frames_of(3, seed=5)
    (uid,) = engine(writer(tiled_server, container))(points(inline_detector(frames), 3))
    path = container, uid
    with TiledClient(TiledAddress.parse(tiled_server.uri)) as client:
        documents = list(exported(client.text(path, EXPORT), path))
    images = [doc["data"]["det_image"] for name, doc in documents if name == "event"]
    np.testing.assert_array_equal(images, frames)
    assert {image.dtype for image in images} == {frames.dtype}
    assert documents[0][0] == "start"
    assert documents[-1][0] == "stop"


def test_images_that_the_server_cannot_read_are_said_to_be_lost(
    tiled_server, container, detector_files
):
    frames = frames_of(3)
    detector = file_detector(frames, detector_files, "to be deleted")
    (uid,) = engine(writer(tiled_server, container))(points(detector, 3))
    (detector_files / "to be deleted.h5").unlink()
    source = TiledReplay(
        address_of(tiled_server, f"{container}/{uid}"),
        wanted=Wanted(read_wait=0.0),
        options=ReplayOptions(attempts=2, retry_wait=0.01),
    )
    documents = replayed(source)
    assert documents.names() == ["start", "descriptor", *["event"] * 3, "stop"]
    for event in documents.events():
        assert "(500)" in event["data"]["cam"]["ptychoseg_dropped"]
        assert event["data"]["cam"]["shape"] == [1, *frames.shape[1:]]


@pytest.mark.parametrize(
    ("text", "base", "path"),
    [
        ("tiled://127.0.0.1:8000", "http://127.0.0.1:8000", ()),
        ("tiled://host:1/a/b%20c/", "http://host:1", ("a", "b c")),
        ("tiled+https://host/raw", "https://host", ("raw",)),
        ("https://host/tiled/api/v1/metadata/a/b", "https://host/tiled", ("a", "b")),
        ("http://host:8000/api/v1", "http://host:8000", ()),
    ],
)
def test_addresses_are_understood(text, base, path):
    assert TiledAddress.parse(text) == TiledAddress(base, path)


@pytest.mark.parametrize(
    "text",
    ["", "host:8000", "ftp://host/a", "tiled://", "tiled://host:port/", "tiled://me:pw@host/a"],
)
def test_addresses_that_are_none_are_refused(text):
    with pytest.raises(SourceError, match="tiled://host:port/path"):
        TiledAddress.parse(text)


def test_a_key_in_the_address_is_refused_and_not_repeated():
    for text in ("tiled://host/a?api_key=5ecret", "tiled://5ecret@host/a", "tiled://host/#5ecret"):
        with pytest.raises(SourceError, match="in the environment") as told:
            TiledReplay(text)
        assert "5ecret" not in str(told.value)


def test_a_wrong_key_is_told_with_the_scopes_that_are_needed(tiled_server, monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "5ecret")
    options = ReplayOptions(api_key_env="OTHER_KEY")
    with pytest.raises(SourceError, match=r"set OTHER_KEY .*read:metadata, read:data") as told:
        replayed(TiledReplay(address_of(tiled_server), options=options))
    assert "5ecret" not in str(told.value)


def test_times_are_dates_or_spans():
    now = 1_000_000.0
    assert moment("", now) is None
    assert moment("2h", now) == now - 7200
    assert moment("1.5d", now) == now - 129_600
    assert moment("90min", now) == now - 5400
    assert moment("2026-11-01T14:30+00:00", now) == 1793543400.0
    assert moment("2026-11-01", now) == datetime(2026, 11, 1).timestamp()
    with pytest.raises(ValueError, match="since: 'yesterday' is no time"):
        Selection(since="yesterday")


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: ReplayOptions(timeout=0), "timeout"),
        (lambda: ReplayOptions(attempts=0), "attempts"),
        (lambda: ReplayOptions(retry_wait=-1), "retry_wait"),
        (lambda: Wanted(row_wait=-1), "row_wait"),
        (lambda: Wanted(read_wait=-1), "read_wait"),
        (lambda: Selection(where={"": "a"}), "where"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, field):
    with pytest.raises(ValueError, match=f"^{field}: "):
        make()
