"""Where an HDF5 file leads to: links, virtual datasets, raw storage, and what is no file at all."""

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from reader_support import SIDES, numbered, numbers, reader_of, write_hdf5

from ptychoseg_stream.errors import DatasetError


def link_to(master: Path, target: Path) -> None:
    with h5py.File(master, "w") as file:
        file["entry/data/data_000001"] = h5py.ExternalLink(str(target), "frames")
        file["frames"] = h5py.SoftLink("/entry/data/data_000001")


def virtual_of(master: Path, target: Path) -> None:
    with h5py.File(master, "w") as file:
        layout = h5py.VirtualLayout((4, *SIDES), "u2")
        layout[:] = h5py.VirtualSource(str(target), "frames", (4, *SIDES))
        file.create_virtual_dataset("frames", layout)


def growing_virtual_of(master: Path, target: Path) -> None:
    with h5py.File(master, "w") as file:
        layout = h5py.VirtualLayout((4, *SIDES), "u2", maxshape=(None, *SIDES))
        source = h5py.VirtualSource(
            str(target), "frames", (4, *SIDES), "u2", maxshape=(None, *SIDES)
        )
        layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
        file.create_virtual_dataset("frames", layout)


def raw_of(master: Path, target: Path) -> None:
    with h5py.File(master, "w") as file:
        size = 4 * SIDES[0] * SIDES[1] * 2
        file.create_dataset("frames", (4, *SIDES), "u2", external=[(str(target), 0, size)])


def linked_source_of(master: Path, target: Path) -> None:
    inside = master.parent / "inside.h5"
    link_to(inside, target)
    virtual_of(master, inside)


def pattern_of(master: Path) -> None:
    h5s = h5py.h5s
    space = h5s.create_simple((4, *SIDES), (h5s.UNLIMITED, *SIDES))
    space.select_hyperslab((0, 0, 0), (h5s.UNLIMITED, 1, 1), (2, 1, 1), (2, *SIDES))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_virtual(space, b"data_%b.h5", b"frames", h5s.create_simple((2, *SIDES)))
    with h5py.File(master, "w") as file:
        h5py.h5d.create(file.id, b"frames", h5py.h5t.NATIVE_UINT16, space, plist)


LEADS = [link_to, virtual_of, growing_virtual_of, raw_of, linked_source_of]
Lead = Callable[[Path, Path], None]


def write_target(path: Path, lead: Lead) -> Path:
    path.parent.mkdir(exist_ok=True)
    if lead is raw_of:
        numbered(4).tofile(path)
        return path
    return write_hdf5(path, maxshape=(None, *SIDES), chunks=(1, *SIDES))


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("way", ["absolute", "dots", "symlink"])
def test_file_outside_of_the_folder_of_its_master_is_refused(
    tmp_path: Path, lead: Lead, way: str
) -> None:
    target = write_target(tmp_path / "outside" / "secret.h5", lead)
    (tmp_path / "scan").mkdir()
    if way == "dots":
        target = Path("../outside/secret.h5")
    if way == "symlink":
        (tmp_path / "scan" / "innocent.h5").symlink_to(target)
        target = Path("innocent.h5")
    lead(tmp_path / "scan" / "master.h5", target)
    reader = reader_of(tmp_path / "scan" / "master.h5")
    with pytest.raises(DatasetError, match=r"(leads to|leads on to|outside)"):
        reader.read(0, 4)


@pytest.mark.parametrize("lead", LEADS)
def test_file_outside_of_the_roots_is_refused_though_it_is_beside_its_master(
    tmp_path: Path, lead: Lead
) -> None:
    target = write_target(tmp_path / "secret.h5", lead)
    (tmp_path / "root").mkdir()
    lead(tmp_path / "root" / "master.h5", target)
    reader = reader_of(tmp_path / "root" / "master.h5", roots=(str(tmp_path / "root"),))
    with pytest.raises(DatasetError, match=r"(outside|leads on to)"):
        reader.read(0, 4)


@pytest.mark.parametrize(
    ("lead", "moved"),
    [
        (link_to, False),
        (link_to, True),
        (virtual_of, False),
        (virtual_of, True),
        (growing_virtual_of, False),
        (raw_of, False),
    ],
)
def test_data_files_beside_their_master_are_read(tmp_path: Path, lead: Lead, moved: bool) -> None:
    """As a detector writes them; also when an absolute name is of before they were moved."""
    write_target(tmp_path / "scan" / "data_000001.h5", lead)
    name = Path("/gone/data_000001.h5" if moved else "data_000001.h5")
    lead(tmp_path / "scan" / "master.h5", name)
    reader = reader_of(tmp_path / "scan" / "master.h5")
    assert np.array_equal(reader.read(0, 4), numbered(4))
    reader.close()


@pytest.mark.parametrize("lead", [link_to, virtual_of, raw_of])
def test_other_folder_is_read_when_it_is_one_of_the_roots(tmp_path: Path, lead: Lead) -> None:
    target = write_target(tmp_path / "data" / "frames.h5", lead)
    (tmp_path / "scan").mkdir()
    lead(tmp_path / "scan" / "master.h5", target)
    roots = (str(tmp_path / "data"), str(tmp_path / "scan"))
    reader = reader_of(tmp_path / "scan" / "master.h5", roots=roots)
    assert numbers(reader.read(0, 4)) == [0, 1, 2, 3]
    reader.close()


@pytest.mark.parametrize("lead", LEADS)
def test_fifo_that_a_file_leads_to_is_refused_and_never_opened(tmp_path: Path, lead: Lead) -> None:
    os.mkfifo(tmp_path / "frames.h5")  # opening it would wait for ever
    lead(tmp_path / "master.h5", Path("frames.h5"))
    with pytest.raises(DatasetError, match=r"(FIFO|leads on to)"):
        reader_of(tmp_path / "master.h5").read(0, 4)


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_what_is_not_a_file_is_refused_without_opening_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "frames.h5"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path("/dev/zero")
    with pytest.raises(DatasetError, match=rf"{path.name} is a (FIFO|folder|device)"):
        reader_of(path).read(0, 1)


def test_symbolic_link_out_of_the_roots_is_refused(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "secret.h5")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "frames.h5").symlink_to(tmp_path / "secret.h5")
    reader = reader_of(tmp_path / "root" / "frames.h5", roots=(str(tmp_path / "root"),))
    with pytest.raises(DatasetError, match=r"outside of the folders.*frames\.roots"):
        reader.read(0, 1)


@pytest.mark.parametrize("lead", [link_to, virtual_of, growing_virtual_of, raw_of])
def test_missing_data_file_is_an_error_and_not_an_image_of_zeros(
    tmp_path: Path, lead: Lead
) -> None:
    lead(tmp_path / "master.h5", Path("data.h5"))
    reader = reader_of(tmp_path / "master.h5")
    with pytest.raises(DatasetError, match=r"master\.h5:frames.*data\.h5"):
        reader.read(0, 4)
    write_target(tmp_path / "data.h5", lead)
    assert numbers(reader.read(0, 4)) == [0, 1, 2, 3]
    reader.close()


def test_virtual_dataset_over_a_growing_file_gives_the_frames_there_are(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "data.h5", count=2, maxshape=(None, *SIDES), chunks=(1, *SIDES))
    virtual_of(tmp_path / "master.h5", Path("data.h5"))
    reader = reader_of(tmp_path / "master.h5")
    assert numbers(reader.read(0, 4)) == [0, 1]
    reader.close()
    with h5py.File(tmp_path / "data.h5", "a") as file:
        file["frames"].resize(4, axis=0)
        file["frames"][2:] = numbered(2, first=2)
    assert numbers(reader.read(0, 4)) == [0, 1, 2, 3]
    reader.close()


def test_interleaved_sources_give_frames_up_to_the_first_that_lacks(tmp_path: Path) -> None:
    """Several writers take turns, as Odin's do; the second one is behind."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["frames"] = numbered(6)[0::2]
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["frames"] = numbered(6)[1:3:2]
    with h5py.File(tmp_path / "master.h5", "w") as file:
        layout = h5py.VirtualLayout((6, *SIDES), "u2")
        layout[0::2] = h5py.VirtualSource("a.h5", "frames", (3, *SIDES))
        layout[1::2] = h5py.VirtualSource("b.h5", "frames", (3, *SIDES))
        file.create_virtual_dataset("frames", layout)
    reader = reader_of(tmp_path / "master.h5")
    assert numbers(reader.read(0, 6)) == [0, 1, 2]
    assert len(reader.read(3, 6)) == 0
    assert numbers(reader.read(4, 6)) == [4]
    reader.close()


def test_virtual_row_that_no_source_fills_is_not_an_image_of_zeros(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "data.h5", count=2)
    with h5py.File(tmp_path / "master.h5", "w") as file:
        layout = h5py.VirtualLayout((5, *SIDES), "u2")
        layout[:2] = h5py.VirtualSource("data.h5", "frames", (2, *SIDES))
        file.create_virtual_dataset("frames", layout)
    reader = reader_of(tmp_path / "master.h5")
    assert numbers(reader.read(0, 5)) == [0, 1]
    reader.close()


def test_virtual_dataset_of_itself_and_of_a_pattern_are_refused(tmp_path: Path) -> None:
    virtual_of(tmp_path / "loop.h5", Path())
    with pytest.raises(DatasetError, match=r"too many others"):
        reader_of(tmp_path / "loop.h5").read(0, 1)
    pattern_of(tmp_path / "pattern.h5")
    with pytest.raises(DatasetError, match=r"by a pattern"):
        reader_of(tmp_path / "pattern.h5").read(0, 1)


def test_links_that_circle_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["frames"] = h5py.SoftLink("/other")
        file["other"] = h5py.ExternalLink("a.h5", "frames")
    with pytest.raises(DatasetError, match=r"circle"):
        reader_of(tmp_path / "a.h5").read(0, 1)


def test_bomb_in_a_source_of_a_virtual_dataset_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("frames", (4, *SIDES), "u2", chunks=(4, *SIDES), compression="gzip")
        file["frames"].id.write_direct_chunk((0, 0, 0), b"x" * 10**5)
    virtual_of(tmp_path / "master.h5", Path("data.h5"))
    with pytest.raises(DatasetError, match=r"data\.h5:frames inflates"):
        reader_of(tmp_path / "master.h5").read(0, 4)


def open_files() -> list[str]:
    links = Path("/proc/self/fd").iterdir()
    return sorted(str(link.resolve()) for link in links if link.resolve().suffix == ".h5")


@pytest.mark.parametrize("lead", [link_to, virtual_of, growing_virtual_of])
def test_no_file_stays_open_after_a_reader_is_closed(tmp_path: Path, lead: Lead) -> None:
    write_target(tmp_path / "data.h5", lead)
    lead(tmp_path / "master.h5", Path("data.h5"))
    reader = reader_of(tmp_path / "master.h5")
    assert len(reader.read(0, 4)) == 4
    assert str(tmp_path / "master.h5") in open_files()
    reader.close()
    assert open_files() == []


def test_no_file_stays_open_after_a_refusal(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "outside" / "secret.h5")
    (tmp_path / "scan").mkdir()
    link_to(tmp_path / "scan" / "master.h5", tmp_path / "outside" / "secret.h5")
    reader = reader_of(tmp_path / "scan" / "master.h5")
    for _ in range(5):
        with pytest.raises(DatasetError):
            reader.read(0, 1)
    assert open_files() == []
