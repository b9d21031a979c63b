"""From the documents of a detector to its frames, whatever their format."""

from pathlib import Path
from typing import Any

import h5py
import pytest
from ptychoseg_callbacks.assets.asset import Asset, asset_of_resource, asset_of_stream_resource
from ptychoseg_callbacks.assets.readers import ReaderOptions, open_reader
from reader_support import SIDES, numbered, numbers, write_hdf5

from ptychoseg_stream.errors import DatasetError

QUICK = ReaderOptions(read_timeout=0.02)


def resource(spec: str, path: Path, **kwargs: Any) -> Asset:
    doc = {"uid": "r1", "spec": spec, "root": "/", "resource_path": str(path).lstrip("/")}
    return asset_of_resource(doc | {"resource_kwargs": kwargs, "path_semantics": "posix"})


@pytest.mark.parametrize("spec", ["AD_HDF5", "AD_HDF5_SWMR"])
def test_every_datum_of_area_detector_is_read_also_the_second(tmp_path: Path, spec: str) -> None:
    """The handler of area-detector-handlers fails at the second one."""
    path = write_hdf5(tmp_path / "a.h5", "entry/data/data", count=6, chunks=(1, *SIDES))
    reader = open_reader(resource(spec, path, frame_per_point=2), QUICK)
    for point in range(3):
        expected = [2 * point, 2 * point + 1]
        assert numbers(reader.read_datum({"point_number": point})) == expected
    reader.close()
    assert numbers(reader.read(5, 6)) == [5]  # opened again
    reader.close()


def test_resource_without_a_dataset_is_read_where_area_detector_writes(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "a.h5", "entry/data/data")
    reader = open_reader(resource("AD_HDF5_SWMR_STREAM", path), QUICK)
    assert numbers(reader.read_datum({"frame": 2})) == [2]
    reader.close()


def test_stream_resource_is_found_through_its_root_map(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "scan" / "a b.h5", "data")
    asset = asset_of_stream_resource(
        {
            "uid": "s1",
            "mimetype": "application/x-hdf5",
            "uri": "file://localhost/X:/scan/a%20b.h5",
            "parameters": {"dataset": "data"},
        }
    )
    options = ReaderOptions(root_map={"X:\\": str(tmp_path)}, roots=(str(tmp_path),))
    reader = open_reader(asset, options)
    assert numbers(reader.read(0, 4)) == [0, 1, 2, 3]
    assert str(reader) == f"{tmp_path}/scan/a b.h5:data"
    reader.close()


def test_eiger_master_file_is_read_through_its_links(tmp_path: Path) -> None:
    for number in range(2):
        name = f"scan_1_data_{number + 1:06d}.h5"
        write_hdf5(tmp_path / name, "entry/data/data", count=3, first=3 * number)
    with h5py.File(tmp_path / "scan_1_master.h5", "w") as file:
        for number in range(2):
            link = h5py.ExternalLink(f"scan_1_data_{number + 1:06d}.h5", "/entry/data/data")
            file[f"entry/data/data_{number + 1:06d}"] = link
    path = tmp_path / "scan_1_master.h5"
    reader = open_reader(resource("HDF5", path, dataset="entry/data/data_000002"), QUICK)
    assert numbers(reader.read(0, 3)) == [3, 4, 5]
    reader.close()


@pytest.mark.parametrize(
    "asset",
    [
        Asset("http://host/a.h5", "application/x-hdf5", dataset="data"),
        Asset("file://other.host/a.h5", "application/x-hdf5", dataset="data"),
        Asset("/data/a.jpg", "multipart/related;type=image/jpeg", template="{:d}.jpg"),
        Asset("/data/a.bin", "application/octet-stream"),
        Asset("/data/", "multipart/related;type=image/tiff", template="%d%d"),
        Asset("/data/x", "", "NOBODY_READS_THIS"),
        Asset("/data/x", "", ""),
    ],
    ids=lambda asset: asset.uri,
)
def test_asset_that_nobody_reads_is_refused_at_once(asset: Asset) -> None:
    with pytest.raises(DatasetError, match=r"(root_map|write frames|template|handlers)"):
        open_reader(asset)


def test_asset_outside_of_the_roots_is_refused_at_once(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "a.h5", "entry/data/data")
    with pytest.raises(DatasetError, match=r"frames\.roots"):
        open_reader(resource("AD_HDF5", path), ReaderOptions(roots=("/nowhere",)))


def test_failed_read_leaves_the_reader_usable(tmp_path: Path) -> None:
    reader = open_reader(resource("AD_HDF5", tmp_path / "a.h5"), QUICK)
    with pytest.raises(DatasetError):
        reader.read(0, 1)
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(DatasetError):
        reader.read(0, 1)
    (tmp_path / "a.h5").unlink()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/data/data"] = numbered(2)
    assert numbers(reader.read(0, 2)) == [0, 1]
    reader.close()
