import dataclasses

import numpy as np
import pytest
import torch
from beams import QUICK, annulus

from ptychoseg_stream.errors import LearningError
from ptychoseg_stream.science.augment import Example, batch_of
from ptychoseg_stream.science.consensus import RunningMean
from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.geometry import Geometry, find_beam
from ptychoseg_stream.science.inputs import azimuthal_mean, inputs_of, student_inputs
from ptychoseg_stream.science.learning import (
    Student,
    StudentOptions,
    TrainingStep,
    fine_tune,
    weights_hash,
)
from ptychoseg_stream.science.loss import dice_loss
from ptychoseg_stream.science.metrics import iou
from ptychoseg_stream.science.prepare import join, prepare
from ptychoseg_stream.science.register import ShiftFinder
from ptychoseg_stream.science.unet import CHANNELS, PRIOR_CHANNEL, new_unet

OPTIONS = PrepareOptions()


def example_of(counts, ring, geometry) -> Example:
    prepared = prepare(counts)
    return Example(prepared.counts[0], float(prepared.plateau[0]), ring, geometry, OPTIONS)


def drawn(shape, seed=0, dose=60.0) -> Example:
    """A noisy annulus that fills a third of the frame, and its label."""
    centre, size = (shape[0] / 2, shape[1] / 2), min(shape)
    ring = annulus(shape, centre, 0.15 * size, 0.35 * size)
    frame = np.random.default_rng(seed).poisson(np.where(ring, dose, 0.1)).astype(np.uint16)
    return example_of(frame, ring, Geometry(*centre, 0.35 * size))


@pytest.fixture(scope="module")
def staged(strong, centroids):
    """Three registered frames of the strong sample with the label of their mean."""
    prepared = [prepare(strong.frames[i]) for i in (0, 5, 10)]
    finder = ShiftFinder(prepared[0].relative[0])
    shifts = [tuple(map(float, finder.find(p)[0])) for p in prepared]
    mean = RunningMean.empty((104, 104))
    for frame, shift in zip(prepared, shifts, strict=True):
        mean = mean.plus(frame, shift)
    consensus = mean.consensus(centroids, OPTIONS)
    return [
        Example(
            p.counts[0],
            float(p.plateau[0]) * consensus.factor,
            consensus.label_for(shift, centroids),
            consensus.geometry.moved(shift),
            OPTIONS,
            factor=consensus.factor,
            mean=consensus.at(shift),
            level=consensus.level,
        )
        for p, shift in zip(prepared, shifts, strict=True)
    ]


def learn(previous, examples, options) -> tuple[list[TrainingStep], Student]:
    *steps, student = fine_tune(previous, examples, options)
    assert all(isinstance(s, TrainingStep) for s in steps)
    assert isinstance(student, Student)
    return steps, student


@pytest.fixture(scope="module")
def first(staged):
    return learn(None, staged[:1], QUICK)


# --- the net --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(104, 104), (64, 64), (97, 101), (16, 18)])
def test_fresh_net_serves_the_prior_exactly(shape):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 5, *shape)).astype(np.float32))
    net = new_unet(8, 2, 0).eval()
    with torch.no_grad():
        logits = net(x)
    assert logits.shape == (2, *shape)
    assert torch.equal(logits, 8 * (x[:, PRIOR_CHANNEL] - 0.5))


def test_net_has_the_size_that_was_chosen():
    count = sum(p.numel() for p in new_unet(8, 2, 0).parameters())
    assert count == pytest.approx(30_065, rel=0.01)
    assert CHANNELS == 5


def test_net_depends_on_its_own_seed_and_on_no_other():
    def hash_of(seed, elsewhere):
        with torch.random.fork_rng():
            torch.manual_seed(elsewhere)
            state = new_unet(4, 2, seed).state_dict()
        return weights_hash({k: v.numpy() for k, v in state.items()})

    assert hash_of(0, 1) == hash_of(0, 2)
    assert hash_of(0, 1) != hash_of(1, 1)


# --- what it sees ---------------------------------------------------------------------------------


def test_five_inputs_are_those_of_the_specification(strong):
    prepared = prepare(strong.frames[1])
    geometry = Geometry(51.5, 49.0, 9.6)
    x = inputs_of(prepared, [geometry])
    assert x.shape == (1, 5, 104, 104)
    assert x.dtype == np.float32
    j = prepared.counts[0] / prepared.plateau[0]
    y, z = np.indices((104, 104))
    rho = np.hypot(y - 51.5, z - 49.0) / 9.6
    assert x[0, 0] == pytest.approx(np.clip(j, -0.5, 1.5), abs=1e-5)
    assert x[0, 1] == pytest.approx(np.log1p(np.clip(j, 0, 1.5) / 0.01) / np.log(101), abs=1e-5)
    assert x[0, 2] == pytest.approx(np.clip(prepared.relative[0], -0.5, 1.5), abs=1e-5)
    assert x[0, 3] == pytest.approx(np.minimum(rho, 2) - 1, abs=1e-5)
    assert x[0, 4] == pytest.approx(azimuthal_mean(prepared.relative[0], rho), abs=1e-4)
    same = student_inputs(prepared.counts, prepared.smooth, prepared.plateau, [geometry])
    assert same.tobytes() == x.tobytes()


def test_azimuthal_mean_of_an_isotropic_image_is_the_image():
    y, x = np.indices((80, 80))
    rho = (np.hypot(y - 40, x - 39) / 15).astype(np.float32)
    image = np.exp(-np.square(rho)).astype(np.float32)
    assert azimuthal_mean(image, rho) == pytest.approx(image, abs=0.05)
    assert azimuthal_mean(np.ones_like(image), rho) == pytest.approx(np.ones_like(image))


def test_azimuthal_mean_averages_what_varies_around_the_centre():
    y, x = np.indices((80, 80))
    rho = (np.hypot(y - 40, x - 39) / 15).astype(np.float32)
    wave = 1 + np.sin(8 * np.arctan2(y - 40, x - 39)).astype(np.float32)
    around = (rho > 0.6) & (rho < 2.3)
    assert azimuthal_mean(wave, rho)[around] == pytest.approx(1, abs=0.15)
    assert wave[around].std() > 0.5


def test_inputs_of_a_batch_are_those_of_its_frames(strong):
    parts = [prepare(f) for f in strong.frames[:3]]
    beams = [find_beam(p.relative[0]) for p in parts]
    apart = np.concatenate([inputs_of(p, [g]) for p, g in zip(parts, beams, strict=True)])
    assert inputs_of(join(parts), beams).tobytes() == apart.tobytes()


# --- patches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(104, 104), (48, 100), (100, 48), (33, 131), (16, 16)])
def test_patches_fit_in_frames_of_any_shape(shape):
    x, y = batch_of([drawn(shape)], 12, 64, np.random.default_rng(0))
    side = min(64, *shape)
    assert x.shape == (12, 5, side, side)
    assert y.shape == (12, side, side)
    assert x.dtype == y.dtype == np.float32
    assert set(np.unique(y)) <= {0.0, 1.0}
    assert y.any()


def test_patch_and_label_are_turned_and_cut_together():
    """Whatever was done to a patch, its bright pixels are those of its label."""
    x, y = batch_of([drawn((104, 104), dose=2000.0)], 24, 64, np.random.default_rng(1))
    agreement = [iou(a > 0.5, b > 0.5) for a, b in zip(x[:, PRIOR_CHANNEL], y, strict=True)]
    assert np.median(agreement) > 0.95
    assert min(a for a, b in zip(agreement, y, strict=True) if b.sum() > 100) > 0.7


def test_patches_vary_in_dose_and_place():
    x, _ = batch_of([drawn((104, 104), dose=2000.0)], 24, 64, np.random.default_rng(1))
    assert len({a.tobytes() for a in x}) == 24
    noise = [a[0][a[PRIOR_CHANNEL] > 0.8].std() for a in x]
    assert max(noise) > 3 * min(noise)  # thinned ones are noisier


def test_faint_frames_are_not_thinned_any_further():
    faint = drawn((104, 104), dose=1.5)
    assert faint.plateau < 2
    x, _ = batch_of([faint], 16, 104, np.random.default_rng(0))
    assert x.shape == (16, 5, 104, 104)
    assert np.isfinite(x).all()


def test_drawing_patches_leaves_the_examples_alone():
    example = drawn((104, 104))
    before = example.counts.tobytes(), example.ring.tobytes()
    batch_of([example], 16, 64, np.random.default_rng(0))
    assert (example.counts.tobytes(), example.ring.tobytes()) == before


def softly_drawn() -> Example:
    """A soft ring in many counts, with the noiseless mean of such frames."""
    r = np.hypot(*(np.indices((64, 64)) - np.array([31.3, 32.4])[:, None, None]))
    mean = (1 / (1 + np.exp(2 * (np.abs(r - 14) - 5)))).astype(np.float32)
    counts = np.random.default_rng(0).poisson(2000 * mean).astype(np.uint16)
    example = example_of(counts, mean > 0.5, Geometry(31.3, 32.4, 19))
    return dataclasses.replace(example, plateau=2000.0, mean=mean)


def test_frames_with_a_mean_are_moved_by_part_of_a_pixel_and_their_label_with_them():
    example = softly_drawn()
    x, y = batch_of([example], 24, 64, np.random.default_rng(0))
    areas = {int(label.sum()) for label in y}
    assert len(areas) > 5  # turning and flipping would not change it
    assert max(areas) - min(areas) < 0.1 * example.ring.sum()
    assert int(example.ring.sum()) in areas  # not all are moved
    for inputs, label in zip(x, y, strict=True):
        assert iou(inputs[PRIOR_CHANNEL] > 0.5, label > 0.5) > 0.85


def test_frames_without_a_mean_stay_where_they_are():
    still = dataclasses.replace(softly_drawn(), mean=None)
    _, y = batch_of([still], 24, 64, np.random.default_rng(0))
    assert {int(label.sum()) for label in y} == {int(still.ring.sum())}


def test_label_of_a_moved_frame_is_cut_at_its_level():
    example = softly_drawn()
    low, high = (dataclasses.replace(example, level=v) for v in (0.2, 0.8))
    (_, y_low), (_, y_high) = (batch_of([e], 24, 64, np.random.default_rng(0)) for e in (low, high))
    moved = y_low.sum(axis=(1, 2)) != example.ring.sum()
    assert 4 < moved.sum() < 20
    assert (y_low[moved].sum(axis=(1, 2)) > 1.05 * y_high[moved].sum(axis=(1, 2))).all()


def test_plateaus_found_in_patches_are_raised_by_the_factor_of_the_run():
    example = softly_drawn()
    raised = dataclasses.replace(example, factor=1.2)
    (x, y), (z, _) = (batch_of([e], 12, 64, np.random.default_rng(0)) for e in (example, raised))
    for before, after, label in zip(x, z, y, strict=True):
        bright = np.median(before[PRIOR_CHANNEL][label > 0.5])
        assert bright / np.median(after[PRIOR_CHANNEL][label > 0.5]) == pytest.approx(1.2)


# --- stages ---------------------------------------------------------------------------------------


def test_stage_yields_one_record_a_step_and_last_the_student(first, staged):
    steps, student = first
    assert [s.step for s in steps] == list(range(1, QUICK.first_steps + 1))
    assert {s.stage for s in steps} == {0}
    assert {s.steps for s in steps} == {QUICK.first_steps}
    assert all(np.isfinite(s.loss) and s.loss > 0 and 0 <= s.iou <= 1 for s in steps)
    assert student.revision == 0
    assert student.hash == weights_hash(student.weights)
    steps, second = learn(student, staged[:2], QUICK)
    assert [(s.stage, s.steps) for s in steps] == [(1, QUICK.steps)] * QUICK.steps
    assert second.revision == 1
    assert second.hash != student.hash


def test_same_seed_makes_the_same_student_and_another_seed_another(first, staged):
    _, again = learn(None, staged[:1], QUICK)
    _, other = learn(None, staged[:1], dataclasses.replace(QUICK, seed=1))
    assert again.hash == first[1].hash
    assert other.hash != first[1].hash


def test_later_stage_depends_on_the_student_before_and_on_the_frames(first, staged):
    _, student = first
    _, one = learn(student, staged[:2], QUICK)
    _, again = learn(student, staged[:2], QUICK)
    _, more = learn(student, staged, QUICK)
    _, other = learn(learn(None, staged[1:2], QUICK)[1], staged[:2], QUICK)
    assert again.hash == one.hash
    assert len({one.hash, more.hash, other.hash}) == 3


def test_training_does_not_change_the_student_before(first, staged):
    _, student = first
    x = inputs_of(prepare(staged[0].counts), [staged[0].geometry])
    before = student.predict(x).tobytes()
    learn(student, staged, QUICK)
    assert weights_hash(student.weights) == student.hash
    assert student.predict(x).tobytes() == before


def test_training_left_half_way_leaves_nothing_behind(first, staged):
    for record in fine_tune(None, staged[:1], QUICK):
        assert isinstance(record, TrainingStep)
        if record.step == 2:
            break
    assert learn(None, staged[:1], QUICK)[1].hash == first[1].hash


def test_training_raises_the_agreement_with_the_label(staged, strong):
    options = StudentOptions(base=4, first_steps=60, batch=4, patch=48)
    steps, student = learn(None, staged, options)
    assert np.mean([s.loss for s in steps[-10:]]) < np.mean([s.loss for s in steps[:10]])
    before, after = [], []
    for e in staged:
        prepared = prepare(e.counts)
        before.append(iou(prepared.relative[0] > 0.5, e.ring))
        after.append(iou(student.predict(inputs_of(prepared, [e.geometry]))[0] > 0.5, e.ring))
    assert np.mean(after) > np.mean(before) + 0.01


def test_prediction_of_a_batch_is_that_of_its_frames_bit_for_bit(first, strong):
    _, student = first
    prepared = [prepare(f) for f in strong.frames[:5]]
    x = inputs_of(join(prepared), [find_beam(p.relative[0]) for p in prepared])
    together = student.predict(x)
    assert together.shape == (5, 104, 104)
    assert together.dtype == np.float32
    assert together.min() >= 0
    assert together.max() <= 1
    for cut in ([1, 2], [4], [1, 2, 3, 4]):
        parts = [student.predict(part) for part in np.split(x, cut)]
        assert np.concatenate(parts).tobytes() == together.tobytes()


def test_student_rebuilt_from_its_weights_predicts_the_same(first, strong):
    _, student = first
    prepared = prepare(strong.frames[2])
    x = inputs_of(prepared, [find_beam(prepared.relative[0])])
    weights = {k: v.copy() for k, v in reversed(student.weights.items())}
    rebuilt = Student.of(weights, student.revision, QUICK)
    assert rebuilt.hash == student.hash
    assert rebuilt.predict(x).tobytes() == student.predict(x).tobytes()


def test_student_predicts_frames_of_another_size(first):
    _, student = first
    for shape in ((64, 64), (97, 130)):
        e = drawn(shape)
        prepared = prepare(e.counts)
        found = student.predict(inputs_of(prepared, [e.geometry]))[0] > 0.5
        assert found.shape == shape
        assert iou(found, e.ring) > 0.6


@pytest.mark.parametrize("spoilt", ["counts", "plateau", "label", "no frame"])
def test_staged_frame_that_is_not_finite_ends_the_stage_before_it_begins(staged, spoilt):
    nan = np.full_like(staged[0].counts, np.nan)
    broken = {
        "counts": dataclasses.replace(staged[1], counts=np.where(staged[1].ring, nan, 1)),
        "plateau": dataclasses.replace(staged[1], plateau=float("nan")),
        "label": dataclasses.replace(staged[1], soft=nan),
    }
    examples = [staged[0], broken[spoilt]] if spoilt in broken else []
    with pytest.raises(LearningError, match=r"stage 0: (staged frame 1 of 2|there is no staged)"):
        next(iter(fine_tune(None, examples, QUICK)))


def test_training_that_diverges_ends_with_a_clear_error(staged):
    wild = dataclasses.replace(QUICK, learning_rate=1e38, first_steps=40)
    with pytest.raises(LearningError, match=r"stage 0, step \d+: the loss is not finite"):
        list(fine_tune(None, staged[:1], wild))


def test_number_of_the_stage_can_be_given_where_a_stage_between_was_refused(first, staged):
    _, student = first
    *steps, third = fine_tune(student, staged, QUICK, 2)
    assert {s.stage for s in steps} == {2}
    assert third.revision == 2
    assert third.hash != learn(student, staged, QUICK)[1].hash  # another draw of patches


# --- soft labels ----------------------------------------------------------------------------------


def test_soft_label_of_zeros_and_ones_trains_as_the_hard_one(first, staged):
    """But for frames that are moved: a hard label is cut anew, a soft one is moved itself."""
    hard = [dataclasses.replace(staged[0], mean=None)]
    soft = [dataclasses.replace(e, soft=e.ring.astype(np.float32)) for e in hard]
    assert learn(None, soft, QUICK)[1].hash == learn(None, hard, QUICK)[1].hash
    assert learn(None, hard, QUICK)[1].hash != first[1].hash


def test_patches_carry_the_soft_label(staged):
    example = dataclasses.replace(staged[0], soft=np.full(staged[0].ring.shape, 0.3, np.float32))
    _, y = batch_of([example], 4, 64, np.random.default_rng(0))
    assert y == pytest.approx(0.3, abs=1e-6)


def test_loss_of_a_soft_label_is_least_where_the_prediction_equals_it():
    target = torch.tensor([[0.05, 0.2, 0.5, 0.7, 0.95]])
    logits = torch.logit(target)
    least = dice_loss(logits, target)
    for place in range(5):
        for step in (-0.5, 0.5):
            moved = logits.clone()
            moved[0, place] += step
            assert dice_loss(moved, target) > least
    p, hard = torch.sigmoid(logits), torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0]])
    usual = 1 - (2 * (p * hard).sum() + 1) / (p.sum() + hard.sum() + 1)
    assert float(dice_loss(logits, hard)) == pytest.approx(float(usual), abs=1e-6)


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("rounds", -1), ("round_steps", 0), ("anchor_weight", 1.5), ("epsilon", -0.1)],
)
def test_refinement_that_cannot_work_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        StudentOptions(**{name: value})
