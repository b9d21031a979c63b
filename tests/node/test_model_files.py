import json
from dataclasses import asdict, replace
from importlib.metadata import version

import h5py
import numpy as np
import pytest
from beams import QUICK

from ptychoseg_stream.errors import CentroidsError
from ptychoseg_stream.node.store import (
    ARRAYS,
    load_centroids,
    save_centroids,
)
from ptychoseg_stream.node.students import (
    Provenance,
    StoredStudent,
    load_student,
    save_student,
)
from ptychoseg_stream.node.trainer import InlineTrainer, Stage
from ptychoseg_stream.science.augment import Example
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.features import FEATURE_VERSION
from ptychoseg_stream.science.geometry import find_beam
from ptychoseg_stream.science.prepare import prepare
from ptychoseg_stream.science.prototypes import TeacherOptions
from ptychoseg_stream.science.som import Centroids

SMALL = TeacherOptions(map_size=4, iterations=200, sample=800, weights={"angle": 0.0})


@pytest.fixture
def file(tmp_path, centroids):
    path = tmp_path / "c.h5"
    save_centroids(centroids, path)
    return path


@pytest.fixture(scope="module")
def student(scan):
    prepared = prepare(scan.frames[0])
    beam = find_beam(prepared.relative[0])
    ring = prepared.relative[0] > 0.5
    plateau = float(prepared.plateau[0])
    trainer = InlineTrainer(QUICK)
    example = Example(prepared.counts[0], plateau, ring, beam, PrepareOptions())
    trainer.submit(Stage([example], None, (0,), "teacher"))
    (outcome,) = trainer.collect()
    return StoredStudent(
        outcome.student, Provenance.of(outcome.record, "uid", QUICK, PrepareOptions(max_sigma=2))
    )


def refusal(path):
    with pytest.raises(CentroidsError) as error:
        load_centroids(path)
    assert str(path) in str(error.value)
    return str(error.value)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [TeacherOptions(), SMALL, replace(SMALL, features="seed")])
def test_centroids_come_back_exactly_as_they_were(tmp_path, scan, options):
    made = Centroids.fit(scan.frames[0], options)
    save_centroids(made, tmp_path / "deeper" / "c.h5")
    read = load_centroids(tmp_path / "deeper" / "c.h5")
    for name in ARRAYS:
        one, other = getattr(made, name), getattr(read, name)
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    assert (read.options, read.k_elbow, read.hash) == (made.options, made.k_elbow, made.hash)
    assert np.array_equal(read.label(scan.frames[5]), made.label(scan.frames[5]))


def test_file_explains_itself(file, centroids):
    with h5py.File(file) as f:
        assert f.attrs["hash"] == centroids.hash
        assert f.attrs["features"].tolist()[:2] == ["intensity", "log_intensity"]
        assert json.loads(f.attrs["class_codes"])["1"] == "ring"
        assert json.loads(f.attrs["options"])["edge_level"] == 0.5
        assert {f[name].dtype.kind for name in f} <= set("fib")  # numbers: nothing is executed


def test_file_of_another_feature_version_is_refused_and_says_what_to_do(file):
    with h5py.File(file, "a") as f:
        f.attrs["feature_version"] = 99
    message = refusal(file)
    assert f"feature version 99, this is version {FEATURE_VERSION}" in message
    assert "ptychoseg fit" in message


def test_changed_content_does_not_pass_for_the_original(file):
    with h5py.File(file, "a") as f:
        f["prototypes"][3, 2] += 1e-6
    assert "damaged" in refusal(file)


def test_other_files_are_refused(tmp_path, student, file):
    save_student(student, tmp_path / "s.h5")
    (tmp_path / "notes.h5").write_text("hello")
    (tmp_path / "empty.h5").write_bytes(b"")
    with h5py.File(tmp_path / "frames.h5", "w") as f:
        f["frames"] = np.zeros((2, 3, 4))
    assert "ptychoseg fit" in refusal(tmp_path / "s.h5")
    assert "ptychoseg fit" in refusal(tmp_path / "frames.h5")
    for name in ("notes.h5", "empty.h5", "missing.h5"):
        assert "cannot be read as centroids" in refusal(tmp_path / name)
    with h5py.File(file, "a") as f:
        del f["prototypes"]
    assert "prototypes" in refusal(file)


def test_options_that_this_version_does_not_know_are_refused(file):
    with h5py.File(file, "a") as f:
        f.attrs["options"] = json.dumps({"flavour": "vanilla"})
    assert "flavour" in refusal(file)


def test_file_damaged_anywhere_is_refused_or_still_right(tmp_path, file, centroids):
    """Bytes flipped and ends cut off: never another exception, never other centroids."""
    original = file.read_bytes()
    rng = np.random.default_rng(0)
    damaged = tmp_path / "damaged.h5"
    refused = 0
    for attempt in range(150):
        content = bytearray(original)
        if attempt % 5 == 0:
            content = content[: int(rng.integers(len(content)))]
        else:
            for at in rng.integers(len(content), size=3):
                content[at] ^= int(rng.integers(1, 256))
        damaged.write_bytes(content)
        try:
            read = load_centroids(damaged)
        except CentroidsError:
            refused += 1
        else:
            assert read.hash == centroids.hash
            assert read.prototypes.tobytes() == centroids.prototypes.tobytes()
    assert refused > 50


def test_student_comes_back_exactly_as_it_was(tmp_path, student, scan):
    save_student(student, tmp_path / "s.h5")
    read = load_student(tmp_path / "s.h5")
    assert read.provenance == student.provenance
    one, other = student.student, read.student
    assert (other.hash, other.revision) == (one.hash, one.revision)
    assert {k: v.tobytes() for k, v in other.weights.items()} == {
        k: v.tobytes() for k, v in one.weights.items()
    }
    x = np.random.default_rng(0).random((2, 5, 64, 64), np.float32)
    assert other.predict(x).tobytes() == one.predict(x).tobytes()


def test_student_file_says_what_it_was_made_of(tmp_path, student):
    save_student(student, tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5") as f:
        assert (f.attrs["run"], f.attrs["frames"].tolist(), f.attrs["stage"]) == ("uid", [0], 0)
        assert (f.attrs["centroids_hash"], f.attrs["parent_hash"]) == ("teacher", "")
        assert json.loads(f.attrs["student"])["seed"] == QUICK.seed
        assert json.loads(f.attrs["prepare"])["max_sigma"] == 2
        assert json.loads(f.attrs["versions"])["torch"] == version("torch")


def test_provenance_of_other_versions_says_which(student):
    here = student.provenance
    assert here.differences() == ""
    there = replace(here, versions=here.versions | {"torch": "1.0"})
    assert there.differences() == f"torch 1.0 (here {version('torch')})"


def test_other_file_or_a_damaged_student_is_refused(tmp_path, student, file):
    path = tmp_path / "s.h5"
    with pytest.raises(CentroidsError, match="does not hold ptychoseg student"):
        load_student(file)
    with pytest.raises(CentroidsError, match="cannot be read"):
        load_student(tmp_path / "missing.h5")
    save_student(student, path)
    with h5py.File(path, "a") as f:
        f["weights/head.bias"][0] += 1
    with pytest.raises(CentroidsError, match="damaged"):
        load_student(path)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("student", json.dumps(asdict(QUICK) | {"base": 8})),
        ("student", json.dumps(asdict(QUICK) | {"base": 0})),
        ("student", json.dumps({"flavour": "vanilla"})),
        ("prepare", "not json"),
        ("versions", "3"),
        ("frames", "many"),
        ("run", None),
    ],
)
def test_student_whose_provenance_cannot_be_read_is_refused(tmp_path, student, attribute, value):
    path = tmp_path / "s.h5"
    save_student(student, path)
    with h5py.File(path, "a") as f:
        del f.attrs[attribute]
        if value is not None:
            f.attrs[attribute] = value
    with pytest.raises(CentroidsError, match="cannot be read as a student") as error:
        load_student(path)
    assert str(path) in str(error.value)


def test_nothing_half_written_is_left_when_the_disk_refuses(tmp_path, centroids):
    (tmp_path / "c.h5").mkdir()
    with pytest.raises(OSError):
        save_centroids(centroids, tmp_path / "c.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["c.h5"]
