"""Sequences of files: TIFF with one frame each or several, late, damaged; and HDF5 likewise."""

import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from ptychoseg_callbacks.assets.asset import HDF5, TIFF, asset_of_resource, asset_of_stream_resource
from ptychoseg_callbacks.assets.keys import ImageKey
from ptychoseg_callbacks.assets.readers import Reader, ReaderOptions, open_reader
from reader_support import SIDES, numbered, numbers, write_hdf5

from ptychoseg_stream.errors import DatasetError


def write_tiffs(folder: Path, count: int, name: str = "abc_{:06d}.tiff", **kwargs: Any) -> None:
    folder.mkdir(exist_ok=True)
    for number, frame in enumerate(numbered(count)):
        tifffile.imwrite(folder / name.format(number), frame, **kwargs)


def reader_of_resource(folder: Path, **options: Any) -> Reader:
    """Return the reader of what ophyd's FileStoreTIFF emits."""
    kwargs = {"template": "%s%s_%6.6d.tiff", "filename": "abc", "frame_per_point": 2}
    doc = {"uid": "r1", "spec": "AD_TIFF", "root": str(folder.parent), "resource_path": folder.name}
    asset = asset_of_resource(doc | {"resource_kwargs": kwargs})
    return open_reader(asset, ReaderOptions(**({"read_timeout": 0.02} | options)))


def reader_of_stream(folder: Path, per_file: int = 1, **parameters: Any) -> Reader:
    """Return the reader of what ophyd-async's ADMultipartDataLogic emits."""
    doc = {"uid": "s1", "mimetype": TIFF, "uri": f"file://localhost{folder}/", "data_key": "det"}
    doc["mimetype"] = parameters.pop("mimetype", TIFF)
    told = {"template": "abc_{:06d}.tiff", "chunk_shape": (per_file, *SIDES)} | parameters
    asset = asset_of_stream_resource(
        doc | {"parameters": told}, ImageKey("primary", "det", SIDES, per_file, "<u2")
    )
    return open_reader(asset, ReaderOptions(read_timeout=0.02))


def test_datum_of_ad_tiff_is_as_many_files_as_frames_per_point(tmp_path: Path) -> None:
    write_tiffs(tmp_path / "scan", 6)
    reader = reader_of_resource(tmp_path / "scan")
    assert numbers(reader.read_datum({"point_number": 1})) == [2, 3]
    assert np.array_equal(reader.read(0, 6), numbered(6))
    assert str(reader) == f"{tmp_path}/scan/%s%s_%6.6d.tiff"


def test_stream_of_single_page_files_is_read(tmp_path: Path) -> None:
    write_tiffs(tmp_path / "scan", 4)
    assert numbers(reader_of_stream(tmp_path / "scan").read(1, 4)) == [1, 2, 3]


def test_stream_of_multi_page_files_is_read_across_files(tmp_path: Path) -> None:
    for number in range(3):
        pages = numbered(4, first=4 * number)
        tifffile.imwrite(tmp_path / f"abc_{number:06d}.tiff", pages, photometric="minisblack")
    reader = reader_of_stream(tmp_path, per_file=4)
    assert numbers(reader.read(2, 9)) == [2, 3, 4, 5, 6, 7, 8]


def test_one_file_without_a_number_holds_all_frames(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "all.tiff", numbered(5), photometric="minisblack")
    reader = reader_of_stream(tmp_path, template="all.tiff")
    assert numbers(reader.read(1, 4)) == [1, 2, 3]
    assert numbers(reader.read(3, 9)) == [3, 4]


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_compressed_and_tiled_pages_are_read(tmp_path: Path, compression: str | None) -> None:
    write_tiffs(tmp_path / "scan", 2, compression=compression, tile=(16, 16))
    assert np.array_equal(reader_of_stream(tmp_path / "scan").read(0, 2), numbered(2))


def test_late_file_is_waited_for(tmp_path: Path) -> None:
    write_tiffs(tmp_path / "scan", 1)
    reader = reader_of_resource(tmp_path / "scan", read_timeout=20.0)
    later = threading.Timer(0.1, write_tiffs, [tmp_path / "scan", 3])
    later.start()
    assert numbers(reader.read(0, 3)) == [0, 1, 2]
    later.join()


def test_missing_file_is_named_and_the_files_after_it_are_read(tmp_path: Path) -> None:
    write_tiffs(tmp_path / "scan", 5)
    (tmp_path / "scan" / "abc_000002.tiff").unlink()
    reader = reader_of_stream(tmp_path / "scan")
    assert numbers(reader.read(0, 5)) == [0, 1]
    assert len(reader.read(2, 5)) == 0
    assert numbers(reader.read(3, 5)) == [3, 4]
    with pytest.raises(DatasetError, match=r"abc_000002\.tiff.*root_map"):
        reader.read(2, 3)


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"II*\0", b"II*\0\xff\xff\xff\x7f", b"MM\0*"]
)
def test_damaged_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "abc_000000.tiff").write_bytes(content)
    with pytest.raises(DatasetError, match=r"abc_000000\.tiff"):
        reader_of_stream(tmp_path).read(0, 1)


@pytest.mark.parametrize("cut", range(8, 200, 24))
def test_file_that_is_cut_short_is_an_error_that_names_it(tmp_path: Path, cut: int) -> None:
    write_tiffs(tmp_path, 1)
    path = tmp_path / "abc_000000.tiff"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DatasetError, match=r"abc_000000\.tiff"):
        reader_of_stream(tmp_path).read(0, 1)


def tiff(width: int, height: int, data: bytes, compression: int = 1) -> bytes:
    """Return a TIFF file of one strip, with whatever its header says."""
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 16),
        (259, 3, compression),
        (262, 3, 1),
        (273, 4, 8),
        (278, 4, height),
        (279, 4, len(data)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory


def test_hand_made_file_is_read_when_it_is_honest(tmp_path: Path) -> None:
    packed = zlib.compress(numbered(1)[0].tobytes())
    (tmp_path / "abc_000000.tiff").write_bytes(tiff(SIDES[1], SIDES[0], packed, 8))
    assert np.array_equal(reader_of_stream(tmp_path).read(0, 1), numbered(1))


def test_enormous_declared_image_is_refused_with_the_option_to_raise(tmp_path: Path) -> None:
    (tmp_path / "abc_000000.tiff").write_bytes(tiff(100_000, 100_000, b"x"))
    with pytest.raises(DatasetError, match=r"abc_000000\.tiff, page 0.*max_pixels"):
        reader_of_stream(tmp_path).read(0, 1)


def test_strip_that_might_inflate_to_too_much_is_refused_unread(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(2**27), 9)
    (tmp_path / "abc_000000.tiff").write_bytes(tiff(16, 12, bomb, 8))
    with pytest.raises(DatasetError, match=r"inflate to.*max_read_bytes"):
        reader_of_stream(tmp_path).read(0, 1)


def test_colour_image_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "abc_000000.tiff", np.ones((12, 16, 3), np.uint8), photometric="rgb"
    )
    with pytest.raises(DatasetError, match=r"abc_000000\.tiff.*not a real"):
        reader_of_stream(tmp_path).read(0, 1)


@pytest.mark.parametrize("kind", ["fifo", "symlink"])
def test_file_of_a_sequence_that_is_none_or_lies_outside_is_refused(
    tmp_path: Path, kind: str
) -> None:
    write_tiffs(tmp_path / "outside", 1)
    (tmp_path / "scan").mkdir()
    if kind == "fifo":
        os.mkfifo(tmp_path / "scan" / "abc_000000.tiff")
    else:
        (tmp_path / "scan" / "abc_000000.tiff").symlink_to(tmp_path / "outside" / "abc_000000.tiff")
    reader = reader_of_resource(tmp_path / "scan", roots=(str(tmp_path / "scan"),))
    with pytest.raises(DatasetError, match=r"(FIFO|outside)"):
        reader.read(0, 1)


def test_one_read_takes_no_more_memory_than_allowed(tmp_path: Path) -> None:
    frames = numbered(6, sides=(128, 128))
    tifffile.imwrite(tmp_path / "abc_000000.tiff", frames, photometric="minisblack")
    kwargs = {"template": "abc_{:06d}.tiff", "chunk_shape": (6, 128, 128)}
    doc = {"uid": "s1", "mimetype": TIFF, "uri": f"{tmp_path}/", "parameters": kwargs}
    options = ReaderOptions(max_read_bytes=2**17)
    reader = open_reader(asset_of_stream_resource(doc), options)
    assert numbers(reader.read(0, 6)) == [0, 1, 2, 3]
    assert numbers(reader.read(4, 6)) == [4, 5]


def test_frames_of_another_size_end_a_read(tmp_path: Path) -> None:
    write_tiffs(tmp_path, 2)
    tifffile.imwrite(tmp_path / "abc_000002.tiff", np.ones((8, 8), np.uint16))
    reader = reader_of_stream(tmp_path)
    assert len(reader.read(0, 3)) == 2
    assert reader.read(2, 3).shape == (1, 8, 8)


def test_one_hdf5_file_per_frame_is_read_whatever_its_axes(tmp_path: Path) -> None:
    (tmp_path / "scan").mkdir()
    for number, frame in enumerate(numbered(3)):
        with h5py.File(tmp_path / "scan" / f"abc_{number:06d}.h5", "w") as file:
            file["entry/data/data"] = frame if number == 1 else frame[np.newaxis]
    kwargs = {"template": "%s%s_%6.6d.h5", "filename": "abc"}
    doc = {"uid": "r", "spec": "AD_HDF5_SINGLE", "root": "/", "resource_path": f"{tmp_path}/scan"}
    reader = open_reader(asset_of_resource(doc | {"resource_kwargs": kwargs}))
    assert numbers(reader.read(0, 3)) == [0, 1, 2]
    assert str(reader) == f"{tmp_path}/scan/%s%s_%6.6d.h5:/entry/data/data"


def test_stream_of_hdf5_files_is_read_across_files(tmp_path: Path) -> None:
    for number in range(2):
        write_hdf5(tmp_path / f"abc_{number:06d}.h5", "data", count=3, first=3 * number)
    reader = reader_of_stream(
        tmp_path, per_file=3, mimetype=HDF5, template="abc_{:06d}.h5", dataset="data"
    )
    assert numbers(reader.read(1, 6)) == [1, 2, 3, 4, 5]
