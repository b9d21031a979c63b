from dataclasses import replace

import numpy as np
import pytest
from beams import QUICK, frames_of, ring_iou

from ptychoseg_stream.errors import DatasetError, FrameError
from ptychoseg_stream.evaluation.baselines import baselines, half_maximum, mean_image, usable_frames
from ptychoseg_stream.evaluation.evaluate import (
    METHODS,
    Request,
    evaluate,
    maps_of,
    reference_of,
    with_seed,
)
from ptychoseg_stream.evaluation.material import SIMULATIONS, read_material, references
from ptychoseg_stream.evaluation.offline import label_all
from ptychoseg_stream.evaluation.report import Panel, draw_report
from ptychoseg_stream.evaluation.score import ring_ious
from ptychoseg_stream.node.node import Node
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.node.store import MemoryStore
from ptychoseg_stream.node.trainer import InlineTrainer
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.frame import ClassCode
from ptychoseg_stream.science.prepare import prepare

OPTIONS = NodeOptions(stages=(0, 3), student=QUICK)
PREPARE = PrepareOptions()


@pytest.fixture(scope="module")
def spoiled(scan):
    """Ten frames of which the first (staged) and the sixth cannot be labelled."""
    frames = scan.frames[:10].astype(np.float32)
    frames[0] = 0
    frames[5] = np.nan
    return frames


@pytest.fixture(scope="module")
def outcome(strong):
    request = Request(OPTIONS, seeds=(0, 1))
    return evaluate(strong.frames[:10], list(strong.truth[:10]), request)


# --- labelling a stack ----------------------------------------------------------------------------


def test_stack_is_labelled_as_the_node_would_label_a_run(strong):
    told, steps = [], []
    masks = label_all(strong.frames[:10], OPTIONS, MemoryStore(), told.append, steps.append)
    node = Node(OPTIONS, lambda: InlineTrainer(QUICK), MemoryStore())
    node.open("run")
    expected = [node.process([frame])[0] for frame in frames_of(strong.frames[:10])]
    assert [m.classes.tobytes() for m in masks] == [m.classes.tobytes() for m in expected]
    assert [m.student_hash for m in masks] == [m.student_hash for m in expected]
    assert told == masks
    assert sum(p.training for p in steps) >= QUICK.first_steps + QUICK.steps


def test_seed_is_that_of_teacher_and_student():
    options = with_seed(OPTIONS, 7)
    assert (options.teacher.seed, options.student.seed) == (7, 7)
    assert replace(options, teacher=OPTIONS.teacher, student=OPTIONS.student) == OPTIONS


# --- the whole evaluation -------------------------------------------------------------------------


def test_staged_frames_do_not_count(outcome):
    assert outcome.scored == [1, 2, 4, 5, 6, 7, 8, 9]


def test_methods_come_first_then_the_cheap_ways(outcome):
    names = [s.name for s in outcome.scores]
    assert [n.split()[0] for n in names[:3]] == ["teacher", "student", "fused"]
    assert len(names) == len(set(names)) == 15
    assert {"Otsu of each frame", "literal seed recipe"} <= set(names)
    assert all(0 <= s.ring_min <= s.ring <= 1 for s in outcome.scores)
    assert [len(s.by_seed) for s in outcome.scores] == [2] * 3 + [1] * 12


def test_figures_are_those_of_the_masks(outcome, strong):
    teacher = maps_of(outcome.masks, "teacher")
    found = [ring_iou(teacher[i], strong.truth[i]) for i in outcome.scored]
    assert outcome.scores[0].by_seed[0] == pytest.approx(np.mean(found))
    assert outcome.ious["teacher"][outcome.scored] == pytest.approx(found)
    assert [(r, n) for r, n, _ in outcome.stages] == [(0, 2), (1, 6)]


def test_same_request_gives_the_same_figures(outcome, strong):
    again = evaluate(strong.frames[:10], list(strong.truth[:10]), Request(OPTIONS, seeds=(0, 1)))
    assert again.scores == outcome.scores
    assert [m.classes.tobytes() for m in again.masks] == [
        m.classes.tobytes() for m in outcome.masks
    ]


def test_other_centroids_and_another_dose_are_scored_besides(strong, centroids):
    request = Request(replace(OPTIONS, stages=()), (0,), centroids, 0.1)
    result = evaluate(strong.frames[:6], list(strong.truth[:6]), request)
    by_name = {s.name: s.ring for s in result.scores}
    given = [centroids.label(f) for f in strong.frames[:6]]
    expected = np.mean([ring_iou(a, b) for a, b in zip(given, strong.truth, strict=False)])
    assert by_name["teacher, given centroids"] == pytest.approx(expected, abs=0.03)
    full, faint = (
        by_name[f"teacher alone, centroids of frame 0, dose x{dose}"] for dose in ("1", "0.1")
    )
    assert abs(full - faint) < 0.03


def test_frames_that_cannot_be_labelled_cost_their_own_score_only(spoiled, scan):
    result = evaluate(spoiled, list(scan.truth[:10]), Request(OPTIONS, (0,), dose=0.5))
    assert [m.status for m in result.masks].count("refused") == 2
    assert result.ious["teacher"][5] == 0
    assert (result.ious["teacher"][[1, 2, 4, 6, 7, 8, 9]] > 0.85).all()
    assert result.staged == [1, 3]  # frame 1 took the place of frame 0
    assert result.scored == [0, 2, 4, 5, 6, 7, 8, 9]
    assert result.refused == [0, 5]
    assert set(result.worst(3)) <= {2, 4, 6, 7, 8, 9}
    assert any(s.name.endswith("centroids of frame 1, dose x0.5") for s in result.scores)


def test_best_baseline_and_worst_frames_are_those_of_the_figures(outcome):
    by_name = {s.name: s.ring for s in outcome.scores if s.name in outcome.baselines}
    assert by_name[outcome.best_baseline] == max(by_name.values())
    worst = outcome.worst(3)
    served = ring_ious([m.classes for m in outcome.masks], outcome.reference)
    assert list(served[worst]) == sorted(served[outcome.scored])[:3]
    assert outcome.best_baseline in outcome.curves()
    assert set(METHODS) <= set(outcome.curves())


def test_student_is_scored_where_there_is_one(strong):
    options = replace(OPTIONS, stages=(3,))
    result = evaluate(strong.frames[:7], list(strong.truth[:7]), Request(options, (0,), quick=True))
    names = [s.name for s in result.scores]
    assert names[:2] == ["teacher", "student (the 3 frames that have one)"]
    assert np.isnan(result.ious["student"][:3]).all()
    assert np.isfinite(result.ious["student"][3:]).all()
    assert result.scores[1].ring > 0.5


def test_run_without_stages_scores_the_teacher_alone(strong):
    options = replace(OPTIONS, stages=())
    result = evaluate(strong.frames[:4], list(strong.truth[:4]), Request(options, (0,), quick=True))
    assert result.staged == []
    assert result.scored == [0, 1, 2, 3]
    assert np.isnan(result.scores[1].ring)
    assert len(result.worst(2)) == 2


# --- baselines and reference ----------------------------------------------------------------------


def test_half_maximum_is_a_threshold_at_half_the_plateau(scan):
    classes = half_maximum(scan.frames[2], PREPARE)
    relative = prepare(scan.frames[2]).relative[0]
    ring = classes == ClassCode.RING
    assert (ring != (relative > 0.5)).sum() <= 4  # specks and pinholes
    assert half_maximum(scan.frames[2], PREPARE, 0.8).tobytes() != classes.tobytes()
    assert (classes == ClassCode.CORE).sum() > 40


def test_constant_masks_are_constant_and_of_the_staged_frames(scan):
    found = baselines(scan.frames[:6], (0, 3, 50), PREPARE)
    first, mean = (found[name] for name in list(found)[:2])
    assert list(found)[:2] == ["constant mask of frame 0", "constant mask of the mean of 2 frames"]
    assert all(m is first[0] for m in first)
    assert np.array_equal(first[0], half_maximum(scan.frames[0], PREPARE))
    expected = half_maximum(mean_image(scan.frames, [0, 3]), PREPARE)
    assert all(np.array_equal(m, expected) for m in mean)
    assert {len(maps) for maps in found.values()} == {6}


def test_baselines_leave_out_what_cannot_be_labelled(spoiled):
    found = baselines(spoiled, (0, 3), PREPARE)
    assert list(found)[:2] == ["constant mask of frame 3", "constant mask of the mean of 1 frames"]
    for maps in list(found.values())[2:]:
        assert (maps[5] == ClassCode.INVALID).all()
        assert (maps[4] == ClassCode.RING).any()
    assert next(iter(baselines(spoiled[:3], (0,), PREPARE))) == "constant mask of frame 1"
    assert usable_frames(spoiled, PREPARE) == [1, 2, 3, 4, 6, 7, 8, 9]


def test_stack_without_a_usable_frame_says_what_is_wrong_with_the_first():
    dark = np.zeros((3, 104, 104), np.uint16)
    with pytest.raises(FrameError, match="none of the 3 frames can be labelled; frame 0: empty"):
        baselines(dark, (0,), PREPARE)


def test_reference_is_the_half_maximum_of_the_mean_of_the_usable_frames(spoiled, scan):
    good = [1, 2, 3, 4, 6, 7, 8, 9]
    expected = half_maximum(mean_image(spoiled, good), PREPARE)
    assert np.array_equal(reference_of(spoiled, OPTIONS), expected)
    assert ring_iou(expected, scan.truth[0]) > 0.9


# --- material -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SIMULATIONS))
def test_simulations_come_with_their_truth(name):
    material = read_material(name, 3)
    assert material.frames.shape == material.truth.shape == (3, 104, 104)
    assert material.positions.shape == (3, 2)
    assert material.experiment.energy == 1000
    text, maps = references(material, "", OPTIONS)
    assert text == "simulated truth"
    assert np.array_equal(np.stack(maps), material.truth)


def test_limit_takes_the_first_frames_of_a_file(tmp_path, scan):
    np.save(tmp_path / "f.npy", scan.frames[:5])
    for limit, count in ((0, 5), (2, 2), (99, 5)):
        material = read_material(str(tmp_path / "f.npy"), limit)
        assert np.array_equal(material.frames, scan.frames[:count])
        assert material.truth is None
    text, maps = references(material, "", OPTIONS)
    assert text.startswith("half-maximum of the mean")
    assert len(maps) == 5


def test_labels_are_one_map_for_all_frames_or_one_for_each(tmp_path, scan):
    material = read_material("sim", 3)
    np.save(tmp_path / "one.npy", scan.truth[0])
    np.save(tmp_path / "each.npy", scan.truth[:5])
    assert len(references(material, str(tmp_path / "one.npy"), OPTIONS)[1]) == 3
    assert len(references(material, str(tmp_path / "each.npy"), OPTIONS)[1]) == 3
    for wrong in (scan.truth[:2], scan.truth[0, :50], scan.truth[:3, :, :50]):
        np.save(tmp_path / "wrong.npy", wrong)
        with pytest.raises(DatasetError, match="give one map for all frames or one for each"):
            references(material, str(tmp_path / "wrong.npy"), OPTIONS)


def test_dark_stack_has_no_reference_and_its_file_is_named(tmp_path):
    np.save(tmp_path / "dark.npy", np.zeros((3, 64, 64), np.uint16))
    material = read_material(str(tmp_path / "dark.npy"))
    with pytest.raises(DatasetError, match=r"dark\.npy.*empty frame"):
        references(material, "", OPTIONS)


# --- the picture ----------------------------------------------------------------------------------


def png_size(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def test_report_is_a_picture_with_a_column_for_each_panel(tmp_path, outcome, strong):
    panels = [
        Panel(i, strong.frames[i], outcome.masks[i].alternatives, outcome.reference[i])
        for i in range(6)
    ]
    wide, narrow = tmp_path / "wide.png", tmp_path / "narrow.png"
    draw_report(wide, "title", panels, outcome.ious, outcome.stages, OPTIONS.stages)
    draw_report(narrow, "title", panels[:1], outcome.ious, outcome.stages, OPTIONS.stages)
    assert png_size(wide)[0] > png_size(narrow)[0]
    assert png_size(wide)[1] == png_size(narrow)[1]


def test_report_can_do_without_a_student_and_without_a_ring(tmp_path, scan):
    blank = np.zeros((104, 104), np.uint8)
    panels = [Panel(0, scan.frames[0].astype(float), {"teacher": blank}, blank)]
    stages = [(-1, 1, {"teacher": 0.9})]
    draw_report(tmp_path / "r.png", "", panels, {"teacher": np.array([0.9])}, stages, (0, 50))
    assert png_size(tmp_path / "r.png")[0] > 300
