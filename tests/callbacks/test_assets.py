"""What resource and stream_resource documents say, as the devices of the field write them."""

from typing import Any

import pytest
from event_model import compose_stream_resource
from ptychoseg_callbacks.assets.asset import HDF5, TIFF, asset_of_resource, asset_of_stream_resource
from ptychoseg_callbacks.assets.keys import ImageKey

from ptychoseg_stream.errors import DatasetError

KEY = ImageKey("primary", "det_image", (12, 16), 3, "<u2")


def resource(spec: str = "AD_HDF5", path: str = "scan/frames.h5", **more: Any) -> dict[str, Any]:
    doc = {"uid": "r1", "spec": spec, "root": "/data", "resource_path": path}
    return doc | {"resource_kwargs": {}} | more


def stream_resource(**parameters: Any) -> dict[str, Any]:
    return dict(
        compose_stream_resource(
            mimetype=parameters.pop("mimetype", HDF5),
            uri=parameters.pop("uri", "file://localhost/data/frames.h5"),
            data_key="det_image",
            parameters=parameters,
        ).stream_resource_doc
    )


def test_stream_resource_of_ophyd_async_is_a_dataset_of_a_file() -> None:
    asset = asset_of_stream_resource(
        stream_resource(dataset="/entry/data/data", chunk_shape=(1, 12, 16)), KEY
    )
    assert (asset.uri, asset.mimetype) == ("file://localhost/data/frames.h5", HDF5)
    assert (asset.dataset, asset.frames_per_point) == ("/entry/data/data", 3)
    assert (asset.shape, asset.dtype, asset.chunk_shape) == ((12, 16), "<u2", (1, 12, 16))


def test_older_stream_resource_has_path_multiplier_and_spec() -> None:
    doc = resource("AD_HDF5_SWMR_SLICE", resource_kwargs={"path": "/images", "multiplier": 5})
    asset = asset_of_stream_resource(doc | {"data_key": "det_image"})
    assert (asset.uri, asset.dataset, asset.frames_per_point) == (
        "/data/scan/frames.h5",
        "/images",
        5,
    )


@pytest.mark.parametrize(
    ("spec", "dataset"),
    [
        ("AD_HDF5", "/entry/data/data"),
        ("AD_HDF5_SWMR", "/entry/data/data"),
        ("TPX_HDF5", "/entry/instrument/detector/data"),
        ("AD_HDF5_SWMR_STREAM", ""),
    ],
)
def test_spec_says_where_the_frames_are_in_the_file(spec: str, dataset: str) -> None:
    asset = asset_of_resource(resource(spec, resource_kwargs={"frame_per_point": 4}))
    assert (asset.mimetype, asset.dataset, asset.frames_per_point) == (HDF5, dataset, 4)
    assert asset.span({"point_number": 2}) == range(8, 12)
    named = resource(spec, resource_kwargs={"dataset": "/mine"})
    assert asset_of_resource(named).dataset == "/mine"


def test_tiff_resource_names_a_folder_and_one_file_per_frame() -> None:
    kwargs = {"template": "%s%s_%6.6d.tiff", "filename": "abc", "frame_per_point": 2}
    asset = asset_of_resource(resource("AD_TIFF", "scan", resource_kwargs=kwargs))
    assert (asset.uri, asset.mimetype) == ("/data/scan/", TIFF)
    assert (asset.template, asset.filename) == ("%s%s_%6.6d.tiff", "abc")
    assert asset.frames_per_file == 1


@pytest.mark.parametrize(
    ("parameters", "per_file"),
    [
        ({"chunk_shape": (1, 12, 16)}, 1),
        ({"chunk_shape": (3, 12, 16)}, 3),
        ({"chunk_shape": (1,)}, 3),  # of another rank than a frame: a file holds an event
        ({}, 3),
        ({"files_per_datum": 3}, 1),
        ({"multiplier": 3}, 1),
        ({"join_method": "concat", "chunk_shape": (1,)}, 1),
    ],
)
def test_frames_per_file_of_a_sequence_are_counted_as_bluesky_does(
    parameters: dict[str, Any], per_file: int
) -> None:
    doc = stream_resource(mimetype=TIFF, uri="file:///d/", template="a_{:06d}.tif", **parameters)
    assert asset_of_stream_resource(doc, KEY).frames_per_file == per_file


def test_frames_per_file_agree_with_the_consolidators_of_bluesky() -> None:
    consolidators = pytest.importorskip("bluesky_tiled_plugins.writing.consolidators")
    descriptor: Any = {"data_keys": {"det_image": {"shape": [3, 12, 16], "dtype_numpy": "<u2"}}}
    for chunk_shape in [(1, 12, 16), (3, 12, 16), (1,)]:
        doc: Any = stream_resource(mimetype=TIFF, template="_{:d}.tif", chunk_shape=chunk_shape)
        theirs = consolidators.TIFFConsolidator(doc, descriptor)
        ours = asset_of_stream_resource(doc, KEY)
        assert theirs.files_per_datum * ours.frames_per_file == 3


def test_windows_path_of_a_resource_keeps_its_drive_and_loses_its_backslashes() -> None:
    doc = resource(path="scan\\a.h5") | {"root": "X:\\data", "path_semantics": "windows"}
    assert asset_of_resource(doc).uri == "X:/data/scan/a.h5"


def test_resource_path_that_begins_with_a_slash_is_below_its_root() -> None:
    assert asset_of_resource(resource(path="/frames.h5")).uri == "/data/frames.h5"


def test_datum_is_a_range_of_frames() -> None:
    asset = asset_of_resource(resource(resource_kwargs={"frame_per_point": 2}))
    assert asset.span({"point_number": 0}) == range(0, 2)
    assert asset.span({"dataset": "/a", "frame": 3}) == range(6, 8)
    assert asset.span({"indices": {"start": 1, "stop": 4}}) == range(2, 8)
    assert asset_of_resource(resource("newton", "")).span({"gap": 0.0}) is None


@pytest.mark.parametrize(
    "datum",
    [
        {},
        {"gap": 1.0},
        {"point_number": -1},
        {"point_number": 1.5},
        {"point_number": float("nan")},
        {"point_number": "1"},
        {"point_number": 10**30},
        {"point_number": True},
        {"indices": {"start": 4, "stop": 1}},
        {"indices": {"start": 0, "stop": 10**9}},
        {"indices": {}},
    ],
)
def test_datum_that_names_no_frame_is_refused(datum: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=r"datum of /data/scan/frames\.h5"):
        asset_of_resource(resource()).span(datum)


@pytest.mark.parametrize(
    "change",
    [
        {"spec": None},
        {"spec": ["AD_HDF5"]},
        {"root": 7},
        {"resource_path": b"frames.h5"},
        {"resource_path": "a\0b"},
        {"resource_path": "x" * 10_000},
        {"resource_kwargs": [1]},
        {"resource_kwargs": {"frame_per_point": -3}},
        {"resource_kwargs": {"frame_per_point": 10**12}},
        {"resource_kwargs": {"frame_per_point": "many"}},
        {"resource_kwargs": {"chunk_shape": "abc"}},
        {"resource_kwargs": {"chunk_shape": [0, 1, 1]}},
        {"resource_kwargs": {"dataset": 5}},
        {"resource_kwargs": {"template": 5}},
    ],
)
def test_resource_that_makes_no_sense_is_refused_by_its_uid(change: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=r"resource r1"):
        asset_of_resource(resource() | change)


@pytest.mark.parametrize(
    "change",
    [{"uri": None}, {"uri": ""}, {"mimetype": 3}, {"parameters": None}, {"parameters": {}}],
)
def test_stream_resource_that_makes_no_sense_is_refused_by_its_uid(change: dict[str, Any]) -> None:
    doc = stream_resource(dataset="/data") | {"uid": "s1"} | change
    with pytest.raises(DatasetError, match=r"stream_resource s1"):
        asset_of_stream_resource(doc)


def test_slice_of_a_dataset_is_refused_rather_than_read_whole() -> None:
    doc = stream_resource(dataset="/data", slice=(":", "0:4", "0:4"))
    with pytest.raises(DatasetError, match=r"slice"):
        asset_of_stream_resource(doc)
