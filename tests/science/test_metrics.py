import math

import numpy as np
import pytest

from ptychoseg_stream.science.metrics import boundary_f1, iou, temporal_consistency

EMPTY = np.zeros((8, 8), bool)


def box(y, x, h, w, shape=(12, 12)):
    region = np.zeros(shape, bool)
    region[y : y + h, x : x + w] = True
    return region


def test_iou_counted_by_hand():
    a, b = box(0, 0, 4, 4), box(2, 2, 4, 4)
    assert iou(a, b) == 4 / 28
    assert iou(a, a) == 1
    assert iou(a, box(6, 6, 2, 2)) == 0
    assert iou(a, box(0, 0, 2, 4)) == 0.5
    assert iou(a, b) == iou(b, a)


def test_iou_of_nothing_with_nothing_is_one_and_with_something_zero():
    assert iou(EMPTY, EMPTY) == 1
    assert iou(EMPTY, box(0, 0, 1, 1, (8, 8))) == 0


def test_boundary_f1_of_equal_masks_is_one_and_of_masks_far_apart_zero():
    a = box(1, 1, 4, 4)
    assert boundary_f1(a, a) == 1
    assert boundary_f1(a, box(8, 8, 3, 3)) == 0
    assert boundary_f1(EMPTY, EMPTY) == 1
    assert boundary_f1(box(1, 1, 3, 3, (8, 8)), EMPTY) == 0
    assert boundary_f1(EMPTY, box(1, 1, 3, 3, (8, 8))) == 0


def test_boundary_f1_forgives_as_many_pixels_as_it_is_told():
    a, b = box(2, 2, 6, 6), box(2, 4, 6, 6)
    assert boundary_f1(a, b, tolerance=2) == 1
    # Each has 20 boundary pixels. Within 1 px of those of b lie, of a: 5 of the top row, 5 of the
    # bottom row, and of the right edge the first and the last below and above these.
    assert boundary_f1(a, b, tolerance=1) == pytest.approx(12 / 20)
    # Without tolerance top and bottom rows share 4 px each, and nothing else coincides.
    assert boundary_f1(a, b, tolerance=0) == pytest.approx(8 / 20)


def test_boundary_f1_is_the_harmonic_mean_of_precision_and_recall():
    dot, line = box(5, 5, 1, 1), box(5, 0, 1, 12)
    precision, recall = 1, 3 / 12
    expected = 2 * precision * recall / (precision + recall)
    assert boundary_f1(dot, line) == pytest.approx(expected)
    assert boundary_f1(line, dot) == pytest.approx(expected)


def test_border_of_the_frame_is_no_boundary():
    whole_left = box(0, 0, 12, 6)
    shifted = box(0, 0, 12, 9)
    assert boundary_f1(whole_left, shifted) == 0
    assert boundary_f1(whole_left, box(0, 0, 12, 7)) == 1


def test_temporal_consistency_is_the_mean_iou_of_neighbours():
    a, b, c = box(0, 0, 4, 4), box(0, 0, 2, 4), box(0, 0, 2, 4)
    assert temporal_consistency([a, b, c]) == pytest.approx((0.5 + 1) / 2)
    assert temporal_consistency([a, a, a]) == 1
    assert math.isnan(temporal_consistency([a]))
    assert math.isnan(temporal_consistency([]))
