"""A control chart of one reading: what is usual, how much it scatters, how far out it is."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from types import MappingProxyType

import numpy as np

from .records import NAN

FLOORS: Mapping[str, float] = MappingProxyType(
    {
        "plateau": 0.12,
        "total": 0.08,
        "scatter": 0.25,
        "error": 0.1,
        "shift_y": 0.12,
        "shift_x": 0.12,
        "spikes": 0.4,
        "ciou": 0.02,
        "area": 0.03,
        "radius": 0.015,
        "js": 0.02,
    }
)
"""Least standard deviation that a monitor is taken to have, in the unit of its reading.

Times `limit` sqrt(weight / (2 - weight)), which is 2.94 and 2.52 for the ring, it is the least
lasting change that can alarm: a factor 1.4 of the plateau, 8 % of the ring area, 4 % of its radius,
a third of a pixel of shift.
"""


@dataclass(frozen=True, slots=True)
class DriftOptions:
    """When a change is one.

    Parameters
    ----------
    calibration : int
        Frames that the monitors are calibrated on.
    memory : int
        Frames over which what is usual goes on being averaged; those that watch the ring stop
        there, the others follow slow changes.
    weight : float
        Of the newest frame in the moving average.
    limit : float
        Standard deviations of the moving average that are too many.
    ring_limit : float
        The same for the monitors that watch the ring: they must be out for `persistence` frames, so
        that less is enough.
    clip : float
        Deviations of one frame count as at most this many standard deviations, so that one odd
        frame alone does not alarm.
    persistence : int
        Frames in a row for which the ring must look changed before learning begins anew.
    tolerance : float
        How many times wider the limits are before calibration.
    min_plateau, read_noise : float
        No beam below either [counts per pixel].
    min_ciou : float
        No beam if no ring is seen and the IoU with the reference is below.
    floors : mapping of str to float
        Replaces some of `FLOORS`.
    """

    calibration: int = 20
    memory: int = 100
    weight: float = 0.3
    limit: float = 7.0
    ring_limit: float = 6.0
    clip: float = 9.0
    persistence: int = 5
    tolerance: float = 3.0
    min_plateau: float = 0.5
    read_noise: float = 0.0
    min_ciou: float = 0.3
    floors: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.calibration < 8:
            raise ValueError(f"calibration: {self.calibration} frames are too few, give at least 8")
        if self.memory < self.calibration:
            raise ValueError(f"memory: {self.memory} must not be below calibration")
        if not 0 < self.weight <= 1:
            raise ValueError(f"weight: {self.weight} must be above 0 and up to 1")
        for name in ("limit", "ring_limit", "clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: {getattr(self, name)} must be above 0")
        if self.persistence < 1:
            raise ValueError(f"persistence: {self.persistence} must be 1 or more")
        if self.tolerance < 1:
            raise ValueError(f"tolerance: {self.tolerance} must be 1 or more")
        if unknown := set(self.floors) - set(FLOORS):
            raise ValueError(f"floors: no monitor {sorted(unknown)}; there are {list(FLOORS)}")
        if any(floor <= 0 for floor in self.floors.values()):
            raise ValueError("floors: they must be above 0")


class Chart:
    """EWMA chart of one reading.

    Centre and scale come from the first frames (median; the larger of 1.4826 times the median
    absolute deviation, the standard deviation, and the floor), and go on being averaged over
    `memory` frames, but for frames that lie half-way out. From few frames they are uncertain, and
    neighbouring frames are alike: the limits are wider by ``1 + 5 / n`` after n frames.

    Parameters
    ----------
    options : DriftOptions
    name : str
        Of the monitor.
    ring : bool
        Whether it watches the ring: centre and scale stay what they are after `memory` frames.
    """

    _options: DriftOptions
    _limit: float
    _floor: float
    _freezes: bool
    _first: list[float]
    _n: int
    _variance: float
    _mean: float  # moving average of the deviation, in standard deviations
    _out: int
    _last: deque[float]
    centre: float

    def __init__(self, options: DriftOptions, name: str, ring: bool) -> None:
        self._options = options
        self._limit = options.ring_limit if ring else options.limit
        self._floor = options.floors.get(name, FLOORS[name])
        self._freezes = ring
        self._first = []
        self._n = 0
        self._variance = 0.0
        self._mean = 0.0
        self._out = 0
        self._last = deque(maxlen=options.persistence)
        self.centre = NAN

    @property
    def calibrated(self) -> bool:
        """Whether it has seen enough frames."""
        return self._n >= self._options.calibration

    @property
    def score(self) -> float:
        """Moving average of the deviation, in its standard deviations."""
        weight = self._options.weight
        return self._mean / sqrt(weight / (2 - weight))

    @property
    def recent(self) -> float:
        """Mean reading of the frames for which it has been out, at most the last few."""
        last = list(self._last)[-max(1, min(abs(self._out), len(self._last))) :]
        return sum(last) / len(last) if last else NAN

    def out_for(self, sign: int) -> int:
        """Frames in a row for which it has been out; of one sign only if that is not 0."""
        return abs(self._out) if sign * self._out >= 0 else 0

    def rest(self) -> None:
        """Forget the moving average; what is usual stays."""
        self._mean, self._out = 0.0, 0
        self._last.clear()

    def add(self, reading: float) -> None:
        """Take the reading of the next frame."""
        self._last.append(reading)
        if self._n >= TOO_FEW:
            self._average(reading)
        if self.calibrated:
            self._follow(reading)
        else:
            self._collect(reading)

    def _average(self, reading: float) -> None:
        o = self._options
        scale = sqrt(self._variance) * (1 + 5 / self._n if self.calibrated else o.tolerance)
        deviation = min(max((reading - self.centre) / scale, -o.clip), o.clip)
        self._mean += o.weight * (deviation - self._mean)
        # The moving average remembers: a frame that is back to the usual ends what it is out for.
        if abs(self.score) <= self._limit or deviation * self.score < abs(self.score):
            self._out = 0
        elif self.score > 0:
            self._out = max(self._out, 0) + 1
        else:
            self._out = min(self._out, 0) - 1

    def _collect(self, reading: float) -> None:
        self._first.append(reading)
        self._n = len(self._first)
        values = np.array(self._first)
        self.centre = float(np.median(values))
        away = np.abs(values - self.centre)
        robust = max(1.4826 * float(np.median(away)), self._floor)
        # Clipped: one odd frame must not blind the chart.
        deviation = float(np.sqrt(np.square(np.minimum(away, 4 * robust)).mean()))
        self._variance = max(robust, deviation) ** 2
        if self.calibrated:
            self._mean, self._out = 0.0, 0
            self._first = []

    def _follow(self, reading: float) -> None:
        o = self._options
        if abs(self.score) > 0.5 * self._limit or (self._freezes and self._n >= o.memory):
            return
        self._n = min(self._n + 1, o.memory)
        away = reading - self.centre
        self.centre += away / self._n
        self._variance += (min(away * away, 16 * self._variance) - self._variance) / self._n
        self._variance = max(self._variance, self._floor**2)


TOO_FEW = 5
"""Readings before anything can be said."""
