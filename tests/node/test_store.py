import logging
import shutil
from dataclasses import replace

import h5py
import pytest
from beams import QUICK, frames_of

from ptychoseg_stream.errors import CentroidsError
from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.store import (
    FolderStore,
    MemoryStore,
    cache_key,
)
from ptychoseg_stream.node.students import Provenance, StoredStudent
from ptychoseg_stream.node.trainer import InlineTrainer
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.learning import Student
from ptychoseg_stream.science.prototypes import TeacherOptions
from ptychoseg_stream.science.unet import new_unet

OPTIONS = NodeOptions(stages=(0,), student=QUICK)
ALONE = replace(OPTIONS, stages=())
"""The teacher alone: nothing is learned but centroids."""
SMALL = TeacherOptions(map_size=4, iterations=200, sample=800, weights={"angle": 0.0})


# --- the key --------------------------------------------------------------------------------------


def test_cache_is_used_only_where_frame_size_and_options_match():
    keys = [
        cache_key((104, 104), OPTIONS),
        cache_key((104, 105), OPTIONS),
        cache_key((104, 104), replace(OPTIONS, teacher=TeacherOptions(seed=1))),
        cache_key((104, 104), replace(OPTIONS, teacher=TeacherOptions(weights={"angle": 0.1}))),
        cache_key((104, 104), replace(OPTIONS, prepare=PrepareOptions(pedestal=3))),
    ]
    assert len(set(keys)) == 5
    indifferent = replace(OPTIONS, serve="teacher", stages=(), student=replace(QUICK, seed=4))
    assert cache_key((104, 104), indifferent) == keys[0]


# --- the cache in a node --------------------------------------------------------------------------


def labelled(images, store, options=OPTIONS):
    """As a process of its own would: a new node with nothing but the store."""
    node = Node(options, lambda: InlineTrainer(QUICK), store)
    node.open("run")
    masks = node.process(frames_of(images))
    node.close("run")
    return masks


def state_of(folder):
    return {
        p.relative_to(folder).as_posix(): (p.stat().st_mtime_ns, p.read_bytes())
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_centroids_are_fitted_once_and_reused_after_a_restart(tmp_path, scan, strong, caplog):
    first = labelled(scan.frames[:2], FolderStore(tmp_path))
    before = state_of(tmp_path)
    centroid_files = [name for name in before if name.startswith("centroids-")]
    assert centroid_files == [f"centroids-{first[0].centroids_hash[:16]}.h5"]
    second = labelled(strong.frames[:2], FolderStore(tmp_path))
    assert {m.centroids_hash for m in first + second} == {first[0].centroids_hash}
    after = state_of(tmp_path)
    assert {k: v for k, v in after.items() if not k.startswith("student-")} == {
        k: v for k, v in before.items() if not k.startswith("student-")
    }
    assert caplog.text == ""


def test_reuse_gives_the_same_masks_as_the_fit_did(tmp_path, scan):
    runs = [labelled(scan.frames[:3], FolderStore(tmp_path)) for _ in range(2)]
    in_memory = labelled(scan.frames[:3], MemoryStore())
    for masks in (runs[1], in_memory):
        assert [m.classes.tobytes() for m in masks] == [m.classes.tobytes() for m in runs[0]]
    assert not list(tmp_path.rglob("*.part"))


def test_other_size_or_options_get_centroids_of_their_own(tmp_path, scan):
    store = FolderStore(tmp_path)
    hashes = {
        labelled(scan.frames[:1], store, ALONE)[0].centroids_hash,
        labelled([scan.frames[0][2:100, 2:98]], store, ALONE)[0].centroids_hash,
        labelled(scan.frames[:1], store, replace(ALONE, teacher=SMALL))[0].centroids_hash,
    }
    assert len(hashes) == 3
    assert len(list(tmp_path.glob("centroids-*.h5"))) == 3
    assert len(list((tmp_path / "index").glob("*.json"))) == 3


def test_students_are_kept_by_their_hash(tmp_path, scan):
    options = replace(OPTIONS, stages=(0, 1))
    masks = labelled(scan.frames[:3], FolderStore(tmp_path), options)
    for mask in masks:
        read = FolderStore(tmp_path).find_student(mask.student_hash).student
        assert (read.hash, read.revision) == (mask.student_hash, mask.student_revision)
    assert len(list(tmp_path.glob("student-*.h5"))) == 2


@pytest.fixture(scope="module")
def stored():
    """A student that learned nothing, and what it says it was made of."""
    student = Student.of(
        {k: v.numpy() for k, v in new_unet(QUICK.base, QUICK.depth, 1).state_dict().items()},
        3,
        QUICK,
    )
    made_of = Provenance("uid", (0, 5), 3, "teacher", "parent", QUICK, PrepareOptions(pedestal=2))
    return StoredStudent(student, made_of)


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_student_is_found_by_its_hash_with_its_provenance(kind, tmp_path, stored):
    store = MemoryStore() if kind == "memory" else FolderStore(tmp_path)
    store.keep_student(stored)
    again = store if kind == "memory" else FolderStore(tmp_path)
    found = again.find_student(stored.student.hash)
    assert found.student.hash == stored.student.hash
    assert found.provenance == stored.provenance
    with pytest.raises(CentroidsError, match="0123456789abcdef"):
        again.find_student("0123456789abcdef" * 4)


def test_student_that_is_missing_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(CentroidsError, match="point `cache` of the profile") as error:
        FolderStore(tmp_path).find_student("ab" * 32)
    assert str(tmp_path / f"student-{'ab' * 8}.h5") in str(error.value)


def test_damaged_student_or_one_under_a_wrong_name_is_not_found(tmp_path, stored):
    store = FolderStore(tmp_path)
    store.keep_student(stored)
    (path,) = tmp_path.glob("student-*.h5")
    wrong = tmp_path / f"student-{'ab' * 8}.h5"
    shutil.copy(path, wrong)
    with pytest.raises(CentroidsError, match="remove the file") as error:
        store.find_student("ab" * 32)
    assert str(wrong) in str(error.value)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CentroidsError, match="cannot be read as a student") as error:
        store.find_student(stored.student.hash)
    assert str(path) in str(error.value)


def spoil_file(folder):
    (path,) = folder.glob("centroids-*.h5")
    path.write_bytes(path.read_bytes()[:1000])


def spoil_version(folder):
    (path,) = folder.glob("centroids-*.h5")
    with h5py.File(path, "a") as f:
        f.attrs["feature_version"] = 0


def remove_file(folder):
    (path,) = folder.glob("centroids-*.h5")
    path.unlink()


def index_with(text):
    def spoil(folder):
        (path,) = (folder / "index").glob("*.json")
        path.write_bytes(text)

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_file,
        spoil_version,
        remove_file,
        *map(
            index_with, (b"not json", b"{}", b"[]", b"null", b'"x"', b'{"centroids": 3}', b"\xff")
        ),
    ],
)
def test_cache_that_cannot_be_used_is_reported_and_fitted_anew(tmp_path, scan, caplog, spoil):
    expected = labelled(scan.frames[:2], FolderStore(tmp_path), ALONE)
    spoil(tmp_path)
    with caplog.at_level(logging.WARNING):
        masks = labelled(scan.frames[:2], FolderStore(tmp_path), ALONE)
    assert caplog.text.count("cached centroids are not used and will be fitted anew") == 1
    assert [m.classes.tobytes() for m in masks] == [m.classes.tobytes() for m in expected]
    caplog.clear()
    labelled(scan.frames[:2], FolderStore(tmp_path), ALONE)
    assert caplog.text == ""  # mended


def test_folder_that_cannot_be_written_is_reported_and_costs_no_mask(tmp_path, scan, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("this is no folder")
    with caplog.at_level(logging.WARNING):
        masks = labelled(scan.frames[:2], FolderStore(blocked / "cache"))
    assert "the centroids could not be cached, going on without" in caplog.text
    assert "the student could not be cached, going on without" in caplog.text
    expected = labelled(scan.frames[:2], MemoryStore())
    assert [m.classes.tobytes() for m in masks] == [m.classes.tobytes() for m in expected]
    assert blocked.read_text() == "this is no folder"


def test_folder_that_vanishes_is_made_again(tmp_path, scan):
    store = FolderStore(tmp_path / "cache")
    labelled(scan.frames[:1], store, ALONE)
    shutil.rmtree(tmp_path / "cache")
    labelled(scan.frames[:1], store, ALONE)
    assert list((tmp_path / "cache").glob("centroids-*.h5"))
