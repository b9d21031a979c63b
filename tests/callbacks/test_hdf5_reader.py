"""Frames of HDF5 files: growing, late, compressed, of many axes, with gaps, and damaged."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from ptychoseg_callbacks.assets.hdf5_reader import Hdf5Reader
from ptychoseg_callbacks.assets.options import ReaderOptions
from ptychoseg_callbacks.assets.paths import Fence
from ptychoseg_callbacks.assets.patience import Patience
from reader_support import SIDES, numbered, numbers, reader_of, write_hdf5

from ptychoseg_stream.errors import DatasetError

# Writes a frame for each line on its standard input, and answers with a line.
_WRITER = """
import sys, h5py, numpy as np
path, swmr = sys.argv[1], sys.argv[2] == "swmr"
with h5py.File(path, "w", libver="latest" if swmr else "earliest") as file:
    shape = (0, 12, 16)
    data = file.create_dataset("frames", shape, "u2", maxshape=(None, 12, 16), chunks=(1, 12, 16))
    file.flush()
    if swmr:
        file.swmr_mode = True
    for number, _ in enumerate(sys.stdin):
        data.resize(number + 1, axis=0)
        data[number] = number
        data.flush()
        file.flush()
        print(number, flush=True)
"""


class Writer:
    """Another process that writes one frame each time it is told."""

    def __init__(self, path: Path, mode: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Writer":
        return self

    def write(self, frames: int = 1) -> None:
        for _ in range(frames):
            print("one more", file=self._process.stdin, flush=True)
            self._process.stdout.readline()

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=20)


def test_file_that_another_process_is_writing_is_followed(tmp_path: Path) -> None:
    reader = reader_of(tmp_path / "growing.h5", read_timeout=20.0)
    with Writer(tmp_path / "growing.h5", "swmr") as writer:
        writer.write()
        assert numbers(reader.read(0, 1)) == [0]
        later = threading.Timer(0.1, writer.write, [2])
        later.start()
        assert numbers(reader.read(0, 3)) == [0, 1, 2]  # announced before they were written
        later.join()
        reader.close()


def test_writer_that_is_not_in_swmr_mode_is_named_and_the_way_round_is_told(tmp_path: Path) -> None:
    path = tmp_path / "locked.h5"
    with Writer(path, "plain") as writer:
        writer.write(2)
        with pytest.raises(DatasetError, match=r"locked\.h5:frames.*SWMR mode.*locking"):
            reader_of(path).read(0, 2)
        unlocked = reader_of(path, locking=False)
        assert numbers(unlocked.read(0, 2)) == [0, 1]
        writer.write()
        assert numbers(unlocked.read(0, 3)) == [0, 1, 2]
        unlocked.close()


def test_missing_file_costs_one_timeout_and_is_found_when_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "late.h5"
    slept: list[float] = []
    patience = Patience(0.2, slept.append)
    reader = Hdf5Reader(str(path), "frames", ReaderOptions(), Fence(), patience)
    for _ in range(3):
        with pytest.raises(DatasetError, match=r"late\.h5:frames.*root_map"):
            reader.read(0, 1)
        assert sum(slept) == pytest.approx(0.2)
    write_hdf5(path, count=2)
    assert numbers(reader.read(0, 2)) == [0, 1]
    assert numbers(reader.read(1, 5)) == [1]
    assert sum(slept) == pytest.approx(0.4)  # patient again
    reader.close()


def test_dataset_that_comes_after_its_file_is_waited_for(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "a.h5", "other")

    def come(_: float) -> None:
        reader.close()
        if "frames" not in h5py.File(path, "r"):
            write_hdf5(path)

    patience = Patience(0.1, come)
    reader = Hdf5Reader(str(path), "frames", ReaderOptions(), Fence(), patience)
    assert numbers(reader.read(1, 3)) == [1, 2]
    reader.close()


@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 3), (1, 6), (6, 1)])
def test_leading_axes_are_one_run_of_frames(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "grid.h5"
    with h5py.File(path, "w") as file:
        file["frames"] = numbered(6).reshape(*shape, *SIDES)
    reader = reader_of(path)
    assert numbers(reader.read(0, 6)) == [0, 1, 2, 3, 4, 5]
    assert numbers(reader.read(2, 5)) == [2, 3, 4]
    assert np.array_equal(reader.read(4, 5)[0], numbered(6)[4])
    reader.close()


@pytest.mark.parametrize(
    "packing",
    [
        {},
        {"chunks": (1, *SIDES), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (3, 5, 7), "compression": "lzf"},
        {"chunks": (1, *SIDES), **hdf5plugin.Bitshuffle(cname="lz4")},
        {"chunks": (2, *SIDES), **hdf5plugin.Bitshuffle(cname="zstd")},
        {"chunks": (1, *SIDES), **hdf5plugin.Bitshuffle(cname="none")},
        {"chunks": (1, *SIDES), **hdf5plugin.LZ4()},
        {"chunks": (1, *SIDES), **hdf5plugin.Blosc()},
        {"chunks": (1, *SIDES), **hdf5plugin.Zstd()},
        {"chunks": (1, *SIDES), **hdf5plugin.BZip2()},
    ],
    ids=lambda packing: str(packing.get("compression", "plain")),
)
def test_compressed_frames_are_read_as_they_were_written(
    tmp_path: Path, packing: dict[str, Any]
) -> None:
    reader = reader_of(write_hdf5(tmp_path / "packed.h5", count=5, **packing))
    assert np.array_equal(reader.read(1, 5), numbered(5)[1:])
    reader.close()


def test_frames_that_were_never_written_are_not_zeros(tmp_path: Path) -> None:
    path = tmp_path / "preallocated.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("frames", (8, *SIDES), "u2", chunks=(1, *SIDES))
        data[:3] = numbered(3)
        data[4:6] = numbered(2, first=4)
        file.create_dataset("nothing", (8, *SIDES), "u2")
    reader = reader_of(path)
    assert numbers(reader.read(0, 8)) == [0, 1, 2]
    assert reader.read(3, 8).shape == (0, *SIDES)
    assert numbers(reader.read(4, 8)) == [4, 5]
    reader.close()
    nothing = reader_of(path, "nothing")
    assert len(nothing.read(0, 8)) == 0
    nothing.close()


def test_grid_that_is_being_filled_gives_the_frames_there_are(tmp_path: Path) -> None:
    path = tmp_path / "grid.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("frames", (2, 3, *SIDES), "u2", chunks=(1, 1, *SIDES))
        data[0] = numbered(3)
        data[1, 0] = numbered(1, first=3)[0]
    reader = reader_of(path)
    assert numbers(reader.read(1, 6)) == [1, 2, 3]
    reader.close()


@pytest.mark.parametrize("content", ["group", "image", "text", "names", "complex", "empty"])
def test_dataset_that_is_no_stack_of_images_is_refused_by_name(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "odd.h5"
    if content == "text":
        path.write_text("not HDF5")
    else:
        with h5py.File(path, "w") as file:
            if content == "group":
                file.create_group("frames")
            if content == "image":
                file["frames"] = numbered(1)[0]
            if content == "names":
                file["frames"] = np.full((2, 3, 3), "a name", dtype=h5py.string_dtype())
            if content == "complex":
                file["frames"] = np.ones((2, *SIDES), complex)
            if content == "empty":
                file.create_dataset("frames", (3, 0, 16), "u2")
    reader = reader_of(path)
    with pytest.raises(DatasetError, match=r"odd\.h5:frames"):
        reader.read(0, 1)
    reader.close()


@pytest.mark.parametrize("name", ["", "/", "a/../frames", "frames/x", "\ud800", "fr\0ames"])
def test_odd_name_of_a_dataset_is_an_error_of_ours(tmp_path: Path, name: str) -> None:
    reader = reader_of(write_hdf5(tmp_path / "a.h5"), name)
    with pytest.raises(DatasetError):
        reader.read(0, 1)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_damaged_file_is_an_error_and_never_blocks(tmp_path: Path, libver: str) -> None:
    """HDF5 reads metadata with a wrong checksum again and again, for years by default."""
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset("frames", data=numbered(3), chunks=(1, *SIDES), compression="gzip")
    good = path.read_bytes()
    random = np.random.default_rng(3)
    refused = 0
    for _ in range(60):
        damaged = bytearray(good)
        for place in random.integers(0, min(len(good), 900), 8):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        reader = reader_of(path, read_timeout=0.0)
        try:
            assert reader.read(0, 3).shape[1:] != ()
        except DatasetError as error:
            assert "damaged.h5:frames" in str(error)  # noqa: PT017  # others are read all the same
            refused += 1
        reader.close()
    assert refused > 30
