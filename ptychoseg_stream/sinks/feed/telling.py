"""A run becomes items: what was told of it is remembered, and nothing is told twice. No I/O."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...node.ports import Account, Products, RunInfo
from ...science.experiment import Experiment, Positions
from ...science.frame import BitMap, ClassCode, Frame, Mask, ValidBit, bit_legend, legend
from ..derived import Derived
from .items import FrameItem, Item, PositionsItem, ProductsItem, Revision, Start, Stop

Shape = tuple[int, int]

TOLD = (
    "scan_id",
    "plan_name",
    "sample",
    "data_session",
    "time",
    "num_points",
    "shape",
    "energy_eV",
)
"""What of a start document is told: it may hold anything."""
_LONGEST = 10_000  # characters of a value of it


class Telling:
    """Makes the items of one run, in order; `take` what an earlier process has told of it.

    Parameters
    ----------
    info : RunInfo
        The run.
    tiled : str
        Address of its derived run; empty if it is not known.

    Attributes
    ----------
    seq : int
        Number of the next item.
    index : int
        Frame that comes next.
    """

    def __init__(self, info: RunInfo, tiled: str = "") -> None:
        self.seq = self.index = 0
        self._info = info
        self._tiled = tiled
        self._shape: Shape = (0, 0)
        self._revision = 0
        self._bits: BitMap | None = None  # static ones
        self._known = np.zeros(0, bool)  # which positions were told

    def take(self, item: Item) -> Item:
        """Remember an item that is told, or was; return it."""
        self.seq = item.seq + 1
        if isinstance(item, Start):
            self._shape = item.shape
        elif isinstance(item, FrameItem):
            self.index = item.index + 1
        elif isinstance(item, Revision):
            self._revision = item.revision
            self._bits = item.bits if self._bits is None else self._bits | item.bits
        elif isinstance(item, PositionsItem):
            self._note(item.first, _finite(item.positions))
        return item

    def frames(self, frames: Sequence[Frame], masks: Sequence[Mask]) -> Iterator[Item]:
        """Yield frames with their masks, those that were told before left out."""
        for frame, mask in zip(frames, masks, strict=True):
            if frame.index < self.index:
                continue
            yield from self._begin(mask.classes.shape)
            yield self.take(self._frame(frame, mask))

    def products(self, products: Products) -> Iterator[Item]:
        """Yield what the run says as a whole, and what of it is new."""
        yield from self._begin(products.of_frames.pixel_mask.shape)
        yield from map(self.take, self._revised(products.of_frames.pixel_mask))
        yield from map(self.take, self._positioned(products.positions))
        yield self.take(ProductsItem(self.seq, self._info.uid, products))

    def stop(self, account: Account) -> Iterator[Item]:
        """Yield the end of the run."""
        yield from self._begin((0, 0))
        told = self._clean({**asdict(account), "imbalance": account.imbalance})
        status, reason = told.pop("exit_status"), told.pop("reason")
        yield self.take(Stop(self.seq, self._info.uid, status, reason, told))

    def _begin(self, shape: Sequence[int]) -> Iterator[Item]:
        """Yield the beginning of the run if it is not told yet."""
        if self.seq:
            return
        start = self._info.start
        planned = start.get("num_points") or _product(start.get("shape"))
        subset = {key: start[key] for key in TOLD if start.get(key) is not None}
        short = {key: value for key, value in subset.items() if len(repr(value)) < _LONGEST}
        item = Start(
            seq=0,
            run=self._info.uid,
            derived=self._info.derived,
            shape=(shape[0], shape[1]),
            num_points=planned if isinstance(planned, int) and planned > 0 else 0,
            experiment=_experiment(start),
            classes=legend(),
            bits=bit_legend(),
            start=self._clean(short),
            tiled=self._tiled,
        )
        yield self.take(item)

    def _frame(self, frame: Frame, mask: Mask) -> FrameItem:
        classes, bits, status = mask.classes, mask.valid_bits, str(mask.status)
        if classes.shape != self._shape:  # as in Tiled, all masks of a run have one size
            classes, bits = np.full(self._shape, ClassCode.INVALID, np.uint8), None
            status = "refused" if status == "ok" else status
        if bits is None or bits.shape != self._shape:
            bits = np.full(self._shape, ValidBit.GAP, np.uint16)
        return FrameItem(
            seq=self.seq,
            run=self._info.uid,
            index=frame.index,
            time=frame.time,
            seq_num=frame.seq_num,
            attempt=frame.attempt,
            image=frame.image,
            classes=classes,
            valid_bits=bits,
            revision=self._revision,
            status=status,
            verdict=str(mask.verdict),
        )

    def _revised(self, pixel_mask: BitMap) -> Iterator[Item]:
        """Yield the bits that were not known to hold for all frames."""
        before = self._bits
        if before is None or before.shape != pixel_mask.shape:
            before = np.zeros_like(pixel_mask)
        new = pixel_mask & ~before
        if new.any() and self.index:
            yield Revision(self.seq, self._info.uid, 0, self.index, new, self._revision + 1)

    def _positioned(self, positions: Positions) -> Iterator[Item]:
        """Yield the positions that were not known, and what lies between them."""
        known = _finite(positions)
        before = np.zeros(len(known), bool)
        length = min(len(known), len(self._known))
        before[:length] = self._known[:length]
        new = np.flatnonzero(known & ~before)
        if new.size:
            first, last = int(new[0]), int(new[-1]) + 1
            yield PositionsItem(self.seq, self._info.uid, first, positions[first:last])

    def _note(self, first: int, known: NDArray[np.bool_]) -> None:
        last = first + len(known)
        if last > len(self._known):
            self._known = np.concatenate([self._known, np.zeros(last - len(self._known), bool)])
        self._known[first:last] |= known

    def _clean(self, value: Any) -> Any:
        return Derived(replace(self._info, derived=""), "", 0.0).clean(value)


def _finite(positions: Positions) -> NDArray[np.bool_]:
    """Return which rows are known."""
    return np.asarray(np.isfinite(positions).all(axis=1))


def _experiment(start: Mapping[str, Any]) -> Experiment:
    """Return what a start document of ours says; what others say, a `Products` brings."""
    energy, distance = (
        _positive(start.get("energy_eV")),
        _positive(start.get("detector_distance_m")),
    )
    return Experiment(energy=energy, distance=distance)


def _positive(value: Any) -> float:
    good = isinstance(value, int | float) and np.isfinite(value) and value > 0
    return float(value) if good else 0.0


def _product(shape: Any) -> int:
    """Return the points of a grid; 0 if it is none."""
    if not isinstance(shape, list | tuple) or not shape:
        return 0
    return prod(shape) if all(type(side) is int and 0 < side < 1 << 20 for side in shape) else 0
