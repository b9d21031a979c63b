import numpy as np
import pytest
from skimage.registration import phase_cross_correlation

from ptychoseg_stream.science.counts import PrepareOptions
from ptychoseg_stream.science.prepare import Prepared, prepare, prepare_counts
from ptychoseg_stream.science.register import ShiftFinder, log_image, translate
from ptychoseg_stream.sim import GoldBalls, simulate

PATH = ((0, 0), (0.35, -0.6), (2.45, 1.15), (-3.7, 4.2), (6.05, -5.5), (0, 0.25))


@pytest.fixture(scope="module")
def moved():
    return simulate(GoldBalls(n_frames=len(PATH), drift_path=PATH))


def relative_of(images) -> Prepared:
    counts = np.asarray(images, np.float32)
    none = np.zeros(counts.shape, bool)
    return prepare_counts(counts, none, np.zeros(len(counts), np.intp), PrepareOptions())


def test_known_sub_pixel_shifts_are_found_within_a_tenth_of_a_pixel(moved, scan):
    # The same points of the same sample: only beam and noise differ.
    finders = [ShiftFinder(prepare(f).relative[0]) for f in scan.frames[: len(PATH)]]
    found = [finder.find(prepare(f))[0] for finder, f in zip(finders, moved.frames, strict=True)]
    assert np.array(found) == pytest.approx(moved.shifts, abs=0.1)


def test_sample_that_changes_under_the_beam_costs_a_quarter_of_a_pixel_at_most(moved, scan):
    mean = relative_of([scan.frames[:20:4].mean(axis=0)])
    finder = ShiftFinder(mean.relative[0])
    error = np.concatenate([finder.find(prepare(f)) for f in moved.frames]) - moved.shifts
    assert np.abs(error).max() < 0.25
    assert np.sqrt(np.square(error).mean()) < 0.15


def test_shifts_are_those_of_skimage(moved, strong):
    """Or where the correlation is as high: of two equal neighbours rounding chooses one."""
    reference = prepare(moved.frames[0]).relative[0]
    finder = ShiftFinder(reference)
    for frame in (*moved.frames, *strong.frames[::6]):
        prepared = prepare(frame)
        images = log_image(reference), log_image(prepared.relative[0])
        theirs, _, _ = phase_cross_correlation(*images, normalization=None, upsample_factor=20)
        ours = finder.find(prepared)[0]
        assert ours == pytest.approx(-theirs, abs=1 / 20 + 1e-6)
        assert correlation(*images, ours) >= (1 - 1e-6) * correlation(*images, -theirs)


def correlation(reference, frame, shift) -> float:
    """Correlation of a frame with a reference that is moved by `shift` (y, x) [px]."""
    product = np.fft.fft2(frame) * np.conj(np.fft.fft2(reference))
    y, x = (np.fft.fftfreq(n) * d for n, d in zip(frame.shape, shift, strict=True))
    return float((product * np.exp(2j * np.pi * (y[:, None] + x))).real.sum())


@pytest.mark.parametrize("shape", [(64, 64), (65, 80), (101, 77)])
@pytest.mark.parametrize("shift", [(0, 0), (3, -5), (-15, 17), (25, 0)])
def test_whole_shifts_are_found_exactly_in_frames_of_any_size(shape, shift):
    rng = np.random.default_rng(0)
    image = np.zeros(shape)
    image[20:34, 22:40] = 100 + 40 * rng.random((14, 18))
    prepared = relative_of([image, np.roll(image, shift, (0, 1))])
    assert ShiftFinder(prepared.relative[0]).find(prepared[1:])[0].tolist() == list(shift)


def test_shift_does_not_depend_on_the_batch(strong):
    finder = ShiftFinder(prepare(strong.frames[0]).relative[0])
    images = strong.frames[:4].astype(np.float32)
    together = finder.find(relative_of(images))
    apart = np.concatenate([finder.find(relative_of([x])) for x in images])
    assert together.shape == (4, 2)
    assert together.tobytes() == apart.tobytes()


def test_shift_does_not_depend_on_the_dose(scan):
    finder = ShiftFinder(prepare(scan.frames[0]).relative[0])
    image = scan.frames[8].astype(np.float32)
    assert np.array_equal(finder.find(relative_of([image])), finder.find(relative_of([10 * image])))


def test_whole_translation_moves_pixels_exactly_and_repeats_the_border():
    image = np.arange(20, dtype=np.float32).reshape(4, 5)
    assert translate(image, (1, -2)).tolist() == [
        [2, 3, 4, 4, 4],
        [2, 3, 4, 4, 4],
        [7, 8, 9, 9, 9],
        [12, 13, 14, 14, 14],
    ]
    assert np.array_equal(translate(image, (0, 0)), image)
    assert (translate(image, (100, -100)) == 4).all()


def test_half_a_pixel_has_the_weights_of_keys():
    image = np.array([[0, 0, 0, 16, 0, 0, 0]], np.float32)
    assert translate(image, (0, 0.5)).tolist() == [[0, 0, -1, 9, 9, -1, 0]]
    assert translate(image.T, (-0.5, 0)).T.tolist() == [[0, -1, 9, 9, -1, 0, 0]]
    assert translate(np.full((6, 7), 3, np.float32), (0.3, 1.7)) == pytest.approx(3)


def test_parabola_is_moved_exactly():
    """Keys' weights of third order err with the third derivative only; linear ones do not."""
    y, x = np.indices((20, 24)).astype(np.float64)
    for dy, dx in ((0.25, -0.4), (1.7, 0.05), (-2.5, -0.9)):
        image = ((y / 10) ** 2 - (x / 12) ** 2).astype(np.float32)
        there = ((y - dy) / 10) ** 2 - ((x - dx) / 12) ** 2
        inside = np.s_[5:-5, 5:-5]
        assert translate(image, (dy, dx))[inside] == pytest.approx(there[inside], abs=1e-5)


def test_soft_edge_is_moved_there_and_back_with_little_blur_and_little_overshoot():
    x = np.arange(60)
    edge = (1 / (1 + np.exp(x - 30.0))).astype(np.float32)[None]
    moved = translate(edge, (0, 0.5))
    back = translate(moved, (0, -0.5))
    linear = 0.25 * np.roll(edge, -1) + 0.5 * edge + 0.25 * np.roll(edge, 1)
    inside = np.s_[:, 5:-5]
    assert np.abs(back - edge)[inside].max() < 0.25 * np.abs(linear - edge)[inside].max()
    assert moved.min() > -0.07
    assert moved.max() < 1.07


@pytest.mark.parametrize("shift", [(2, -3), (0.5, 0.5), (1.3, -2.7), (-0.05, 4.9)])
def test_translation_and_back_is_nearly_nothing(shift):
    y, x = np.indices((60, 70))
    smooth = np.sin(y / 6).astype(np.float32) * np.cos(x / 7).astype(np.float32)
    back = translate(translate(smooth, shift), (-shift[0], -shift[1]))
    inside = np.s_[8:-8, 8:-8]
    tolerance = 0 if float(sum(shift)).is_integer() and shift[0] % 1 == 0 else 0.02
    assert back[inside] == pytest.approx(smooth[inside], abs=tolerance + 1e-7)
    assert translate(smooth, shift).dtype == np.float32


def test_translation_by_the_found_shift_undoes_it(moved):
    prepared = [prepare(f) for f in moved.frames]
    finder = ShiftFinder(prepared[0].relative[0])
    dy, dx = finder.find(prepared[3])[0]
    there = translate(prepared[0].relative[0], (float(dy), float(dx)))
    difference = np.abs(there - prepared[3].relative[0]).mean()
    assert difference < 0.3 * np.abs(prepared[0].relative[0] - prepared[3].relative[0]).mean()


def test_translation_leaves_its_input_alone():
    image = np.eye(20, dtype=np.float32)
    out = translate(image, (0, 0))
    out += 1
    assert np.array_equal(image, np.eye(20, dtype=np.float32))
