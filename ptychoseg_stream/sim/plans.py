"""Plans and motors of the simulated experiment."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator
from numpy.typing import ArrayLike, NDArray
from ophyd.sim import SynAxis
from ophyd_async.core import TriggerInfo

UNITS_PER_METRE = {"m": 1.0, "mm": 1e3, "um": 1e6, "nm": 1e9}


def sample_stage() -> tuple[SynAxis, SynAxis]:
    """Return the motors ``sample_x`` and ``sample_y`` of a simulated sample stage, in um."""
    x = SynAxis(name="sample_x", egu="um", precision=4)
    y = SynAxis(name="sample_y", egu="um", precision=4)
    return x, y


def ptycho_scan(
    detector: Any,
    x: Any,
    y: Any,
    positions: ArrayLike,
    *,
    energy: float | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take one frame at each position, in one run, with a checkpoint before each point.

    Parameters
    ----------
    detector : readable
        Anything that can be triggered and read.
    x, y : movable
        Motors whose ``egu`` is m, mm, um or nm; both are read into every Event.
    positions : array_like
        ``(N, 2)`` y and x of each point [m], in the order they are visited.
    energy : float, optional
        Photon energy [eV], for the start document.
    md : mapping, optional
        More for the start document; what it holds wins.

    Returns
    -------
    generator
        Messages for a RunEngine; its value is the run's uid.

    Raises
    ------
    ValueError
        `positions` are no ``(N, 2)`` numbers, or a motor has another unit.
    """
    points = _points(positions)
    to_x, to_y = _factor(x), _factor(y)
    start: dict[str, Any] = {
        "plan_name": "ptycho_scan",
        "detectors": [detector.name],
        "motors": [y.name, x.name],
        "num_points": len(points),
        "num_intervals": len(points) - 1,
        "positions_unit": {y.name: y.egu, x.name: x.egu},
        "hints": {"dimensions": [([y.name], "primary"), ([x.name], "primary")]},
    }
    if energy is not None:
        start["energy_eV"] = float(energy)

    @bpp.stage_decorator([detector])
    @bpp.run_decorator(md=start | dict(md or {}))
    def scan() -> MsgGenerator[Any]:
        for at_y, at_x in points:
            yield from bps.checkpoint()
            yield from bps.mv(y, float(at_y * to_y), x, float(at_x * to_x))
            yield from bps.trigger_and_read([detector, x, y])

    return (yield from scan())


def take_frames(
    detector: Any, n_frames: int, *, md: Mapping[str, Any] | None = None
) -> MsgGenerator[str]:
    """Take `n_frames` frames without moving anything, in one run, with a checkpoint before each.

    Parameters
    ----------
    detector : readable
        Anything that can be triggered and read.
    n_frames : int
        How many.
    md : mapping, optional
        More for the start document; what it holds wins.
    """
    start: dict[str, Any] = {
        "plan_name": "take_frames",
        "detectors": [detector.name],
        "num_points": n_frames,
        "num_intervals": n_frames - 1,
        "hints": {"dimensions": [(("time",), "primary")]},
    }

    @bpp.stage_decorator([detector])
    @bpp.run_decorator(md=start | dict(md or {}))
    def frames() -> MsgGenerator[Any]:
        for _ in range(n_frames):
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([detector])

    return (yield from frames())


def fly_frames(
    detector: Any,
    n_frames: int,
    *,
    livetime: float = 0.0,
    period: float = 0.1,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Let the detector take `n_frames` on its own: stream documents and not one Event.

    Parameters
    ----------
    detector : flyable
        A `PlayedHDF5Detector`, or any ophyd-async ``StandardDetector``.
    n_frames : int
        How many.
    livetime : float
        Of one exposure [s]; 0 for what the detector is set to.
    period : float
        How often to ask for stream documents [s].
    md : mapping, optional
        More for the start document; what it holds wins.
    """
    start: dict[str, Any] = {
        "plan_name": "fly_frames",
        "detectors": [detector.name],
        "num_points": n_frames,
    }

    @bpp.stage_decorator([detector])
    @bpp.run_decorator(md=start | dict(md or {}))
    def fly() -> MsgGenerator[Any]:
        info = TriggerInfo(number_of_events=n_frames, livetime=livetime)
        yield from bps.prepare(detector, info, wait=True)
        yield from bps.declare_stream(detector, name="primary", collect=True)
        yield from bps.kickoff(detector, wait=True)
        yield from bps.collect_while_completing(
            [detector], [detector], flush_period=period, stream_name="primary"
        )

    return (yield from fly())


def _points(positions: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(positions, float)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(
            f"positions: shape {points.shape}, must be (N, 2) finite numbers, y and x in metres"
        )
    return points


def _factor(motor: Any) -> float:
    if motor.egu not in UNITS_PER_METRE:
        raise ValueError(
            f"{motor.name}: unit {motor.egu!r} is none of {', '.join(UNITS_PER_METRE)}; "
            "set the motor's egu"
        )
    return UNITS_PER_METRE[motor.egu]
