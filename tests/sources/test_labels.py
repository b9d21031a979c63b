from pathlib import Path

import h5py
import numpy as np
import pytest

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.sources import read_labels

SHARED = Path(__file__).parents[3] / "shared" / "data"
LABELS = np.array([[0, 1, 1], [2, 3, 255]], np.uint8)


def refusal(target):
    with pytest.raises(DatasetError) as error:
        read_labels(target)
    return str(error.value)


def test_the_shared_reference_labels_are_read():
    path = SHARED / "gold_balls" / "reference_labels_from_pupil.npz"
    if not path.is_file():
        pytest.skip(f"the shared gold-ball labels are not there: {path}")
    labels = read_labels(path)
    assert labels.shape == (104, 104)
    assert labels.dtype == np.uint8
    assert np.bincount(labels.ravel()).tolist() == [10523, 225, 68]


@pytest.mark.parametrize("labels", [LABELS, np.stack([LABELS, LABELS]).astype(np.int64)])
def test_one_map_for_all_or_one_per_frame_from_every_kind_of_file(tmp_path, labels):
    np.savez(tmp_path / "a.npz", labels=labels, level=0.5)
    np.save(tmp_path / "a.npy", labels)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["reference/labels"] = labels
        file["reference/level"] = 0.5
    for name in ("a.npz", "a.npy", "a.h5"):
        read = read_labels(tmp_path / name)
        assert read.dtype == np.uint8
        assert np.array_equal(read, labels)


def test_the_only_integer_map_is_taken_whatever_its_name(tmp_path):
    np.savez(tmp_path / "a.npz", reference=LABELS, pupil=LABELS.astype(float))
    assert np.array_equal(read_labels(tmp_path / "a.npz"), LABELS)


def test_a_name_chooses_among_several(tmp_path):
    np.savez(tmp_path / "a.npz", one=LABELS, two=LABELS[:, :2])
    assert read_labels(f"{tmp_path / 'a.npz'}:two").shape == (2, 2)
    message = refusal(tmp_path / "a.npz")
    assert "a.npz: 2 integer arrays" in message
    assert "one, two" in message
    assert "no array 'three'; it holds one, two" in refusal(f"{tmp_path / 'a.npz'}:three")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"] = LABELS
        file["two"] = LABELS[:, :2]
    assert read_labels(f"{tmp_path / 'a.h5'}:/two").shape == (2, 2)
    assert "no array '/three'; it holds one, two" in refusal(f"{tmp_path / 'a.h5'}:/three")


def test_unknown_codes_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", labels=LABELS + np.uint8(7))
    message = refusal(tmp_path / "a.npz")
    assert "a.npz:labels: 6 is no class code" in message
    assert "1 ring" in message


def test_what_is_no_label_file_is_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"rubbish")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(tmp_path / "float.npy", LABELS.astype(float))
    np.save(tmp_path / "line.npy", LABELS[0])
    np.savez(tmp_path / "none.npz", level=0.5)
    (tmp_path / "notes.txt").write_text("labels")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut short")
    assert "no such file" in refusal(tmp_path / "gone.npz")
    assert "not a plain numpy file" in refusal(tmp_path / "a.npz")
    assert "not a plain numpy file" in refusal(tmp_path / "cut.npz")
    assert "not a plain numpy file" in refusal(tmp_path / "objects.npy")
    assert "class codes are integers" in refusal(tmp_path / "float.npy")
    assert "give labels of (H, W) or (N, H, W)" in refusal(tmp_path / "line.npy")
    assert "0 integer arrays" in refusal(tmp_path / "none.npz")
    assert "not an HDF5 file" in refusal(tmp_path / "notes.txt")
