"""Notices that the experiment changed, and says what the node does about it.

Each reading of a frame has a control chart: an exponentially weighted moving average of its
deviation from what it was calibrated to (EWMA; Roberts, Technometrics 1, 239 (1959)). Nothing here
depends on the student or on the time that training takes: the same frames give the same alarms.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, isnan

from .chart import Chart, DriftOptions
from .readings import Readings
from .records import NAN, Action, Alarm

__all__ = ["MONITORS", "DriftOptions", "Monitors"]


@dataclass(frozen=True, slots=True)
class _Monitor:
    """What a reading is called, which way it may not go, and what its value looks like."""

    group: str
    title: str
    form: str  # of a value in its own unit
    sign: int = 0  # +1: only a rise counts; -1: only a fall
    log: bool = True  # the reading is the logarithm of the value
    lift: float = 0.0  # what was added before the logarithm


_MONITORS: dict[str, _Monitor] = {
    "plateau": _Monitor("dose", "bright-field plateau", "{:.3g} counts/px"),
    "total": _Monitor("dose", "counts per frame", "{:.3g}"),
    "scatter": _Monitor("dose", "part of the counts in the dark field", "{:.3f}", sign=1),
    "error": _Monitor("dose", "quantisation error", "{:.3g}"),
    "shift_y": _Monitor("shift", "beam position y", "{:+.2f} px", log=False),
    "shift_x": _Monitor("shift", "beam position x", "{:+.2f} px", log=False),
    "spikes": _Monitor("spikes", "spikes per frame", "{:.1f}", sign=1, lift=1.0),
    "ciou": _Monitor("ring", "IoU of the ring with the reference", "{:.3f}", sign=-1, log=False),
    "area": _Monitor("ring", "ring area", "{:.0f} px"),
    "radius": _Monitor("ring", "outer radius of the ring", "{:.2f} px"),
    "js": _Monitor("ring", "divergence of the prototype hits", "{:.3f}", sign=1, log=False),
}

_ACTIONS: dict[str, tuple[Action, str]] = {
    "dose": ("note", "masks do not depend on it, nothing is done"),
    "shift": ("re-register", "masks follow the beam, nothing else is done"),
    "spikes": ("bad pixels", "pixels that spike in five of eight frames are masked as hot"),
    "ring": ("restart", "the beam is another one, learning begins anew on the next frames"),
}

MONITORS = (*_MONITORS, "beam")
"""Names of the monitors, as in `Alarm.monitor`; all but "beam" are fields of `Readings`."""


def _value(name: str, reading: float) -> float:
    """Return a reading in its own unit."""
    monitor = _MONITORS[name]
    return exp(reading) - monitor.lift if monitor.log else reading


class Monitors:
    """Watches the readings of one run.

    Calibrated on the first frames that it is given after the reference is final; gross changes
    are noticed before, by comparing with the few frames seen so far, three times as tolerant.
    A group of monitors that raised a "note", "re-register" or "bad pixels" is calibrated anew on
    the next frames, so that the new level is the usual one from then on; "restart" renews all.

    Parameters
    ----------
    options : DriftOptions, optional
    """

    _options: DriftOptions
    _charts: dict[str, Chart]
    _settled: bool
    _odd: bool
    _lost_since: int | None

    def __init__(self, options: DriftOptions | None = None) -> None:
        self._options = options or DriftOptions()
        self._charts = self._new(_MONITORS)
        self._settled = False
        self._odd = False
        self._lost_since = None

    @property
    def calibrated(self) -> bool:
        """Whether every monitor knows what is usual."""
        return self._settled and all(chart.calibrated for chart in self._charts.values())

    @property
    def beam(self) -> bool:
        """Whether the last frame had a beam; without one no mask must be published."""
        return self._lost_since is None

    @property
    def doubtful(self) -> bool:
        """Whether the last frame's ring is another one, be it for one frame only.

        Nothing should be learned from such a frame, nor its mask be averaged with those before.
        """
        return self._odd or bool(self._worst("ring", 1))

    def update(self, index: int, readings: Readings, settled: bool = True) -> tuple[Alarm, ...]:
        """Take the readings of the next frame that could be prepared; return alarms that begin.

        Parameters
        ----------
        index : int
            Of the frame.
        readings : Readings
        settled : bool
            Whether the reference that they were taken against is final. While a stage ladder
            renews it, only gross changes can be told.
        """
        if reason := self._no_beam(readings):
            return self._lose(index, _value("plateau", readings.plateau), reason)
        alarms = self._back(index, readings)
        if settled and not self._settled:
            self._charts = self._new(_MONITORS)
        self._settled = settled
        self._odd = readings.ciou < self._options.min_ciou
        for name, chart in self._charts.items():
            chart.add(getattr(readings, name))
        if self._worst("ring", self._options.persistence):
            ring = self._raise(index, "ring", self._options.persistence)
            self._charts = self._new(_MONITORS)
            self._settled = False
            return (*alarms, *ring)
        for group in ("dose", "shift", "spikes"):
            alarms += self._raise(index, group, 1)
        return alarms

    def lost(self, index: int, reason: str) -> tuple[Alarm, ...]:
        """Take a frame that preparation refused because it has no beam.

        Parameters
        ----------
        index : int
            Of the frame.
        reason : str
            Why, in one line.
        """
        return self._lose(index, NAN, reason)

    def _new(self, names: Iterable[str]) -> dict[str, Chart]:
        return {name: Chart(self._options, name, _MONITORS[name].group == "ring") for name in names}

    def _no_beam(self, readings: Readings) -> str:
        least = max(self._options.min_plateau, self._options.read_noise)
        plateau = _value("plateau", readings.plateau)
        if plateau < least:
            return f"plateau {plateau:.3g} counts per pixel is below {least:g}"
        if readings.verdict in ("none", "no beam") and readings.ciou < self._options.min_ciou:
            return f"no ring is seen, and what is seen is not the reference's ({readings.ciou:.2f})"
        return ""

    def _lose(self, index: int, plateau: float, reason: str) -> tuple[Alarm, ...]:
        if self._lost_since is not None:
            return ()
        self._lost_since = index
        text = f"beam lost at frame {index}: {reason}; no mask is published, nothing is learned"
        return (Alarm(index, "beam", plateau, self._usual_plateau(), NAN, "no beam", text),)

    def _back(self, index: int, readings: Readings) -> tuple[Alarm, ...]:
        if self._lost_since is None:
            return ()
        since, self._lost_since = self._lost_since, None
        for chart in self._charts.values():
            chart.rest()
        plateau, usual = _value("plateau", readings.plateau), self._usual_plateau()
        before = "" if isnan(usual) else f", {usual:.3g} before"
        text = (
            f"beam back at frame {index} after {index - since} frames: plateau {plateau:.3g} "
            f"counts/px{before}; masks are published again"
        )
        return (Alarm(index, "beam", plateau, usual, NAN, "note", text),)

    def _usual_plateau(self) -> float:
        return _value("plateau", self._charts["plateau"].centre)

    def _worst(self, group: str, persistence: int) -> str:
        """Name of the group's monitor that is farthest out, of those out for so many frames."""
        out = {
            name: abs(chart.score)
            for name, chart in self._charts.items()
            if _MONITORS[name].group == group and chart.out_for(_MONITORS[name].sign) >= persistence
        }
        return max(out, key=lambda name: out[name], default="")

    def _raise(self, index: int, group: str, persistence: int) -> tuple[Alarm, ...]:
        name = self._worst(group, persistence)
        if not name:
            return ()
        chart = self._charts[name]
        value, usual = _value(name, chart.recent), _value(name, chart.centre)
        action, what = _ACTIONS[group]
        verb = "rose" if chart.score > 0 else "fell"
        look = _MONITORS[name].form.format
        text = f"{_MONITORS[name].title} {verb} from {look(usual)} to {look(value)}: {what}"
        alarm = Alarm(index, name, value, usual, chart.score, action, text)
        self._charts |= self._new([n for n, m in _MONITORS.items() if m.group == group])
        return (alarm,)
