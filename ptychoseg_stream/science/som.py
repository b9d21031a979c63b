"""The teacher: prototypes learned from one frame, named in physical units, used for every frame.

Features are put on fixed physical weights (no statistics of any frame), reduced by PCA, and a
self-organizing map learns its prototypes. Each prototype is named by what it means in physical
units: it is a ring prototype if its intensity is at least `edge_level` of the plateau. The core is
geometry (what the ring encloses) and comes from `ptychoseg_stream.science.classes`.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from .classes import class_map, clean_ring
from .counts import PrepareOptions
from .features import FEATURE_VERSION, FEATURES, extract
from .frame import BoolArray, ClassMap, FloatArray
from .geometry import Geometry, find_beam
from .prepare import Prepared, prepare
from .prototypes import (
    TeacherOptions,
    distances,
    in_units,
    k_elbow,
    name_rings,
    scaler,
    sign_fixed,
    train_map,
    training_sample,
)

PIXELS = 1 << 14
"""Pixels labelled at a time: bounds the memory that a large frame takes."""


@dataclass(frozen=True, eq=False)
class Centroids:
    """Scaler, PCA and named prototypes; immutable, named by their content.

    A pixel with features f belongs to the prototype w nearest to ``((f - offset) * scale) @
    components.T``.

    Parameters
    ----------
    offset, scale : ndarray of float64
        ``(9,)`` each.
    components : ndarray of float64
        ``(c, 9)`` principal axes, the largest loading of each positive.
    prototypes : ndarray of float64
        ``(m, c)``.
    is_ring : ndarray of bool
        ``(m,)`` prototypes named ring.
    hits : ndarray of int64
        ``(m,)`` training pixels nearest to each.
    explained_variance : ndarray of float64
        ``(c,)`` fraction of the variance along each axis.
    k_elbow : int
        Where Kneedle sees the elbow of the k-means inertia over the prototypes, K = 1..8. A
        diagnostic: no class depends on it.
    options : TeacherOptions
        That they were made with.
    feature_version : int
        Of the formulas.
    """

    offset: NDArray[np.float64]
    scale: NDArray[np.float64]
    components: NDArray[np.float64]
    prototypes: NDArray[np.float64]
    is_ring: BoolArray
    hits: NDArray[np.int64]
    explained_variance: NDArray[np.float64]
    k_elbow: int
    options: TeacherOptions
    feature_version: int = FEATURE_VERSION

    @classmethod
    def fit(
        cls,
        frame: NDArray[Any],
        options: TeacherOptions | None = None,
        prepare_options: PrepareOptions | None = None,
    ) -> "Centroids":
        """Learn centroids from one frame.

        Parameters
        ----------
        frame : ndarray
            ``(h, w)`` detector units.
        options : TeacherOptions, optional
        prepare_options : PrepareOptions, optional

        Raises
        ------
        FrameError
            If the frame has no beam.
        """
        options = options or TeacherOptions()
        prepared = prepare(frame, prepare_options)
        geometry = find_beam(prepared.relative[0], options.edge_level)
        return cls.fit_prepared(prepared, geometry, options)

    @classmethod
    def fit_prepared(
        cls, prepared: Prepared, geometry: Geometry, options: TeacherOptions | None = None
    ) -> "Centroids":
        """Learn centroids from a prepared frame with a known beam."""
        options = options or TeacherOptions()
        rng = np.random.default_rng(options.seed)
        features = extract(prepared, [geometry], options.features)[0].reshape(len(FEATURES), -1).T
        usable = features[~prepared.bad[0].ravel()].astype(np.float64)  # (pixels, 9)
        offset, scale = scaler(usable, options)
        sample = training_sample(usable, geometry, options, rng)
        scaled = (sample - offset) * scale
        pca = PCA(n_components=options.components, svd_solver="full").fit(scaled)
        components = sign_fixed(pca.components_)
        offset = in_units(pca.mean_, offset, scale)
        projected = ((sample - offset) * scale) @ components.T
        som = train_map(projected, options)
        nearest = np.argmin(distances(som, projected), axis=0)
        hits = np.bincount(nearest, minlength=len(som))
        is_ring = name_rings(som, hits, components, offset, scale, options)
        return cls(
            offset,
            scale,
            components,
            som,
            is_ring,
            hits,
            pca.explained_variance_ratio_,
            k_elbow(som[hits > 0], hits[hits > 0], options.seed),
            options,
        )

    def label(self, frame: NDArray[Any], prepare_options: PrepareOptions | None = None) -> ClassMap:
        """Label one frame of any size on its own: ``(h, w)`` class codes.

        Raises
        ------
        FrameError
            If the frame cannot be labelled.
        """
        prepared = prepare(frame, prepare_options)
        geometry = find_beam(prepared.relative[0], self.options.edge_level)
        ring = self.ring(prepared, [geometry])[0]
        return class_map(ring, geometry, prepared.bad[0])

    def ring(self, prepared: Prepared, geometries: list[Geometry]) -> BoolArray:
        """Return ring pixels of a micro-batch, ``(n, h, w)``, cleaned of specks and pinholes."""
        return self.rings_of(extract(prepared, geometries, self.options.features))

    def rings_of(self, features: FloatArray) -> BoolArray:
        """Return cleaned ring pixels ``(n, h, w)`` of features ``(n, 9, h, w)``."""
        n, _, h, w = features.shape
        # A frame at a time: the result must not depend on the batch.
        rings = (self._ring_of(f.reshape(len(FEATURES), -1)).reshape(h, w) for f in features)
        return np.stack([clean_ring(r) for r in rings]) if n else np.zeros((0, h, w), bool)

    def _ring_of(self, features: FloatArray) -> BoolArray:
        """Ring pixels ``(pixels,)`` of features ``(9, pixels)``.

        Between the nearest ring prototype and the nearest other one the border lies where the
        intensity, interpolated along the line that joins them, crosses `edge_level`: midway, it
        would depend on where the map happened to put its prototypes.
        """
        table = self._table
        if table.rings == 0 or table.rings == len(table.bias):
            return np.zeros(features.shape[1], bool)
        answer = np.empty(features.shape[1], bool)
        for begin in range(0, len(answer), PIXELS):
            part = slice(begin, begin + PIXELS)
            distance = features[:, part].T @ table.gain  # (pixels, m)
            np.subtract(table.bias, distance, out=distance)
            ring = distance[:, : table.rings].argmin(axis=1)
            other = distance[:, table.rings :].argmin(axis=1)
            pixel = np.arange(len(distance))
            lead = distance[pixel, other + table.rings] - distance[pixel, ring]
            answer[part] = lead >= table.border[ring, other]
        return answer

    def winners(self, features: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
        """Nearest prototype of each pixel and the distance to it.

        Parameters
        ----------
        features : ndarray of float32
            ``(9, h, w)``.

        Returns
        -------
        index : ndarray of int
            ``(h, w)``.
        distance : ndarray of float32
            ``(h, w)`` quantisation error in the weighted feature space.
        """
        flat = features.reshape(len(FEATURES), -1).T
        projected = ((flat - self.offset) * self.scale) @ self.components.T
        squared = distances(self.prototypes, projected)
        index = np.argmin(squared, axis=0)
        least = squared[index, np.arange(squared.shape[1])] + np.square(projected).sum(axis=1)
        shape = features.shape[1:]
        distance = np.sqrt(np.maximum(least, 0)).astype(np.float32)
        return index.reshape(shape), distance.reshape(shape)

    @cached_property
    def _table(self) -> "_Table":
        order = np.argsort(~self.is_ring, kind="stable")
        w = self.prototypes[order]
        rings = int(self.is_ring.sum())
        # |w|^2 - 2 z.w with z affine in the features is affine in the features: one product.
        gain = 2 * (w @ self.components) * self.scale
        bias = np.square(w).sum(axis=1) + gain @ self.offset
        apart = np.square(w[:rings, None] - w[None, rings:]).sum(axis=2)
        intensity = self.physical_prototypes()[order, 0]
        low, high = intensity[None, rings:], intensity[:rings, None]
        where = 0.5 * np.ones_like(apart)
        if self.options.features == "physical":
            where = (self.options.edge_level - low) / np.maximum(high - low, 1e-9)
        return _Table(
            np.ascontiguousarray(gain.T, np.float32),
            bias.astype(np.float32),
            ((2 * where - 1) * apart).astype(np.float32),
            rings,
        )

    @cached_property
    def hash(self) -> str:
        """SHA-256 over arrays, options and feature version, hexadecimal."""
        digest = hashlib.sha256()
        for array in (self.offset, self.scale, self.components, self.prototypes):
            digest.update(np.ascontiguousarray(array, "<f8").tobytes())
        digest.update(np.packbits(self.is_ring).tobytes())
        digest.update(options_json(self.options).encode())
        digest.update(str(self.feature_version).encode())
        return digest.hexdigest()

    def physical_prototypes(self) -> NDArray[np.float64]:
        """Return the prototypes in feature units, ``(m, 9)``: inverse PCA, inverse scaling."""
        return in_units(self.prototypes @ self.components, self.offset, self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Prototypes made ready for labelling, ring prototypes first.

    ``bias - features @ gain`` is the squared distance but for a term common to all prototypes;
    ``border[r, o]`` is by how much o must be farther than r for the pixel to be ring.
    """

    gain: FloatArray  # (9, m)
    bias: FloatArray  # (m,)
    border: FloatArray  # (rings, others)
    rings: int


def options_json(options: TeacherOptions) -> str:
    """Return options as canonical JSON, the form that is hashed and stored."""
    return json.dumps(asdict(options), sort_keys=True, separators=(",", ":"))
