"""HDF5 files that are too large, or say that they are, or inflate to more than they say."""

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from reader_support import SIDES, numbered, numbers, reader_of, write_hdf5

from ptychoseg_stream.errors import DatasetError


def test_enormous_declared_image_is_refused_with_the_option_to_raise(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("frames", (2, 2**31, 2**31), "u2", chunks=(1, 64, 64))
    with pytest.raises(DatasetError, match=r"huge\.h5:frames.*max_pixels"):
        reader_of(tmp_path / "huge.h5").read(0, 1)


def test_enormous_declared_length_reads_what_is_there(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "long.h5", "w") as file:
        shape, most = (2**50, *SIDES), (None, *SIDES)
        data = file.create_dataset("frames", shape, "u2", maxshape=most, chunks=(1, *SIDES))
        data[0] = numbered(1)[0]
    reader = reader_of(tmp_path / "long.h5")
    assert numbers(reader.read(0, 2**49)) == [0]
    assert len(reader.read(2**50, 2**51)) == 0
    reader.close()


def test_chunk_of_zeros_that_inflates_to_too_much_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "frames", (2**10, 512, 512), "u2", chunks=(2**10, 512, 512), compression="gzip"
        )
        data.id.write_direct_chunk((0, 0, 0), b"x" * 1000)
    with pytest.raises(DatasetError, match=r"bomb\.h5:frames.*536870912 bytes.*max_read_bytes"):
        reader_of(path).read(0, 1)


@pytest.mark.parametrize(
    "packing",
    [
        {"compression": "gzip"},
        dict(hdf5plugin.BZip2()),
        dict(hdf5plugin.LZ4()),
        dict(hdf5plugin.Bitshuffle(cname="lz4")),
        dict(hdf5plugin.Blosc()),
        dict(hdf5plugin.Zstd()),
    ],
    ids=lambda packing: str(packing["compression"]),
)
def test_chunk_that_inflates_to_more_than_it_says_is_refused(
    tmp_path: Path, packing: dict[str, Any]
) -> None:
    zeros = np.zeros((1, 2048, 2048), np.uint16)
    with h5py.File(tmp_path / "large.h5", "w") as large:
        data = large.create_dataset("frames", data=zeros, chunks=zeros.shape, **packing)
        raw = data.id.read_direct_chunk((0, 0, 0))[1]
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        data = file.create_dataset("frames", (1, 64, 64), "u2", chunks=(1, 64, 64), **packing)
        data.id.write_direct_chunk((0, 0, 0), raw)
    reader = reader_of(tmp_path / "bomb.h5", max_read_bytes=2**20)
    with pytest.raises(DatasetError, match=r"bomb\.h5:frames.*inflates to"):
        reader.read(0, 1)


def test_filter_that_cannot_be_checked_is_refused_by_number(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "a.h5", chunks=(1, *SIDES), **hdf5plugin.Blosc2())
    with pytest.raises(DatasetError, match=r"a\.h5:frames.*filters 32026.*gzip"):
        reader_of(path).read(0, 1)


def test_one_read_takes_no_more_memory_than_allowed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["frames"] = numbered(9, sides=(128, 128))
    reader = reader_of(tmp_path / "a.h5", max_read_bytes=2**17)
    assert numbers(reader.read(0, 9)) == [0, 1, 2, 3]
    assert numbers(reader.read(4, 9)) == [4, 5, 6, 7]
    reader.close()


def test_million_chunks_per_frame_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("frames", (2, 2048, 2048), "u2", chunks=(1, 1, 2))
    with pytest.raises(DatasetError, match=r"a\.h5:frames has 2097152 chunks per frame"):
        reader_of(tmp_path / "a.h5").read(0, 1)
