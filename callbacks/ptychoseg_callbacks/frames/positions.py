"""Where the probe was at each frame, from whatever documents say so: before or after the frame."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..documents import Document
from .indices import MALFORMED, number
from .options import UNITS, PositionOptions
from .scalars import Scalars

log = logging.getLogger(__name__)

_MOST = 1 << 21  # events whose positions are remembered


@dataclass(frozen=True, slots=True)
class _Axis:
    """One coordinate: its key, metres per unit, and what was read of it, by seq_num."""

    key: str
    factor: float
    streamed: bool = False
    values: dict[int, float | NDArray[np.float64]] = field(
        default_factory=dict[int, "float | NDArray[np.float64]"]
    )


class Positions:
    """Collects positions event by event; frames are told by the seq_num of their event.

    Parameters
    ----------
    run : str
        Uid of the run.
    start : mapping
        Its start document.
    options : PositionOptions
    scalars : Scalars
        Reads those that are in files.
    """

    def __init__(
        self, run: str, start: Document, options: PositionOptions, scalars: Scalars
    ) -> None:
        self._run = run
        self._options = options
        self._scalars = scalars
        self._units: Any = start.get("positions_unit", {})
        self._wanted = [options.y, options.x] if options.y else _dimensions(start)
        self._axes: tuple[_Axis, _Axis] | None = None
        self._descriptors: set[str] = set()
        self._failed = False

    def describe(self, stream: str, doc: Document, has_images: bool) -> None:
        """Read the descriptor of a stream; `has_images`: of the images that are segmented."""
        if stream != self._options.stream if self._options.stream else not has_images:
            return
        keys = cast(Mapping[str, Any], doc["data_keys"])
        wanted = self._wanted or _by_name(keys)
        if len(wanted) != 2 or not all(_is_number(keys.get(key)) for key in wanted):
            return
        self._descriptors.add(doc["uid"])
        if self._axes is None:
            y = self._axis(wanted[0], keys[wanted[0]], self._options.y_factor)
            x = self._axis(wanted[1], keys[wanted[1]], self._options.x_factor)
            self._axes = None if y is None or x is None else (y, x)

    def _axis(self, key: str, spec: Mapping[str, Any], sign: float) -> _Axis | None:
        said: Any = self._units.get(key, "") if isinstance(self._units, Mapping) else self._units
        unit = self._options.unit or str(spec.get("units") or said or "").strip()
        if unit not in UNITS and unit.lower() not in UNITS:
            if not self._failed:
                self._failed = True
                log.warning(
                    "run %s: positions %s are in %r, which is no length: set frames.positions.unit",
                    self._run,
                    key,
                    unit,
                )
            return None
        factor = UNITS.get(unit) or UNITS[unit.lower()]
        return _Axis(key, sign * factor, str(spec.get("external", "")) == "STREAM:")

    def event(self, doc: Document) -> None:
        """Take the positions of an event."""
        if self._axes is None or doc.get("descriptor") not in self._descriptors:
            return
        for axis in self._axes:
            value = cast(Mapping[str, Any], doc["data"]).get(axis.key)
            if value is not None:
                _put(axis, number(doc, "seq_num", 1), value)

    def page(self, doc: Document) -> None:
        """Take the positions of a page of events."""
        if self._axes is None or doc.get("descriptor") not in self._descriptors:
            return
        for axis in self._axes:
            column = cast(Mapping[str, Any], doc["data"]).get(axis.key, ())
            for seq_num, value in zip(doc["seq_num"], column, strict=False):
                _put(axis, int(seq_num), value)

    def stream_datum(self, doc: Document) -> None:
        """Take note of positions that are in a file."""
        if self._axes is None or doc.get("descriptor") not in self._descriptors:
            return
        streamed = {axis.key for axis in self._axes if axis.streamed}
        if streamed:
            self._scalars.note(doc, streamed)

    def of(self, seq_nums: Sequence[int], within: Sequence[int]) -> NDArray[np.float64]:
        """Return ``(n, 2)`` y and x [m] of frames, NaN where they are not known (yet).

        Parameters
        ----------
        seq_nums : sequence of int
            Number of the event of each frame.
        within : sequence of int
            Which frame of its event each is, from 0.
        """
        found = np.full((len(seq_nums), 2), np.nan)
        if self._axes is None:
            return found
        for column, axis in enumerate(self._axes):
            if axis.streamed:
                for seq_num, value in self._scalars.read(axis.key):
                    _put(axis, seq_num, value)
            values = axis.values
            found[:, column] = [
                _one(values.get(s), k) for s, k in zip(seq_nums, within, strict=True)
            ]
            found[:, column] *= axis.factor
        return found


def _put(axis: _Axis, seq_num: int, value: Any) -> None:
    """Remember a value: a number, or one for each frame of the event."""
    try:
        numbers = np.asarray(value, np.float64).reshape(-1)
    except MALFORMED:
        return
    if len(axis.values) < _MOST and numbers.size:
        axis.values[seq_num] = float(numbers[0]) if numbers.size == 1 else numbers.copy()


def _one(value: "float | NDArray[np.float64] | None", k: int) -> float:
    if isinstance(value, np.ndarray):
        return float(value[k]) if k < len(value) else float("nan")
    return float("nan") if value is None else value


def _is_number(spec: object) -> bool:
    if not isinstance(spec, Mapping):
        return False
    doc = cast(Document, spec)
    shape = doc.get("shape")
    flat = not isinstance(shape, Sequence) or len(cast(Sequence[Any], shape)) <= 1
    return doc.get("dtype") in ("number", "integer", "array") and flat


def _dimensions(start: Document) -> list[str]:
    """Return the keys of y and x that a start document names; nothing if it does not name two."""
    hints: Any = start.get("hints")
    dimensions: Any = hints.get("dimensions") if isinstance(hints, Mapping) else None
    names: list[str] = []
    if isinstance(dimensions, list | tuple):
        for entry in cast(Sequence[Any], dimensions):
            fields: Any = entry[0] if isinstance(entry, list | tuple) and entry else ()
            names += [name for name in fields if isinstance(name, str)]
    if len(names) != 2:
        motors: Any = start.get("motors")
        names = (
            [m for m in motors if isinstance(m, str)] if isinstance(motors, list | tuple) else []
        )
    return _in_order(names) if len(names) == 2 else []


def _in_order(names: Sequence[str]) -> list[str]:
    """Return y before x: by their last letters if these say so, else as a scan nests them."""
    first, second = names
    swapped = (first[-1:].lower(), second[-1:].lower()) == ("x", "y")
    return [second, first] if swapped else [first, second]


def _by_name(keys: Iterable[str]) -> list[str]:
    """Return the only pair of keys whose names differ by y and x."""
    known = set(keys)
    pairs = [[name, f"{name[:-1]}x"] for name in known if name[-1:] == "y"]
    pairs += [[name, f"{name[:-1]}X"] for name in known if name[-1:] == "Y"]
    pairs = [pair for pair in pairs if pair[1] in known]
    return pairs[0] if len(pairs) == 1 else []
