"""The baselines as rules: each takes a prepared frame and returns its ring pixels, ``(h, w)``.

All see the same frame (despiked counts, plateau, beam) and, where nothing else is said, are cleaned
as the teacher's masks are. A rule that has no answer raises ValueError.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_multiotsu, threshold_otsu
from skimage.segmentation import random_walker
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from ..science.classes import clean_ring
from ..science.counts import PrepareOptions
from ..science.features import FEATURES, WEIGHTS, extract
from ..science.frame import BoolArray, FloatArray
from ..science.geometry import Geometry, find_beam, keep_large
from ..science.prepare import Prepared, prepare
from ..science.prototypes import TeacherOptions
from ..science.register import ShiftFinder, translate
from ..science.som import Centroids

FIT_PIXELS = 10_000
"""Most pixels of the frame that a clustering is fitted on."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One frame, prepared as for the teacher, and its beam.

    Parameters
    ----------
    prepared : Prepared
        A micro-batch of one.
    geometry : Geometry
        Half-maximum beam of this frame.
    """

    prepared: Prepared
    geometry: Geometry

    @property
    def counts(self) -> FloatArray:
        """Despiked counts, ``(h, w)``."""
        return self.prepared.counts[0]

    @property
    def relative(self) -> FloatArray:
        """Counts over plateau, smoothed where counts are few, ``(h, w)``."""
        return self.prepared.relative[0]


Rule: TypeAlias = Callable[[View], BoolArray]
Clustering: TypeAlias = KMeans | GaussianMixture


def view_of(prepared: Prepared) -> View:
    """Find the beam of a prepared frame."""
    return View(prepared, find_beam(prepared.relative[0]))


def above_plateau(view: View, level: float = 0.5) -> BoolArray:
    """Adaptive half-maximum: above `level` of the bright-field plateau of this frame; cleaned."""
    return clean_ring(view.relative > level)


def above_brightest(view: View) -> BoolArray:
    """Above half the brightest pixel, cleaned: what a quick script does."""
    return clean_ring(view.counts > 0.5 * view.counts.max())


def otsu(view: View) -> BoolArray:
    """Above Otsu's threshold of the counts (`skimage.filters.threshold_otsu`), cleaned."""
    return clean_ring(view.counts > threshold_otsu(view.counts))


def multi_otsu(view: View) -> BoolArray:
    """Brightest of three classes of the counts (`skimage.filters.threshold_multiotsu`), cleaned.

    Raises
    ------
    ValueError
        If the counts have fewer than three values.
    """
    return clean_ring(view.counts > threshold_multiotsu(view.counts, classes=3)[-1])


def largest_blob(view: View, fraction: float = 0.02) -> BoolArray:
    """Largest connected part above 2 % of the brightest pixel: a beam finder, taken for a ring.

    Not cleaned: the largest part is all there is, and holes are what it leaves.
    """
    return keep_large(view.counts > fraction * view.counts.max(), 1.0)


def walked(view: View, low: float = 0.3, high: float = 0.7) -> BoolArray:
    """Random walker (Grady 2006, `skimage.segmentation.random_walker`), cleaned.

    Seeds: ring where S/p is above `high`, rest where it is below `low`; in between the walker
    decides. It walks on the box that reaches half a beam radius beyond the beam: the cost grows
    with the beam, not with the frame.

    Raises
    ------
    ValueError
        If there is nothing bright or nothing dark inside the box.
    """
    box = _box(view)
    image = np.clip(view.relative[box], 0, 1.5)
    seeds = np.where(image > high, 1, np.where(image < low, 2, 0))
    if not {1, 2} <= set(np.unique(seeds).tolist()):
        raise ValueError("random walker: the box has no seeds of ring, or none of the rest")
    ring = np.zeros(view.relative.shape, bool)
    # Directly solved: the iterative solvers miss their tolerance on some frames, and warn.
    ring[box] = (random_walker(image, seeds, mode="bf") if (seeds == 0).any() else seeds) == 1
    return clean_ring(ring)


def fit_clusters(view: View, seed: int = 0) -> Clustering:
    """Fit k-means with k = 3 on the nine features of a frame's usable pixels, at most 10 000.

    The features carry the teacher's weights: z-scored, k-means and the mixture both do worse.
    """
    return KMeans(3, n_init=10, random_state=seed).fit(_sample(view, seed))


def fit_mixture(view: View, seed: int = 0) -> Clustering:
    """Fit a mixture of three Gaussians (full covariances) on what `fit_clusters` takes."""
    mixture = GaussianMixture(3, max_iter=300, reg_covar=1e-4, random_state=seed)
    return mixture.fit(_sample(view, seed))


def clustered(clustering: Clustering) -> Rule:
    """Ring is the cluster with the largest mean intensity over what it was fitted to; cleaned."""
    centres = clustering.cluster_centers_ if isinstance(clustering, KMeans) else clustering.means_
    brightest = int(np.argmax(centres[:, 0]))

    def rule(view: View) -> BoolArray:
        ring = clustering.predict(_features(view)) == brightest
        return clean_ring(ring.reshape(view.relative.shape))

    return rule


def seed_recipe(view: View) -> Rule:
    """Fit the literal recipe on a frame: raw counts, z-scored; map; brightest cluster is ring."""
    options = TeacherOptions(features="seed")
    centroids = Centroids.fit_prepared(view.prepared, view.geometry, options)
    return lambda v: centroids.ring(v.prepared, [v.geometry])[0]


def tracked_mean(views: Sequence[View], options: PrepareOptions) -> Rule:
    """Half-maximum of the mean of some frames, moved with the beam: the method without learning.

    The frames are registered to the first, scaled to their plateaus and averaged. The mean is moved
    to each frame, to 1/20 px, and cut there.

    Parameters
    ----------
    views : sequence of View
        At least one, all of one size.
    options : PrepareOptions

    Raises
    ------
    FrameError
        If they do not show the same beam: their mean has none.
    """
    each = [view.prepared for view in views]
    to_first = ShiftFinder(each[0].relative[0])
    total = np.zeros(views[0].counts.shape, np.float32)
    for p in each:
        dy, dx = (float(v) for v in to_first.find(p)[0])
        total += translate(p.counts[0] / p.plateau[0], (-dy, -dx))
    # It holds the counts of all frames together, and is smoothed less than they are.
    counts = total * np.float32(np.mean([p.plateau[0] for p in each]))
    mean = prepare(counts, replace(options, pedestal=0.0, gain=1.0, saturation=None)).relative[0]
    finder = ShiftFinder(mean)

    def rule(view: View) -> BoolArray:
        dy, dx = (float(v) for v in finder.find(view.prepared)[0])
        return clean_ring(translate(mean, (dy, dx)) > 0.5)

    return rule


def _features(view: View) -> NDArray[np.float64]:
    """Nine features of every pixel, dose-free and weighted as the teacher's, ``(h * w, 9)``."""
    features = extract(view.prepared, [view.geometry])[0]
    flat = features.reshape(len(FEATURES), -1).T.astype(np.float64)
    return flat * [WEIGHTS[name] for name in FEATURES]


def _sample(view: View, seed: int) -> NDArray[np.float64]:
    usable = _features(view)[~view.prepared.bad[0].ravel()]
    return np.random.default_rng(seed).permutation(usable)[:FIT_PIXELS]


def _box(view: View) -> tuple[slice, slice]:
    reach = 1.5 * view.geometry.radius + 4
    h, w = view.relative.shape
    y, x = view.geometry.y, view.geometry.x
    return (
        slice(max(0, int(y - reach)), min(h, int(y + reach) + 2)),
        slice(max(0, int(x - reach)), min(w, int(x + reach) + 2)),
    )
