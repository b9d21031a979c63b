"""How well masks agree: with a reference, and with each other over time."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .frame import BoolArray


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union (Jaccard index) of two regions; 1 when both are empty."""
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


def boundary_f1(mask: BoolArray, reference: BoolArray, tolerance: int = 1) -> float:
    """F1 score of boundary pixels that lie within `tolerance` [px, chessboard] of each other.

    Csurka et al., "What is a good evaluation measure for semantic segmentation?" (2013).
    """
    a, b = _boundary(mask), _boundary(reference)
    if not a.any() and not b.any():
        return 1.0
    if not a.any() or not b.any():
        return 0.0
    near = np.ones((2 * tolerance + 1, 2 * tolerance + 1), bool)
    precision = float((a & ndimage.binary_dilation(b, near)).sum() / a.sum())
    recall = float((b & ndimage.binary_dilation(a, near)).sum() / b.sum())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def temporal_consistency(rings: Sequence[BoolArray]) -> float:
    """Mean IoU of each ring with the one before; NaN for fewer than two."""
    if len(rings) < 2:
        return float("nan")
    return float(np.mean([iou(a, b) for a, b in pairwise(rings)]))


def _boundary(region: BoolArray) -> BoolArray:
    inside = ndimage.binary_erosion(region, np.ones((3, 3), bool), border_value=1)
    return region & ~inside
