"""The simulated experiment: the gold-ball scan of CXIDB 65, what may go wrong, and the truth."""

from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..science.frame import BoolArray, ClassMap
from .detection import Detector
from .optics import OVERSAMPLING, Beam, Pupil, blur, empty_beam, far_field
from .sample import ENERGY_EV, Balls, gold_on_membrane
from .truth import class_map, stop_arm

SHAPE = (104, 104)
OBJECT_PIXEL = 11.128e-9  # m; wavelength * distance / (104 px * pixel pitch) of the measured frames
PUPIL = Pupil()
BATCH = 16  # frames propagated together: 16 windows of complex64 stay near the caches
STRONG = Balls(diameter=65e-9, coverage=0.3, layers=3, cluster=12.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldBalls:
    """What to simulate; the defaults are the clean scan.

    Parameters
    ----------
    grid : tuple of int
        Rows and columns of the scan.
    n_frames : int, optional
        Only the first so many points of the grid.
    step : float
        Between two points [m].
    seed : int
        Of the sample, the detector and the noise.
    dose : float
        Photons per frame without a sample.
    flux_noise : float
        Standard deviation of a frame's dose, relative to it.
    strong : bool
        A thicker and denser sample that clearly modulates the ring.
    pupil : Pupil
        The beam.
    drift : tuple of float
        How far the beam moves over the scan, rows and columns [px].
    drift_path : tuple of tuple of float
        Where the beam is at each frame [px], in place of a straight `drift`.
    change_at : int
        First frame at which `dose_factor` and `ring_scale` hold.
    dose_factor, ring_scale : float
        Factors on the dose and on the radii of the ring.
    read_noise, dark_pattern : float
        Standard deviations of the read noise and of a fixed pattern [photons].
    hot_pixels : int
        Number of pixels that always read `hot_value`.
    hot_value : float
        In detector units.
    arm_width : float
        Width of a beam-stop arm that reaches to the beam [px]; 0 for none.
    arm_transmission : float
        Part of the beam that the arm lets through.
    arm_angle : float
        Where the arm comes from: 0 right, 90 top [degrees].
    stray : float
        Stray light, a wide halo around the frame's middle, relative to the dose.
    gain, pedestal : float
        Detector units per photon; offset of every pixel [detector units].
    dtype : {"uint16", "float32"}
        Of the frames; float32 is neither rounded nor clipped.

    Raises
    ------
    ValueError
        A value that makes no sense; the text names it.
    """

    grid: tuple[int, int] = (40, 40)
    n_frames: int | None = None
    step: float = 30e-9
    seed: int = 0
    dose: float = 3.75e5
    flux_noise: float = 0.0
    strong: bool = False
    pupil: Pupil = PUPIL
    drift: tuple[float, float] = (0.0, 0.0)
    drift_path: tuple[tuple[float, float], ...] = ()
    change_at: int = 0
    dose_factor: float = 1.0
    ring_scale: float = 1.0
    read_noise: float = 0.7
    dark_pattern: float = 0.15
    hot_pixels: int = 0
    hot_value: float = 60000.0
    arm_width: float = 0.0
    arm_transmission: float = 0.0
    arm_angle: float = 90.0
    stray: float = 0.0
    gain: float = 1.0
    pedestal: float = 0.0
    dtype: Literal["uint16", "float32"] = "uint16"

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        points = prod(self.grid)
        if min(self.grid) < 1:
            raise ValueError(f"grid: {self.grid} has no points, give at least (1, 1)")
        if self.n_frames is not None and not 1 <= self.n_frames <= points:
            raise ValueError(
                f"n_frames: {self.n_frames} of a grid of {points} points; "
                f"give 1..{points} or a larger grid"
            )
        if self.drift_path and len(self.drift_path) != self.length:
            raise ValueError(
                f"drift_path: {len(self.drift_path)} places for {self.length} frames; give one each"
            )
        if not 0 <= self.hot_pixels <= prod(SHAPE):
            raise ValueError(f"hot_pixels: {self.hot_pixels} of {prod(SHAPE)} pixels")
        for name in ("step", "dose", "dose_factor", "ring_scale", "gain"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: {getattr(self, name)} must be above 0")

    @property
    def length(self) -> int:
        """Number of frames."""
        return prod(self.grid) if self.n_frames is None else self.n_frames


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """A simulated scan of ``n`` frames and what is true about it.

    Parameters
    ----------
    frames : ndarray
        ``(n, H, W)`` uint16 or float32 [detector units].
    truth : ndarray of uint8
        ``(n, H, W)`` class codes of the beam at each frame, whatever the sample did to it.
    positions : ndarray
        ``(n, 2)`` of the probe on the sample, y and x [m].
    energy_eV : float
        Photon energy [eV].
    bad_pixels : ndarray of bool
        ``(H, W)`` the hot ones.
    shifts : ndarray
        ``(n, 2)`` true drift of the beam, rows and columns [px].
    """

    frames: NDArray[Any]
    truth: ClassMap
    positions: NDArray[np.float64]
    energy_eV: float
    bad_pixels: BoolArray
    shifts: NDArray[np.float64]


def simulate(options: GoldBalls | None = None) -> Scan:
    """Run the simulated scan; the same options give the same bytes.

    Parameters
    ----------
    options : GoldBalls, optional
        What to simulate; None for the clean scan of 1600 frames.

    Returns
    -------
    Scan
        Frames and truth.
    """
    options = options or GoldBalls()
    # One stream each: more noise, or a drift, must not change the sample.
    sample_rng, detector_rng, noise_rng = np.random.default_rng(options.seed).spawn(3)
    positions = raster(options.grid, options.step, options.length)
    beam = _beam(options)
    arm = stop_arm(SHAPE, options.pupil.center, options.arm_width, options.arm_angle)
    detector = _detector(options, detector_rng)
    doses = _doses(options, noise_rng)
    corners = (positions - positions[0]) / OBJECT_PIXEL
    balls = STRONG if options.strong else Balls()
    sample = gold_on_membrane(_extent(options), OBJECT_PIXEL, balls, sample_rng)
    frames = np.empty((options.length, *SHAPE), options.dtype)
    halo = options.stray * _halo()
    weakened = np.where(arm, options.arm_transmission, 1.0).astype(np.float32)
    for start in range(0, options.length, BATCH):
        part = slice(start, start + BATCH)
        light = far_field(sample, corners[part], options.pupil, beam[part], SHAPE, OBJECT_PIXEL)
        ring = blur(weakened * light, options.pupil.psf) / _area(options.pupil, beam[part])
        frames[part] = detector.expose(doses[part, None, None] * (ring + halo), noise_rng)
    truth = _truth(options.pupil, beam, arm)
    return Scan(frames, truth, positions, ENERGY_EV, detector.bad_pixels, beam.shifts)


def raster(grid: tuple[int, int], step: float, n: int | None = None) -> NDArray[np.float64]:
    """Return ``(n, 2)`` y and x [m] of the first `n` points of a row-wise raster around the origin.

    Parameters
    ----------
    grid : tuple of int
        Rows and columns.
    step : float
        Between two points [m].
    n : int, optional
        How many points; None for all.
    """
    places = np.indices(grid).reshape(2, -1).T[:n]
    return step * (places - (np.array(grid) - 1) / 2)


def _extent(options: GoldBalls) -> tuple[int, int]:
    """Return rows and columns [px] under the whole grid, however few frames there are."""
    rows, columns = (
        OVERSAMPLING * size + ceil(options.step * (points - 1) / OBJECT_PIXEL)
        for size, points in zip(SHAPE, options.grid, strict=True)
    )
    return rows, columns


def _beam(options: GoldBalls) -> Beam:
    n = options.length
    shifts = np.linspace((0.0, 0.0), options.drift, n)
    if options.drift_path:
        shifts = np.array(options.drift_path, float)
    return Beam(shifts, np.where(np.arange(n) < options.change_at, 1.0, options.ring_scale))


def _doses(options: GoldBalls, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return ``(n,)`` photons per frame."""
    frame = np.arange(options.length)
    flux = 1 + options.flux_noise * rng.standard_normal(options.length)
    factor = np.where(frame < options.change_at, 1.0, options.dose_factor)
    return options.dose * factor * np.maximum(flux, 0.0)


def _detector(options: GoldBalls, rng: np.random.Generator) -> Detector:
    bad = np.zeros(SHAPE, bool)
    bad.flat[rng.permutation(bad.size)[: options.hot_pixels]] = True
    return Detector(
        dark=options.dark_pattern * rng.standard_normal(SHAPE),
        bad_pixels=bad,
        hot_value=options.hot_value,
        read_noise=options.read_noise,
        gain=options.gain,
        pedestal=options.pedestal,
        dtype=options.dtype,
    )


def _area(pupil: Pupil, beam: Beam) -> NDArray[np.float32]:
    """Return ``(n, 1, 1)`` sum of the empty beam, so that every frame gets its dose."""
    return empty_beam(pupil, beam, SHAPE).sum((1, 2), keepdims=True)


def _halo() -> NDArray[np.float64]:
    """Return ``(H, W)`` stray light of sum 1."""
    y, x = (np.arange(size) - (size - 1) / 2 for size in SHAPE)
    halo = np.exp(-(y[:, None] ** 2 + x**2) / (2 * 20.0**2))
    return halo / halo.sum()


def _truth(pupil: Pupil, beam: Beam, arm: BoolArray) -> ClassMap:
    """Return ``(n, H, W)`` class maps; each different beam is worked out once."""
    states = np.column_stack([beam.shifts, beam.scales])
    _, first, which = np.unique(states, axis=0, return_index=True, return_inverse=True)
    maps = [class_map(empty_beam(pupil, beam[i : i + 1], SHAPE)[0], arm) for i in first]
    return np.stack(maps)[which]
