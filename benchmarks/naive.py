"""The stages of a frame written as one would at first, and a watch to time them by."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from minisom import MiniSom
from numpy.typing import NDArray
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from ptychoseg_stream.science.geometry import Geometry, find_beam
from ptychoseg_stream.science.inputs import inputs_of
from ptychoseg_stream.science.learning import Student
from ptychoseg_stream.science.prepare import Prepared
from ptychoseg_stream.science.register import log_image
from ptychoseg_stream.science.som import Centroids

UPSAMPLED: dict[str, Any] = {"normalization": None, "upsample_factor": 20}


class Stopwatch:
    """Collects milliseconds per frame by stage."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {}

    def time(self, stage: str, frames: int, work: Callable[[], Any]) -> Any:
        """Run and book `work` on so many frames."""
        begin = time.perf_counter()
        result = work()
        self.samples.setdefault(stage, []).append(1e3 * (time.perf_counter() - begin) / frames)
        return result

    def median(self, stage: str) -> float:
        """Median over the micro-batches [ms per frame]."""
        return float(np.median(self.samples[stage])) if stage in self.samples else float("nan")


def take_naively(
    watch: Stopwatch,
    image: NDArray[Any],
    prepared: Prepared,
    centroids: Centroids,
    student: Student,
    reference: Prepared,
) -> None:
    """Time the same stages on one frame, written as one would at first."""
    som = _minisom(centroids)
    geometry = find_beam(reference.relative[0])
    watch.time("plateau", 1, lambda: _naive_prepare(image))
    watch.time(
        "register",
        1,
        lambda: phase_cross_correlation(
            log_image(reference.relative[0]),
            log_image(prepared.relative[0]),
            **UPSAMPLED,
        ),
    )
    features = watch.time("features", 1, lambda: _naive_features(prepared, geometry))

    def label() -> list[Any]:
        flat = features.reshape(9, -1).T
        points = ((flat - centroids.offset) * centroids.scale) @ centroids.components.T
        return [som.winner(point) for point in points]

    watch.time("label", 1, label)
    net = student.net
    x = torch.from_numpy(inputs_of(prepared, [geometry])).contiguous()
    watch.time("student", 1, lambda: torch.sigmoid(net(x)).detach().numpy())


def _naive_prepare(image: NDArray[Any]) -> NDArray[Any]:
    """Despike with rank filters over the whole frame and solve the plateau with median filters."""
    counts = image.astype(float)
    third = ndimage.rank_filter(counts, -3, size=3)
    spike = counts > 6 * third + 3 + 5 * np.sqrt(third + 1)
    counts = np.where(spike, ndimage.median_filter(counts, 3), counts)
    plateau = counts.max() / 2
    for _ in range(8):
        median = ndimage.median_filter(counts, 3)
        plateau = float(np.median(median[median > 0.5 * plateau]))
    return counts / plateau


def _naive_features(prepared: Prepared, geometry: Geometry) -> NDArray[Any]:
    b = np.clip(prepared.relative[0], 0, 1.5).astype(float)
    y, x = np.mgrid[: b.shape[0], : b.shape[1]]
    mean5, mean_square = ndimage.uniform_filter(b, 5), ndimage.uniform_filter(b**2, 5)
    return np.stack(
        [
            b,
            np.log1p(b / 0.01) / np.log(101),
            np.sqrt(np.maximum(mean_square - mean5**2, 0)),
            ndimage.uniform_filter(b, 3),
            ndimage.laplace(b),
            np.hypot(ndimage.sobel(b, 0), ndimage.sobel(b, 1)) / 8,
            np.minimum(np.hypot(y - geometry.y, x - geometry.x) / geometry.radius, 2),
            np.arctan2(y - geometry.y, x - geometry.x) / np.pi,
            b - ndimage.gaussian_filter(b, 2),
        ]
    )


def _minisom(centroids: Centroids) -> MiniSom:
    side = centroids.options.map_size
    som = MiniSom(side, side, centroids.prototypes.shape[1])
    som._weights = centroids.prototypes.reshape(side, side, -1)
    return som
