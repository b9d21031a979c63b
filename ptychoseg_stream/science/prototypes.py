"""How prototypes are learned from the features of one frame, and named."""

from dataclasses import dataclass, field

import numpy as np
from minisom import MiniSom
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from .features import FEATURES, WEIGHTS, FeatureSet
from .frame import BoolArray
from .geometry import Geometry


@dataclass(frozen=True, slots=True)
class TeacherOptions:
    """How centroids are learned from a frame.

    Parameters
    ----------
    features : {"physical", "seed"}
        "seed" is the literal recipe (raw features, z-score, k-means on the prototypes, ring =
        brightest cluster), kept for comparison only.
    weights : mapping
        Weight of each feature; unnamed ones keep their default ("physical" only).
    components : int
        PCA components kept of the nine.
    map_size : int
        Prototypes per side of the map.
    sigma, learning_rate, iterations
        Of MiniSom (Gaussian neighbourhood).
    sample : int
        Pixels of the frame that train, stratified by intensity and radius.
    edge_level : float
        Fraction of the plateau that bounds the ring.
    seed : int
        Of sampling and of the map.
    """

    features: FeatureSet = "physical"
    weights: dict[str, float] = field(default_factory=dict)
    components: int = 6
    map_size: int = 10
    sigma: float = 3.0
    learning_rate: float = 0.5
    iterations: int = 3000
    sample: int = 8000
    edge_level: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not 1 <= self.components <= len(FEATURES):
            raise ValueError(f"components must lie in 1 to {len(FEATURES)}")
        if self.map_size < 2 or self.iterations < 1 or self.sample < self.map_size**2:
            raise ValueError("map_size must be 2 or more, sample at least its square")
        if self.sigma <= 0 or self.learning_rate <= 0:
            raise ValueError("sigma and learning_rate must be above 0")
        if not 0 < self.edge_level < 1:
            raise ValueError("edge_level must lie between 0 and 1")
        if self.features == "physical" and self.weight_vector()[0] <= 0:
            raise ValueError("the weight of intensity must be above 0: it names the prototypes")

    def weight_vector(self) -> NDArray[np.float64]:
        """Return the nine weights in the order of `FEATURES`.

        Raises
        ------
        ValueError
            If a weight names no feature.
        """
        if unknown := sorted(set(self.weights) - set(FEATURES)):
            raise ValueError(f"weights: no feature {unknown[0]!r}; there are {', '.join(FEATURES)}")
        return np.array([self.weights.get(n, WEIGHTS[n]) for n in FEATURES])


def k_elbow(
    prototypes: NDArray[np.float64], hits: NDArray[np.int64], seed: int, k_max: int = 8
) -> int:
    """Kneedle on the hit-weighted k-means inertia of the used prototypes.

    Satopaa et al., "Finding a 'Kneedle' in a haystack" (2011), in its offline form: the largest
    distance of the normalised curve from its chord. The answer depends on `k_max`, and featureless
    data also give 3 or 4: a diagnostic, never a decision.

    Returns
    -------
    int
        1 to `k_max`; 1 when there are fewer than three prototypes.
    """
    k_max = min(k_max, len(prototypes))
    if k_max < 3:
        return 1
    inertia = np.array(
        [
            KMeans(k, n_init=5, random_state=seed).fit(prototypes, sample_weight=hits).inertia_
            for k in range(1, k_max + 1)
        ]
    )
    span = inertia[0] - inertia[-1]
    if span <= 0:
        return 1
    x = np.linspace(0, 1, k_max)
    y = (inertia[0] - inertia) / span
    return int(np.argmax(y - x)) + 1


def scaler(
    features: NDArray[np.float64], options: TeacherOptions
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return offset and scale of the features, ``(9,)`` each: fixed weights, or the z-score."""
    if options.features == "seed":
        return features.mean(axis=0), 1 / np.maximum(features.std(axis=0), 1e-9)
    return np.zeros(len(FEATURES)), options.weight_vector()


def in_units(
    scaled: NDArray[np.float64], offset: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Undo the scaling; a feature of weight 0 is not known and gets its offset."""
    used = scale != 0
    return np.where(used, scaled / np.where(used, scale, 1), 0) + offset


def training_sample(
    features: NDArray[np.float64],
    geometry: Geometry,
    options: TeacherOptions,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw pixels so that the ring, 2 % of a frame, is not drowned: weight 1/sqrt(stratum)."""
    if options.features == "seed":
        chosen = rng.permutation(len(features))[: options.sample]
        return features[chosen]
    intensity = np.digitize(features[:, 0], [0.05, 0.15, 0.3, 0.5, 0.7, 0.9])
    radius = np.digitize(features[:, 6], [0.5, 1.0, 1.5])
    _, stratum, count = np.unique(intensity * 4 + radius, return_inverse=True, return_counts=True)
    weight = 1 / np.sqrt(count[stratum])
    size = min(options.sample, len(features))
    chosen = rng.choice(len(features), size, replace=False, p=weight / weight.sum())
    return features[chosen]


def train_map(data: NDArray[np.float64], options: TeacherOptions) -> NDArray[np.float64]:
    """Train the map; return its prototypes ``(m, c)``."""
    side = options.map_size
    som = MiniSom(
        side,
        side,
        data.shape[1],
        sigma=min(options.sigma, 0.5 * side),
        learning_rate=options.learning_rate,
        neighborhood_function="gaussian",
        random_seed=options.seed,
    )
    som.pca_weights_init(data)
    som.train_random(data, options.iterations)
    return np.asarray(som.get_weights(), np.float64).reshape(side * side, -1)


def distances(prototypes: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """``|w|^2 - 2 w.z``, ``(m, pixels)``: the squared distance but for ``|z|^2``."""
    return np.square(prototypes).sum(axis=1)[:, None] - 2 * prototypes @ points.T


def sign_fixed(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make the largest loading of each axis positive: PCA leaves the sign open."""
    largest = np.argmax(np.abs(components), axis=1)
    return components * np.sign(components[np.arange(len(components)), largest])[:, None]


def name_rings(
    prototypes: NDArray[np.float64],
    hits: NDArray[np.int64],
    components: NDArray[np.float64],
    offset: NDArray[np.float64],
    scale: NDArray[np.float64],
    options: TeacherOptions,
) -> BoolArray:
    """Say which prototypes are ring, ``(m,)``: by what they mean in physical units."""
    intensity = in_units(prototypes @ components, offset, scale)[:, 0]
    if options.features == "physical":
        return intensity >= options.edge_level
    k = max(2, k_elbow(prototypes[hits > 0], hits[hits > 0], options.seed))
    cluster = KMeans(k, n_init=10, random_state=options.seed).fit_predict(prototypes)
    brightness = [intensity[cluster == c].mean() for c in range(k)]
    return cluster == int(np.argmax(brightness))
