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

from .assign import LIT, Labels, Table, assign
from .classes import class_map, clean_ring
from .counts import PrepareOptions
from .features import FEATURE_VERSION, FEATURES, extract
from .frame import BoolArray, ClassMap, FloatArray
from .geometry import Geometry
from .level import find_level
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
        geometry, levelled_frame = find_level(prepared, options.edge_level)
        return cls.fit_prepared(levelled_frame, geometry, options)

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
        geometry, prepared = find_level(prepared, self.options.edge_level)
        ring = self.ring(prepared, [geometry])[0]
        return class_map(ring, geometry, prepared.unknown[0])

    def ring(self, prepared: Prepared, geometries: list[Geometry]) -> BoolArray:
        """Return ring pixels of a micro-batch, ``(n, h, w)``, cleaned of specks and pinholes."""
        return self.rings_of(extract(prepared, geometries, self.options.features))

    def rings_of(self, features: FloatArray) -> BoolArray:
        """Return cleaned ring pixels ``(n, h, w)`` of features ``(n, 9, h, w)``."""
        return self.label_features(features).rings

    def label_features(self, features: FloatArray) -> Labels:
        """Label a micro-batch, and say how well its prototypes fit it.

        Parameters
        ----------
        features : ndarray of float32
            ``(n, 9, h, w)``.
        """
        n, _, h, w = features.shape
        # A frame at a time: the result must not depend on the batch.
        flat = [self._label(f.reshape(len(FEATURES), -1)) for f in features]
        rings = [clean_ring(ring.reshape(h, w)) for ring, _, _ in flat]
        return Labels(
            np.stack(rings) if n else np.zeros((0, h, w), bool),
            np.array([hits * self.lit for _, hits, _ in flat], np.int64).reshape(n, len(self.lit)),
            np.array([error for _, _, error in flat], np.float64),
        )

    def _label(self, features: FloatArray) -> tuple[BoolArray, NDArray[np.int64], float]:
        """Ring pixels ``(pixels,)`` of features ``(9, pixels)``, hits ``(m,)`` and rms error."""
        ring, hits, least = assign(features, self._table)
        squares = max(least + self._norm(features), 0.0)
        return ring, hits, float(np.sqrt(squares / features.shape[1]))

    def _norm(self, features: FloatArray) -> float:
        """Sum of the squared norms of the projected pixels: what all distances have in common.

        From the second moments of the nine features, which costs a tenth of projecting them.
        """
        mean = features.mean(axis=1, dtype=np.float64)
        second = (features @ features.T).astype(np.float64)
        to = self.components * self.scale  # (c, 9)
        pixels = features.shape[1]
        cross = np.outer(mean, self.offset)
        moved = second + pixels * (np.outer(self.offset, self.offset) - cross - cross.T)
        return float(np.einsum("ci,ij,cj->", to, moved, to))

    @cached_property
    def _table(self) -> Table:
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
        return Table(
            order,
            np.ascontiguousarray(gain, np.float32),
            bias.astype(np.float32),
            ((2 * where - 1) * apart).astype(np.float32),
            rings,
        )

    @cached_property
    def lit(self) -> BoolArray:
        """Prototypes ``(m,)`` above `LIT` of the plateau.

        How pixels share out among the dark ones is a matter of noise, hence of dose.
        """
        return self.physical_prototypes()[:, 0] >= LIT

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


def options_json(options: TeacherOptions) -> str:
    """Return options as canonical JSON, the form that is hashed and stored."""
    return json.dumps(asdict(options), sort_keys=True, separators=(",", ":"))
