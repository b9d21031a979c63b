"""The simulated experiment: the gold-ball scan of CXIDB 65, what may go wrong, and the truth."""

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..science.experiment import Experiment
from ..science.frame import BitMap, BoolArray, ClassMap
from .detection import Detector, cosmic_tracks
from .optics import OVERSAMPLING, Beam, Pupil, blur, empty_beam, far_field
from .options import SHAPE, GoldBalls
from .sample import ENERGY_EV, Balls, ComplexArray, gold_on_membrane
from .truth import class_map, stop_arm

OBJECT_PIXEL = 11.128e-9  # m; wavelength * distance / (104 px * pixel pitch) of the measured frames
DISTANCE = 0.168  # m, from the sample to the detector
PIXEL_SIZE = 180e-6  # m, of the detector; of the file only distance / pixel size is known
BATCH = 16  # frames propagated together: 16 windows of complex64 stay near the caches
GAP_ROW = 72  # below the beam, in the dark field
STRONG = Balls(diameter=65e-9, coverage=0.3, layers=3, cluster=12.0)


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
    bits : ndarray of uint16
        ``(n, H, W)`` of `ptychoseg_stream.science.frame.ValidBit`: which pixels are wrong, and why.
    background : ndarray of float64
        ``(H, W)`` expected photons per frame that the sample has no part in: stray light, glow and
        dark pattern, averaged over the frames.
    signal : ndarray of float32 or None
        ``(n, H, W)`` expected photons of beam and sample; None unless asked for.
    sample : ndarray of complex64 or None
        ``(h, w)`` transmission of the sample, in pixels of `OBJECT_PIXEL`.
    corner : tuple of float
        Position of the probe whose middle is pixel ``SHAPE`` of `sample`, y and x [m].
    """

    frames: NDArray[Any]
    truth: ClassMap
    positions: NDArray[np.float64]
    energy_eV: float
    bad_pixels: BoolArray
    shifts: NDArray[np.float64]
    bits: BitMap
    background: NDArray[np.float64]
    signal: NDArray[np.float32] | None = None
    sample: ComplexArray | None = None
    corner: tuple[float, float] = (0.0, 0.0)

    @property
    def experiment(self) -> Experiment:
        """Energy and geometry."""
        return Experiment(self.energy_eV, DISTANCE, (PIXEL_SIZE, PIXEL_SIZE))


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
    # One stream each: more noise, a drift or a defect must not change the sample. What comes later
    # stands later, so that what was there before stays the same.
    streams = np.random.default_rng(options.seed).spawn(6)
    sample_rng, detector_rng, noise_rng, defect_rng, cosmic_rng, place_rng = streams
    positions = raster(options.grid, options.step, options.length)
    positions += options.jitter * place_rng.uniform(-1, 1, positions.shape)
    corner = positions.min(axis=0)
    beam = _beam(options)
    arm = stop_arm(SHAPE, options.pupil.center, options.arm_width, options.arm_angle)
    detector = _detector(options, detector_rng, defect_rng)
    doses = _doses(options, noise_rng)
    corners = (positions - corner) / OBJECT_PIXEL
    balls = STRONG if options.strong else Balls()
    sample = gold_on_membrane(_extent(options), OBJECT_PIXEL, balls, sample_rng)
    frames = np.empty((options.length, *SHAPE), options.dtype)
    bits = np.zeros(frames.shape, np.uint16)
    signal = np.empty(frames.shape, np.float32) if options.keep_signal else None
    halo, glow = options.stray * _halo(), options.glow * _glow()
    weakened = np.where(arm, options.arm_transmission, 1.0).astype(np.float32)
    for start in range(0, options.length, BATCH):
        part = slice(start, start + BATCH)
        dose = doses[part, None, None]
        light = far_field(sample, corners[part], options.pupil, beam[part], SHAPE, OBJECT_PIXEL)
        ring = blur(weakened * light, options.pupil.psf) / _area(options.pupil, beam[part])
        photons = dose * (ring + halo) + glow
        tracks = _tracks(options, len(dose), cosmic_rng)
        frames[part] = detector.expose(photons, tracks, noise_rng)
        bits[part] = detector.truth(frames[part], photons, tracks, arm)
        if signal is not None:
            signal[part] = dose * ring
    return Scan(
        frames,
        _truth(options.pupil, beam, arm),
        positions,
        ENERGY_EV,
        detector.hot,
        beam.shifts,
        bits,
        doses.mean() * halo + glow + detector.dark,
        signal,
        sample,
        (float(corner[0]), float(corner[1])),
    )


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
    room = 2 * options.jitter
    rows, columns = (
        OVERSAMPLING * size + ceil((options.step * (points - 1) + room) / OBJECT_PIXEL)
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


def _detector(
    options: GoldBalls, rng: np.random.Generator, defect_rng: np.random.Generator
) -> Detector:
    hot = np.zeros(SHAPE, bool)
    hot.flat[rng.permutation(hot.size)[: options.hot_pixels]] = True
    dead = np.zeros(SHAPE, bool)
    dead.flat[defect_rng.permutation(dead.size)[: options.dead_pixels]] = True
    gap = np.zeros(SHAPE, bool)
    gap[GAP_ROW : GAP_ROW + options.gap_width] = True
    return Detector(
        dark=options.dark_pattern * rng.standard_normal(SHAPE),
        hot=hot,
        dead=dead & ~hot,
        gap=gap,
        hot_value=options.hot_value,
        read_noise=options.read_noise,
        gain=options.gain,
        pedestal=options.pedestal,
        dtype=options.dtype,
        saturation=options.saturation,
    )


def _tracks(options: GoldBalls, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    kind = (options.cosmics, options.cosmic_length, options.cosmic_energy)
    return cosmic_tracks(n, SHAPE, *kind, rng)


def _area(pupil: Pupil, beam: Beam) -> NDArray[np.float32]:
    """Return ``(n, 1, 1)`` sum of the empty beam, so that every frame gets its dose."""
    return empty_beam(pupil, beam, SHAPE).sum((1, 2), keepdims=True)


def _halo() -> NDArray[np.float64]:
    """Return ``(H, W)`` stray light of sum 1."""
    y, x = (np.arange(size) - (size - 1) / 2 for size in SHAPE)
    halo = np.exp(-(y[:, None] ** 2 + x**2) / (2 * 20.0**2))
    return halo / halo.sum()


def _glow() -> NDArray[np.float64]:
    """Return ``(H, W)`` light from the first corner, 1 there."""
    y, x = (np.arange(size) / size for size in SHAPE)
    return np.exp(-3 * np.hypot(y[:, None], x))


def _truth(pupil: Pupil, beam: Beam, arm: BoolArray) -> ClassMap:
    """Return ``(n, H, W)`` class maps; each different beam is worked out once."""
    states = np.column_stack([beam.shifts, beam.scales])
    _, first, which = np.unique(states, axis=0, return_index=True, return_inverse=True)
    maps = [class_map(empty_beam(pupil, beam[i : i + 1], SHAPE)[0], arm) for i in first]
    return np.stack(maps)[which]
