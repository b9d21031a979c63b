import h5py
import numpy as np
import pytest

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.sources.arrays.pixel_mask import read_pixel_mask

BAD = np.zeros((6, 8), bool)
BAD[1, 2:5] = BAD[4, 7] = True


def refusal(target):
    with pytest.raises(DatasetError) as error:
        read_pixel_mask(target)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.uint32, np.int64])
def test_anything_but_zero_is_a_bad_pixel_in_every_kind_of_file(tmp_path, dtype):
    values = (BAD * (1 if dtype is bool else 64)).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", mask=values)
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        file["entry/instrument/detector/pixel_mask"] = values
    for name in ("a.npy", "a.npz", "a.nxs"):
        read = read_pixel_mask(tmp_path / name)
        assert read.dtype == np.bool_
        assert np.array_equal(read, BAD)


def test_all_bits_of_a_nexus_mask_count_whatever_they_mean(tmp_path):
    bits = np.zeros((6, 8), np.uint32)
    bits[0, :6] = [1, 2, 8, 256, 1 << 15, 1 << 31]
    np.save(tmp_path / "a.npy", bits)
    assert read_pixel_mask(tmp_path / "a.npy")[0].tolist() == [True] * 6 + [False] * 2


def test_best_name_is_taken_where_no_name_is_given(tmp_path):
    other = ~BAD & (np.indices(BAD.shape).sum(axis=0) % 2 == 0)
    for names in (("pixel_mask", "mask", "bad_pixels"), ("mask", "bad_pixels", "other")):
        path = tmp_path / f"{names[0]}.npz"
        np.savez(path, **{name: BAD if name == names[0] else other for name in names[::-1]})
        assert np.array_equal(read_pixel_mask(path), BAD)


def test_only_map_of_integers_is_taken_whatever_its_name(tmp_path):
    np.savez(tmp_path / "a.npz", hot=BAD, flat=np.ones((6, 8)), stack=np.ones((2, 6, 8), int))
    assert np.array_equal(read_pixel_mask(tmp_path / "a.npz"), BAD)


def test_a_name_chooses_among_several(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/hot"] = BAD
        file["entry/dead"] = ~BAD & False
    path = tmp_path / "a.h5"
    assert np.array_equal(read_pixel_mask(f"{path}:/entry/hot"), BAD)
    message = refusal(path)
    assert "2 integer arrays of 2 dimensions" in message
    assert "a.h5:name" in message
    assert "no array '/entry/cold'; it holds " in refusal(f"{path}:/entry/cold")


def test_mask_that_is_the_other_way_round_is_refused_and_the_convention_said(tmp_path):
    np.save(tmp_path / "a.npy", ~BAD)
    message = refusal(tmp_path / "a.npy")
    assert "a.npy: 92% of the pixels are masked" in message
    assert "0 is a good pixel" in message


@pytest.mark.parametrize(
    "values",
    [BAD.astype(float), BAD[0], np.stack([BAD, BAD]), np.zeros((0, 8), bool), BAD.astype("S1")],
    ids=["floats", "a line", "a stack", "empty", "text"],
)
def test_what_is_no_mask_is_refused_with_what_one_is(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    message = refusal(tmp_path / "a.npy")
    assert f"{values.dtype} {values.shape}" in message
    assert "a pixel mask is a 2-D array of integers, 0 for good pixels" in message


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"rubbish")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    (tmp_path / "a.h5").write_text("no HDF5")
    assert "gone.npy: no such file; give the pixel mask as FILE" in refusal(tmp_path / "gone.npy")
    assert "a.npz: not a plain numpy file" in refusal(tmp_path / "a.npz")
    assert "objects.npy: not a plain numpy file" in refusal(tmp_path / "objects.npy")
    assert "a.h5: not an HDF5 file" in refusal(tmp_path / "a.h5")
