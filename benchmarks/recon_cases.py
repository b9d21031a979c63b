"""Scans with defects and what is true about them: what `benchmarks/reconstruction.py` looks at."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import pi
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychoseg_stream.recon.engine import Engine, ReconOptions
from ptychoseg_stream.recon.metrics import Complex
from ptychoseg_stream.science.experiment import Experiment
from ptychoseg_stream.science.frame import ValidBit
from ptychoseg_stream.sim import GoldBalls, Scan, simulate
from ptychoseg_stream.sim.detection import cosmic_tracks
from ptychoseg_stream.sim.gold_balls import OBJECT_PIXEL
from ptychoseg_stream.sim.optics import Pupil
from ptychoseg_stream.sim.options import SHAPE
from ptychoseg_stream.sim.truth import stop_arm

DEFOCUS_ERROR = 0.8
"""The first probe is given a defocus that is wrong by a fifth."""
SIMULATED = GoldBalls(
    grid=(14, 14),
    step=36e-9,
    jitter=8e-9,
    dose=1e6,
    strong=True,
    dtype="float32",
    pupil=Pupil(psf=0.0),  # the engine knows no point spread
    hot_pixels=25,
    dead_pixels=15,
    cosmics=1.5,
    arm_width=4.0,
    arm_angle=60.0,
    stray=0.01,
    glow=2.0,
)
STAR = "siemens_star/siemens_star_first258.h5"
STAR_FRAMES = 140
STAR_BEND = 0.0218
"""Phase of the star's probe on the detector, fitted to that in the file [rad/px^2]."""
STAR_PIXEL = 1e-8
"""Object pixel of the star [m]: any, for all is counted in object pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A scan with defects.

    Parameters
    ----------
    name : str
    frames : ndarray
        ``(n, H, W)`` counts with defects.
    bits : ndarray of uint16
        ``(n, H, W)`` what is wrong with them, and why.
    positions : ndarray
        ``(n, 2)`` y and x [m].
    background : ndarray or None
        ``(H, W)`` true background [counts]; None if there is no more than what nature gave.
    experiment : Experiment
    options : ReconOptions
    epochs : int
    true_part : callable
        Returns the part of a reconstruction that is scored, and the same part of the true object.
    """

    name: str
    frames: NDArray[np.float32]
    bits: NDArray[np.uint16]
    positions: NDArray[np.float64]
    background: NDArray[np.float64] | None
    experiment: Experiment
    options: ReconOptions
    epochs: int
    true_part: Callable[[Engine], tuple[Complex, Complex]] = field(repr=False)


def simulated(seed: int = 0, options: GoldBalls = SIMULATED, epochs: int = 24) -> Case:
    """Gold balls, everything known."""
    scan = simulate(replace(options, seed=seed))
    return Case(
        "simulation",
        scan.frames,
        scan.bits,
        scan.positions,
        scan.background,
        Experiment(scan.energy_eV),
        ReconOptions(object_pixel=OBJECT_PIXEL, defocus=DEFOCUS_ERROR * options.pupil.defocus),
        epochs,
        lambda engine: _part_of_sample(engine, scan),
    )


def scanned(engine: Engine, positions: NDArray[np.float64]) -> tuple[slice, slice]:
    """Pixels of the object between the outermost places of the probe."""
    half = np.array(engine.probe.shape[-2:]) // 2
    places = (positions - engine.corner) / engine.pixel + half
    low, high = np.floor(places.min(axis=0)), np.ceil(places.max(axis=0))
    rows, columns = (slice(int(a) - 2, int(b) + 3) for a, b in zip(low, high, strict=True))
    return rows, columns


def _part_of_sample(engine: Engine, scan: Scan) -> tuple[Complex, Complex]:
    assert scan.sample is not None
    part = scanned(engine, scan.positions)
    away = (np.array(engine.corner) - scan.corner) / OBJECT_PIXEL
    offset = np.rint(away).astype(int) + SHAPE - np.array(engine.probe.shape[-2:]) // 2
    where = tuple(slice(s.start + o, s.stop + o) for s, o in zip(part, offset, strict=True))
    return engine.object[part], scan.sample[where]


def star(data: Path, seed: int = 0, epochs: int = 30) -> tuple[Case, Case]:
    """Return the real frames with injected defects, and the same frames without.

    The reference is what the frames without defects give: reconstruct and score those first.
    """
    with h5py.File(data / STAR) as file:
        frames, places = np.array(file["frames"]), np.array(file["scan_px"], float)
    away = np.abs(places - np.median(places, axis=0)).max(axis=1)
    kept = np.sort(np.argsort(away)[:STAR_FRAMES])
    frames, positions = frames[kept].astype(np.float32), places[kept] * STAR_PIXEL
    known = Experiment(8000.0)
    side = frames.shape[-1] * STAR_PIXEL
    defocus = STAR_BEND * side**2 / (pi * known.wavelength)
    reference: list[Complex] = []

    def part(engine: Engine) -> tuple[Complex, Complex]:
        return engine.object[scanned(engine, positions)], reference[0]

    def remembered(engine: Engine) -> tuple[Complex, Complex]:
        reference[:] = [engine.object[scanned(engine, positions)]]
        return reference[0], reference[0]

    spoiled, bits = inject(frames, np.random.default_rng(seed))
    options = ReconOptions(object_pixel=STAR_PIXEL, defocus=defocus, rate=0.03)
    case = Case("Siemens star", spoiled, bits, positions, None, known, options, epochs, part)
    clean = replace(case, frames=frames, bits=np.zeros_like(bits), true_part=remembered)
    return case, clean


def inject(
    frames: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Add 25 hot and 15 dead pixels, 1.5 cosmic-ray tracks a frame and a wire; and say where."""
    shape = (frames.shape[1], frames.shape[2])
    spoiled = frames.copy()
    bits = np.zeros(frames.shape, np.uint16)
    tracks = cosmic_tracks(len(frames), shape, 1.5, 6.0, 60.0, rng)
    wire = stop_arm(shape, (64.0, 66.8), 4.0, 60.0)
    spoiled[:, wire] = 0
    spoiled += np.floor(tracks)
    bits[tracks > 3 * np.sqrt(frames + 0.1)] |= np.uint16(ValidBit.COSMIC)
    bits[:, wire] |= np.uint16(ValidBit.STOP)
    order = rng.permutation(shape[0] * shape[1])
    for part, value, bit in (
        (order[:25], 5000, ValidBit.HOT),
        (order[25:40], 0, ValidBit.DEAD),
    ):
        rows, columns = np.unravel_index(part, shape)
        spoiled[:, rows, columns] = value
        bits[:, rows, columns] |= np.uint16(bit)
    return spoiled, bits
