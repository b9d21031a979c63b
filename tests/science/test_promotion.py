import dataclasses

import numpy as np
import pytest
from beams import QUICK, annulus

from ptychoseg_stream.science.augment import Example
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.geometry import Geometry
from ptychoseg_stream.science.learning import Student, fine_tune
from ptychoseg_stream.science.prepare import prepare
from ptychoseg_stream.science.promotion import CheckSet, PromotionOptions, examine

SHAPE, CENTRE = (64, 64), (32.0, 31.0)
RING = annulus(SHAPE, CENTRE, 8, 18)


def example_of(seed, dose=60.0) -> Example:
    frame = np.random.default_rng(seed).poisson(np.where(RING, dose, 0.1)).astype(np.uint16)
    prepared = prepare(frame)
    beam = Geometry(*CENTRE, 18)
    return Example(prepared.counts[0], float(prepared.plateau[0]), RING, beam, PrepareOptions())


EXAMPLES = [example_of(seed) for seed in range(3)]
CHECK = CheckSet.of([example_of(seed) for seed in range(10, 13)])


@pytest.fixture(scope="module")
def student() -> Student:
    *_, student = fine_tune(None, EXAMPLES, QUICK)
    assert isinstance(student, Student)
    return student


def altered(student, **weights) -> Student:
    """The student with some of its weights replaced; ``head_bias`` is ``head.bias``."""
    named = {k.replace("_", "."): v for k, v in weights.items()}
    return Student.of({**student.weights, **named}, student.revision, QUICK)


def with_bias(student, bias) -> Student:
    return altered(student, head_bias=np.array([bias], np.float32))


def test_good_student_is_accepted_first_and_after_itself(student):
    for serving in (None, student):
        exam = examine(student, serving, CHECK)
        assert (exam.accepted, exam.reason) == (True, "")
        assert exam.iou_to_anchor > 0.9
        assert abs(exam.area_change) < 0.1
    assert exam.iou_of_serving == exam.iou_to_anchor
    assert np.isnan(examine(student, None, CHECK).iou_of_serving)


def test_weights_that_are_not_finite_are_refused(student):
    for value in (np.nan, np.inf, -np.inf):
        exam = examine(with_bias(student, value), None, CHECK)
        assert not exam.accepted
        assert "weights are not finite: head.bias" in exam.reason


def test_weights_that_ran_away_are_refused_however_good_the_masks(student):
    """Batch normalisation makes the masks forget the size of the weights before it."""
    name = "down.0.0.weight"
    large = {**student.weights, name: student.weights[name] * 1000}
    statistics = {
        "down.0.1.running_mean": student.weights["down.0.1.running_mean"] * 1000,
        "down.0.1.running_var": student.weights["down.0.1.running_var"] * 1e6,
    }
    wild = Student.of({**large, **statistics}, 0, QUICK)
    assert examine(wild, None, CHECK, PromotionOptions(max_weight=1e9)).accepted
    exam = examine(wild, None, CHECK)
    assert not exam.accepted
    assert exam.reason.startswith("training ran away: down.0.0.weight reaches")


def test_answers_that_are_not_finite_are_refused(student):
    huge = np.full_like(student.weights["head.weight"], 3e38)
    huge[0, 0] *= -1
    broken = dataclasses.replace(CHECK, inputs=np.where(CHECK.inputs > 0.9, np.nan, CHECK.inputs))
    assert "not finite" in examine(student, None, broken).reason
    assert not examine(altered(student, head_weight=huge), None, CHECK).accepted


def test_ring_that_is_gone_or_everywhere_is_refused(student):
    assert "the ring is gone in kept frame 0" in examine(with_bias(student, -3), None, CHECK).reason
    assert "the ring covers 100% of kept frame 0" in (
        examine(with_bias(student, 3), None, CHECK).reason
    )


def inverted(options=QUICK) -> Student:
    lie = [dataclasses.replace(e, ring=~e.ring) for e in EXAMPLES]
    *_, student = fine_tune(None, lie, dataclasses.replace(options, first_steps=60))
    assert isinstance(student, Student)
    return student


def test_student_of_inverted_labels_is_refused_even_by_a_check_set_inverted_like_them():
    student = inverted()
    agrees = examine(student, None, dataclasses.replace(CHECK, anchors=~CHECK.anchors))
    assert agrees.iou_to_anchor > 0.6  # it learned what it was taught
    assert "the ring lies where the frames are dark" in agrees.reason
    assert not examine(student, None, CHECK).accepted


@pytest.mark.parametrize(
    ("anchor", "reason"),
    [
        (annulus(SHAPE, CENTRE, 8, 14), "the ring's area is +"),
        (annulus(SHAPE, CENTRE, 8, 23), "the ring's area is -"),
        (np.roll(RING, 6, 0), "ring IoU with the teacher is 0."),
        (np.zeros_like(RING), "ring IoU with the teacher is 0.00"),
    ],
)
def test_ring_that_is_not_the_teachers_is_refused(student, anchor, reason):
    exam = examine(student, None, dataclasses.replace(CHECK, anchors=np.stack([anchor] * 3)))
    assert not exam.accepted
    assert exam.reason.startswith(reason)
    assert "\n" not in exam.reason


def test_student_clearly_worse_than_the_serving_one_is_refused(student):
    worse = with_bias(student, student.weights["head.bias"][0] - 0.35)
    strict = PromotionOptions(min_iou=0, max_area_change=9, max_loss=0.01)
    exam = examine(worse, student, CHECK, strict)
    assert exam.iou_of_serving - exam.iou_to_anchor > 0.01
    assert "the student that serves has" in exam.reason
    assert examine(worse, None, CHECK, strict).accepted
    assert examine(student, worse, CHECK, strict).accepted


def test_check_set_needs_a_frame_and_an_anchor_for_each():
    with pytest.raises(ValueError, match="anchors must be one map for each of the kept frames"):
        CheckSet(CHECK.inputs, CHECK.anchors[:2])
    with pytest.raises(ValueError, match="at least one frame"):
        CheckSet(CHECK.inputs[:0], CHECK.anchors[:0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_iou", 1.5),
        ("max_loss", -0.1),
        ("min_bright_iou", 2),
        ("max_cover", 2),
        ("max_area_change", -1),
    ],
)
def test_options_that_cannot_work_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        PromotionOptions(**{name: value})
