from dataclasses import replace

import numpy as np
import pytest
from beams import QUICK, frames_of, ring_iou
from node_support import ALL, OPTIONS, contents, labelled, node_of

from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.node.trainer import InlineTrainer
from ptychoseg_stream.node.vitals import Progress
from ptychoseg_stream.science.frame import ClassCode, Frame
from ptychoseg_stream.science.som import Centroids

# --- batches and runs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cuts", [(), (8,), (3, 4), (1, 7, 8, 15), (4, 4, 6, 6), (2, 5, 11)], ids=str
)
def test_masks_do_not_depend_on_how_frames_are_cut_into_batches(images, one_by_one, cuts):
    assert contents(labelled(frames_of(images), cuts=cuts)) == contents(one_by_one)


@pytest.mark.parametrize("seed", range(3))
def test_masks_do_not_depend_on_another_run_in_between(images, one_by_one, scan, centroids, seed):
    store = MemoryStore(centroids)
    runs = {
        "a": frames_of(images, "a"),
        "b": frames_of(scan.frames[:10], "b"),
    }
    alone = {}
    for name, frames in runs.items():
        node = node_of(store=store)
        node.open(name)
        alone[name] = contents(node.process(frames))
    rng = np.random.default_rng(seed)
    node = node_of(store=store)
    node.open("a")
    node.open("b")
    order = rng.permutation([name for name, frames in runs.items() for _ in frames])
    waiting = {name: iter(frames) for name, frames in runs.items()}
    mixed = [next(waiting[name]) for name in order]
    masks = []
    while mixed:
        size = int(rng.integers(1, 6))
        masks += node.process(mixed[:size])
        mixed = mixed[size:]
    assert [m.frame.run for m in masks] == order.tolist()  # in the order they came
    for name in runs:
        assert contents(m for m in masks if m.frame.run == name) == alone[name]


def test_a_run_begins_anew_after_another(images, one_by_one):
    store = MemoryStore()
    first, second = (labelled(frames_of(images), store=store) for _ in range(2))
    assert contents(first) == contents(second) == contents(one_by_one)


def test_nothing_becomes_nothing():
    node = node_of()
    assert node.process([]) == []
    node.open("run")
    assert node.process([]) == []


def test_frame_of_a_run_that_is_not_open_is_a_mistake_of_the_caller(scan):
    with pytest.raises(KeyError, match="elsewhere"):
        node_of().process(frames_of(scan.frames[:1], "elsewhere"))
    node_of().close("never opened")


def test_images_are_left_alone_and_not_kept(scan):
    images = scan.frames[:5].copy()
    images.flags.writeable = False
    masks = labelled(frames_of(images))
    assert np.array_equal(images, scan.frames[:5])
    assert all(mask.frame.image is None for mask in masks)


# --- fitting --------------------------------------------------------------------------------------


def test_centroids_are_fitted_on_the_frame_that_was_chosen(scan):
    options = replace(OPTIONS, fit_on=3, stages=(0, 5))
    masks = labelled(frames_of(scan.frames[:8]), options)
    assert [m.status for m in masks] == ["refused"] * 3 + ["ok"] * 5
    assert all("frame 3 (`node.fit_on`)" in m.reason for m in masks[:3])
    assert {m.centroids_hash for m in masks[3:]} == {Centroids.fit(scan.frames[3]).hash}
    assert [m.student_revision for m in masks[3:]] == [0, 0, 1, 1, 1]


def test_no_frame_waits_for_the_fit_when_centroids_are_cached(scan, centroids):
    options = replace(OPTIONS, fit_on=3)
    masks = labelled(frames_of(scan.frames[:5]), options, MemoryStore(centroids))
    assert [m.status for m in masks] == ["ok"] * 5
    assert {m.centroids_hash for m in masks} == {centroids.hash}


def test_second_run_uses_the_centroids_of_the_first(scan, strong):
    store = MemoryStore()
    first = labelled(frames_of(scan.frames[:2]), store=store)
    second = labelled(frames_of(strong.frames[:2]), store=store)
    assert {m.centroids_hash for m in first + second} == {Centroids.fit(scan.frames[0]).hash}


# --- what is served -------------------------------------------------------------------------------


@pytest.mark.parametrize("serve", ALL)
def test_served_mask_is_the_one_that_was_asked_for(scan, serve):
    masks = labelled(frames_of(scan.frames[:5]), replace(OPTIONS, serve=serve))
    for mask in masks:
        assert mask.source == serve
        assert np.array_equal(mask.classes, mask.alternatives[serve])


def test_three_masks_of_a_frame_differ_from_each_other(one_by_one):
    last = one_by_one[-1].alternatives
    assert len({last[name].tobytes() for name in ALL}) == 3


def test_teacher_serves_until_there_is_a_student(scan):
    masks = labelled(frames_of(scan.frames[:5]), replace(OPTIONS, stages=(3,)))
    assert [m.source for m in masks] == ["teacher"] * 3 + ["fused"] * 2
    assert [m.student_revision for m in masks] == [-1, -1, -1, 0, 0]
    assert [m.student_hash == "" for m in masks] == [True, True, True, False, False]
    assert masks[0].quality.iou_to_teacher == 1
    assert (masks[0].alternatives["student"] == ClassCode.INVALID).all()
    assert np.array_equal(masks[0].alternatives["teacher"], masks[0].classes)


def test_without_stages_the_teacher_serves_alone(scan):
    masks = labelled(frames_of(scan.frames[:4]), replace(OPTIONS, stages=(), also=()))
    assert {m.source for m in masks} == {"teacher"}
    assert {m.student_revision for m in masks} == {-1}
    assert all(m.alternatives == {} for m in masks)
    assert all(ring_iou(m.classes, t) > 0.88 for m, t in zip(masks, scan.truth, strict=False))


def test_numbers_of_a_row_are_those_of_its_mask(one_by_one, strong, images):
    for mask in (m for m in one_by_one if m.status == "ok"):
        ring = mask.classes == ClassCode.RING
        assert mask.ring_area == ring.sum()
        teacher = mask.alternatives["teacher"] == ClassCode.RING
        assert mask.quality.iou_to_teacher == pytest.approx(
            (ring & teacher).sum() / (ring | teacher).sum()
        )
        assert mask.shift == pytest.approx(strong.shifts[mask.frame.index], abs=0.6)
        assert 50 < mask.plateau < 5000
    hashes = {m.student_revision: m.student_hash for m in one_by_one if m.status == "ok"}
    assert sorted(hashes) == [0, 1, 2]
    assert len({*hashes.values()}) == 3


def test_students_that_served_are_in_the_store(images, one_by_one):
    store = MemoryStore()
    masks = labelled(frames_of(images), store=store)
    assert set(store.students) == {m.student_hash for m in masks if m.status == "ok"}


def test_identity_of_a_frame_is_handed_on(scan):
    frame = Frame("run", 4, scan.frames[0], (104, 104), 5, "baseline", "det", 12.5)
    (mask,) = labelled([frame], replace(OPTIONS, stages=()))
    assert mask.frame == replace(frame, image=None) or (
        mask.frame.index,
        mask.frame.seq_num,
        mask.frame.stream,
        mask.frame.data_key,
        mask.frame.time,
    ) == (4, 5, "baseline", "det", 12.5)


# --- progress -------------------------------------------------------------------------------------


def test_progress_is_that_of_the_newest_run_and_stays_after_it(scan):
    node = node_of()
    assert node.progress() == Progress()
    node.open("run")
    node.process(frames_of(scan.frames[:5]))
    assert (node.progress().stage, node.progress().step) == (1, QUICK.round_steps)
    assert not node.progress().training
    node.open("next")
    assert node.progress().stage == -1
    node.close("next")
    node.close("run")
    assert node.progress().stage == 1


def test_student_whose_stage_fails_goes_on_serving(scan):
    """From the second stage on, training diverges."""

    class Wild(InlineTrainer):
        def submit(self, stage):
            if len(stage.examples) > 1:
                spoiled = np.full_like(stage.examples[0].counts, np.nan)
                first = replace(stage.examples[0], counts=spoiled, plateau=1.0)
                stage = replace(stage, examples=[first])
            super().submit(stage)

    node = Node(OPTIONS, lambda: Wild(QUICK), MemoryStore())
    node.open("run")
    masks = node.process(frames_of(scan.frames[:6]))
    assert [m.status for m in masks] == ["ok"] * 6
    assert {m.student_revision for m in masks} == {0}
    assert {m.source for m in masks} == {"fused"}
    assert "not finite" in node.progress().fault
    assert not node.progress().training
    undisturbed = labelled(frames_of(scan.frames[:3]))
    assert contents(masks[:3]) == contents(undisturbed)
