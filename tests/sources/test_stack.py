from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.sources import open_stack

SHARED = Path(__file__).parents[3] / "shared" / "data"
FRAMES = np.arange(6 * 4 * 5, dtype=np.uint16).reshape(6, 4, 5)


def shared(name):
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"the shared data set is not there: {path}")
    return path


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        yield file


def path_of(file):
    """Close the file and return its path."""
    path = Path(file.filename)
    file.close()
    return path


def test_a_named_dataset_is_opened_and_read_frame_by_frame(file):
    file["a/frames"] = FRAMES
    path = path_of(file)
    with open_stack(f"{path}:/a/frames") as stack:
        assert stack.name == f"{path}:/a/frames"
        assert len(stack) == 6
        assert stack.shape == (6, 4, 5)
        assert stack.dtype == np.uint16
        assert np.array_equal(stack[2], FRAMES[2])
        assert np.array_equal(stack[-1], FRAMES[-1])
        assert np.array_equal(stack[np.int64(3)], FRAMES[3])
        for wanted in (np.s_[1:4], np.s_[:], np.s_[::2], np.s_[4:1:-1], np.s_[5:2], np.s_[-2:]):
            assert np.array_equal(stack[wanted], FRAMES[wanted])
            assert stack[wanted].dtype == np.uint16
        assert np.array_equal(list(stack), FRAMES)


def test_frames_are_read_when_asked_for_and_the_file_is_closed_at_the_end(file):
    file["frames"] = FRAMES
    path = path_of(file)
    with open_stack(path) as stack:
        first = stack[0]
        part = stack[1:3]
    assert np.array_equal(first, FRAMES[0])
    assert np.array_equal(part, FRAMES[1:3])
    with h5py.File(path, "a") as again:  # would be refused if a reader were left
        again["more"] = 1
    with pytest.raises(DatasetError, match="cannot read frame"):
        stack[0]


def test_no_such_frame_is_named(file):
    file["frames"] = FRAMES
    with open_stack(path_of(file)) as stack:
        for index in (6, -7):
            with pytest.raises(IndexError, match=f"/frames: no frame {index}, it has 6"):
                stack[index]


def test_four_dimensions_are_counted_row_by_row(file):
    file["grid"] = FRAMES.reshape(2, 3, 4, 5)
    with open_stack(path_of(file)) as stack:
        assert stack.shape == (6, 4, 5)
        assert np.array_equal(stack[4], FRAMES[4])
        assert np.array_equal(stack[1:5], FRAMES[1:5])
        assert np.array_equal(list(stack), FRAMES)


def test_nexus_default_and_signal_are_followed(file):
    file["entry/other/larger"] = np.zeros((50, 4, 5))
    file["entry/meas/frames"] = FRAMES
    file.attrs["default"] = "entry"
    file["entry"].attrs["default"] = "meas"
    file["entry/meas"].attrs["signal"] = b"frames"
    with open_stack(path_of(file)) as stack:
        assert stack.name.endswith(":/entry/meas/frames")


def test_an_nxdata_group_is_found_without_a_default(file):
    file["entry/larger"] = np.zeros((50, 4, 5))
    file["entry/meas/frames"] = FRAMES
    file["entry/meas"].attrs.update({"NX_class": "NXdata", "signal": "frames"})
    with open_stack(path_of(file)) as stack:
        assert stack.name.endswith(":/entry/meas/frames")


def test_a_signal_that_is_no_stack_does_not_win(file):
    file["frames"] = FRAMES
    file["plot/curve"] = np.arange(9.0)
    file.attrs["default"] = "plot"
    file["plot"].attrs["signal"] = "curve"
    with open_stack(path_of(file)) as stack:
        assert stack.name.endswith(":/frames")


def test_defaults_in_a_circle_do_not_hang(file):
    file["frames"] = FRAMES
    group = file.create_group("a")
    group["a"] = h5py.SoftLink("/a")
    file.attrs["default"] = "a"
    group.attrs["default"] = "a"
    with open_stack(path_of(file)) as stack:
        assert stack.name.endswith(":/frames")


def test_the_places_of_cxi_win_over_larger_datasets_and_soft_links_are_followed(file):
    file["entry_1/instrument_1/detector_1/data"] = FRAMES
    file["entry_1/instrument_1/detector_1/data_dark"] = np.zeros((90, 4, 5))
    file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
    file["entry_1/instrument_1/source_1/energy"] = 1000 * 1.602176634e-19
    file["entry_1/sample_1/geometry_1/translation"] = np.arange(18.0).reshape(6, 3)
    with open_stack(path_of(file)) as stack:
        assert stack.name.endswith(":/entry_1/data_1/data")
        assert np.array_equal(stack[5], FRAMES[5])
        assert stack.energy == pytest.approx(1000)
        assert stack.positions == pytest.approx(np.arange(18.0).reshape(6, 3)[:, 1::-1])  # y, x


def test_a_dangling_link_falls_back_to_the_next_place(file):
    file["entry_1/data_1/data"] = h5py.SoftLink("/gone")
    file["entry_1/external"] = h5py.ExternalLink("gone.h5", "/data")
    file["entry_1/instrument_1/detector_1/data"] = FRAMES
    with open_stack(path_of(file)) as stack:
        assert stack.name.endswith("detector_1/data")
        assert stack.positions is None
        assert stack.energy is None


def test_the_largest_numeric_stack_is_taken_else(file):
    file["small"] = np.zeros((2, 4, 5))
    file["deep/frames"] = FRAMES
    file["complex"] = np.zeros((60, 4, 5), np.complex64)
    file["line"] = np.zeros(100000)
    with open_stack(path_of(file)) as stack:
        assert stack.name.endswith(":/deep/frames")


def test_frames_behind_an_external_link_are_found(file, tmp_path):
    with h5py.File(tmp_path / "data_000001.h5", "w") as data:
        data["frames"] = FRAMES
    file["entry/data/data_000001"] = h5py.ExternalLink("data_000001.h5", "/frames")
    with open_stack(path_of(file)) as stack:
        assert stack.name.endswith(":/entry/data/data_000001")
        assert np.array_equal(stack[:], FRAMES)


def test_compressed_frames_are_read(file):
    file.create_dataset("frames", data=FRAMES, chunks=(1, 4, 5), **hdf5plugin.Bitshuffle())
    with open_stack(path_of(file)) as stack:
        assert np.array_equal(stack[:], FRAMES)


def test_a_file_that_is_still_written_in_swmr_mode_is_opened(tmp_path):
    path = tmp_path / "growing.h5"
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset("frames", data=FRAMES, maxshape=(None, 4, 5))
        file.swmr_mode = True
        data.flush()
        with open_stack(path) as stack:
            assert np.array_equal(stack[:], FRAMES)


def test_an_npy_file_is_a_stack_too(tmp_path):
    np.save(tmp_path / "frames.npy", FRAMES)
    with open_stack(tmp_path / "frames.npy") as stack:
        assert stack.shape == FRAMES.shape
        assert np.array_equal(stack[::3], FRAMES[::3])
        assert type(stack[0]) is np.ndarray


def test_a_colon_in_a_file_name_is_not_a_dataset(tmp_path):
    np.save(tmp_path / "10:30.npy", FRAMES)
    with open_stack(tmp_path / "10:30.npy") as stack:
        assert len(stack) == 6


# ---- what goes wrong


def refusal(target):
    with pytest.raises(DatasetError) as error:
        open_stack(target)
    return str(error.value)


def test_a_missing_file_is_named(tmp_path):
    for target in (tmp_path / "gone.h5", f"{tmp_path / 'gone.h5'}:/frames"):
        assert refusal(target).startswith(f"{tmp_path / 'gone.h5'}: no such file; give FILE")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("frames\n")
    assert "notes.txt: not an HDF5 file" in refusal(tmp_path / "notes.txt")


def test_a_missing_dataset_lists_what_could_be_meant(file):
    file["a/frames"] = FRAMES
    file["dark"] = FRAMES[:2]
    file["line"] = np.arange(3)
    path = path_of(file)
    message = refusal(f"{path}:/frames")
    assert f"{path}: no dataset '/frames'" in message
    assert "/a/frames" in message
    assert "/dark" in message
    assert "/line" not in message
    assert "no dataset '/a'" in refusal(f"{path}:/a")  # a group


def test_a_file_without_frames_says_what_it_holds(file):
    file["line"] = np.arange(3)
    assert "no numeric dataset of 3 or 4 dimensions" in (message := refusal(path_of(file)))
    assert "/line (3,) int64" in message


def test_an_empty_file_says_so(file):
    assert "only nothing" in refusal(path_of(file))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (FRAMES[0], "has 2 dimensions"),
        (FRAMES.reshape(1, 1, 6, 4, 5), "has 5 dimensions"),
        (FRAMES.astype(complex), "complex128 is not a real number"),
        (FRAMES > 3, "bool is not a real number"),
        (np.full((2, 2, 2), b"x"), "is not a real number"),
        (FRAMES[:0], "is empty"),
    ],
)
def test_a_dataset_that_is_no_stack_is_refused_with_the_reason(file, data, said):
    file["d"] = data
    message = refusal(f"{path_of(file)}:/d")
    assert ":/d: " in message
    assert said in message


@pytest.mark.parametrize("array", [FRAMES[0], FRAMES.astype(complex), FRAMES[:0]])
def test_an_npy_array_that_is_no_stack_is_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    assert "a.npy: " in refusal(tmp_path / "a.npy")


def test_an_npy_file_of_objects_or_rubbish_is_refused_unread(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    (tmp_path / "rubbish.npy").write_bytes(b"rubbish")
    for name in ("objects.npy", "rubbish.npy"):
        assert f"{name}: not a plain .npy array" in refusal(tmp_path / name)


def test_a_damaged_chunk_names_the_frame(file):
    file.create_dataset("frames", data=FRAMES, chunks=(1, 4, 5), compression="gzip")
    place = file["frames"].id.get_chunk_info(2).byte_offset
    path = path_of(file)
    with path.open("r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff" * 8)
    with open_stack(path) as stack:
        assert np.array_equal(stack[1], FRAMES[1])
        with pytest.raises(DatasetError, match="cannot read frame 2"):
            stack[2]


@pytest.mark.parametrize("mark", [b"TREE", b"SNOD", b"HEAP"])
def test_a_file_with_a_damaged_group_is_named(file, mark):
    file["entry/data/frames"] = FRAMES
    path = path_of(file)
    good = path.read_bytes()
    places = [n for n in range(len(good)) if good.startswith(mark, n)]
    assert places
    for place in places:
        path.write_bytes(good[:place] + b"XXXX" + good[place + 4 :])
        message = refusal(path)
        assert message.startswith(f"{path}: ")
        assert "damaged" in message or "no numeric dataset" in message


# ---- real files


def test_the_shared_gold_balls_open_with_positions_and_energy():
    with open_stack(shared("gold_balls/goldballs_resim_f000-040.cxi")) as stack:
        assert stack.shape == (41, 104, 104)
        assert stack.dtype == np.uint16
        assert stack.energy == pytest.approx(1000, rel=1e-3)
        assert np.ptp(stack.positions[:, 1]) == pytest.approx(1.17e-6, rel=0.05)


def test_the_shared_siemens_star_and_petra_sets_open():
    with open_stack(shared("siemens_star/siemens_star_first258.h5")) as stack:
        assert stack.name.endswith(":/frames")
        assert stack.shape == (258, 128, 128)
    with open_stack(shared("petra_p25/PETRAIII_P25_Near_Field_Ptycho.cxi")) as stack:
        assert stack.shape == (200, 100, 100)
        assert stack.dtype == np.int32
        assert stack.energy == pytest.approx(12658, rel=1e-3)
