"""Scans of gold balls in which something changes: what `benchmarks/drift.py` looks at."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychoseg_stream.science.frame import ClassCode, ClassMap
from ptychoseg_stream.sim import GoldBalls, simulate
from ptychoseg_stream.sim.optics import Beam, empty_beam

FRAMES, AT = 90, 45
PUPIL = GoldBalls().pupil

Stack = NDArray[Any]
Made = tuple[Stack, ClassMap]


@dataclass(frozen=True, slots=True)
class Change:
    """A scan in which something changes at frame `AT`.

    Parameters
    ----------
    name : str
    wanted : str
        Actions of which one is right, separated by "/"; "" if silence is.
    before, after : GoldBalls
        The two scans that are joined at the change.
    edit : callable, optional
        What is done to frames and truth, in place, from a seed.
    """

    name: str
    wanted: str
    before: GoldBalls
    after: GoldBalls
    edit: Callable[[Stack, ClassMap, int], None] | None = None

    def make(self, seed: int) -> Made:
        """Simulate it: frames and true classes, `FRAMES` of each."""
        first = simulate(replace(self.before, seed=seed + self.before.seed))
        second = simulate(replace(self.after, seed=seed + self.after.seed))
        frames = np.concatenate([first.frames[:AT], second.frames[AT:]])
        truth = np.concatenate([first.truth[:AT], second.truth[AT:]])
        if self.edit:
            self.edit(frames, truth, seed)
        return frames, truth


def changes() -> Iterator[Change]:
    """All changes."""
    clean = GoldBalls(n_frames=FRAMES)
    strong = replace(clean, strong=True)
    dark = replace(clean, dose_factor=1e-9)
    narrow, wide = (replace(clean, pupil=replace(PUPIL, r_in=x * PUPIL.r_out)) for x in (0.4, 0.55))
    moves = "re-register"
    yield Change("nothing", "", clean, clean)
    yield Change("drift to 6 px", moves, clean, replace(clean, drift_path=_path(4.8, -3.6)))
    yield Change("slow drift to 2 px", moves, clean, replace(clean, drift_path=_path(1.6, -1.2)))
    yield Change("jump 2 px", moves, clean, replace(clean, drift_path=_path(1.6, -1.2, jump=True)))
    for factor in (0.3, 0.1, 0.01):
        yield Change(f"dose x{factor}", "note", clean, replace(clean, dose_factor=factor))
    yield Change("strong sample", "note/restart", clean, strong)
    yield Change("sample change", "/note", clean, replace(clean, seed=100))
    yield Change("empty sample", "/note", clean, clean, _empty)
    for percent in (10, 20):
        larger = {"ring_scale": 1 + percent / 100}
        yield Change(f"ring +{percent} %", "restart", clean, replace(clean, **larger))
        yield Change(f"ring +{percent} %, strong", "restart", strong, replace(strong, **larger))
    yield Change("stop 0.4 -> 0.55", "restart", narrow, wide)
    yield Change("pupil damage", "restart", clean, clean, _damage)
    yield Change("stop arm", "restart", clean, replace(clean, arm_width=4.0))
    yield Change("60 hot pixels", "bad pixels", clean, replace(clean, hot_pixels=60))
    yield Change("stray light 5 %", "note", clean, replace(clean, stray=0.05))
    yield Change("beam lost", "no beam", clean, dark)
    yield Change("beam lost and back", "no beam", clean, dark, _back)


def _path(dy: float, dx: float, *, jump: bool = False) -> tuple[tuple[float, float], ...]:
    """Where the beam is at each frame: it moves from `AT` on, to the end or at once."""
    part = np.clip((np.arange(FRAMES) - AT + 1) / (FRAMES - AT), 0, 1)
    if jump:
        part = np.ceil(part)
    return tuple((float(dy * x), float(dx * x)) for x in part)


def _empty(frames: Stack, truth: ClassMap, seed: int) -> None:
    options, rng = GoldBalls(), np.random.default_rng(seed)
    beam = empty_beam(PUPIL, Beam(np.zeros((1, 2)), np.ones(1)), frames.shape[1:])
    photons = np.repeat(options.dose * beam / beam.sum(), FRAMES - AT, axis=0)
    noise = options.read_noise * rng.standard_normal(photons.shape)
    frames[AT:] = np.clip(np.rint(rng.poisson(photons) + noise), 0, None)


def _damage(frames: Stack, truth: ClassMap, seed: int) -> None:
    """Sixty degrees of the zone plate are lost."""
    y, x = np.indices(frames.shape[1:])
    angle = np.degrees(np.arctan2(y - PUPIL.center[0], x - PUPIL.center[1])) % 360
    lost = (angle > 200) & (angle < 260)
    frames[AT:, lost] = np.random.default_rng(seed).binomial(frames[AT:, lost], 0.05)
    after = truth[AT:]
    after[:, lost] = np.where(after[:, lost] == ClassCode.RING, 0, after[:, lost])


def _back(frames: Stack, truth: ClassMap, seed: int) -> None:
    frames[AT + 15 :] = simulate(GoldBalls(seed=seed, n_frames=FRAMES)).frames[AT + 15 :]
