"""A run becomes items: what was told of it is remembered, and nothing is told twice. No I/O."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from math import prod
from typing import Any

import numpy as np

from ...node.ports import Account, Products, RunInfo
from ...science.frame import ClassCode, Frame, Mask, ValidBit, bit_legend, legend
from ..derived import Derived
from .items import FrameItem, Item, PositionsItem, ProductsItem, Revision, Start, Stop
from .news import News

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
_LIGHT = 1 << 20  # bytes of products that are always told
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
        self._news = News()
        self._held: list[tuple[Frame, Mask]] = []  # before the size of the run is known
        self._since = 0  # bytes of frames since the products were told

    def take(self, item: Item) -> Item:
        """Remember an item that is told, or was; return it."""
        self.seq = item.seq + 1
        if isinstance(item, Start):
            self._shape = item.shape
        elif isinstance(item, FrameItem):
            self.index = item.index + 1
        elif isinstance(item, Revision):
            self._news.revise(item.bits)
        elif isinstance(item, PositionsItem):
            self._news.place(item.first, item.positions)
        return item

    def go_on(self, seq: int, index: int) -> None:
        """Go on behind what an earlier process has told: so many items, frames before an index."""
        self.seq, self.index = seq, index

    def frames(self, frames: Sequence[Frame], masks: Sequence[Mask]) -> Iterator[Item]:
        """Yield frames with their masks, those that were told before left out."""
        for frame, mask in zip(frames, masks, strict=True):
            if frame.index < self.index:
                continue
            self._held.append((frame, mask))
            if self.seq or min(mask.classes.shape) > 0:  # else nobody knows the size yet
                yield from self._begin(mask.classes.shape)
                yield from self._tell_held()

    def _tell_held(self) -> Iterator[Item]:
        held, self._held = self._held, []
        for frame, mask in held:
            item = self._frame(frame, mask)
            image = item.image.nbytes if item.image is not None else 0
            self._since += image + item.classes.nbytes + item.valid_bits.nbytes
            yield self.take(item)

    def products(self, products: Products) -> Iterator[Item]:
        """Yield what the run says as a whole, behind what of it holds for earlier frames."""
        uid, news = self._info.uid, self._news
        yield from self._begin(products.of_frames.pixel_mask.shape)
        yield from self._tell_held()
        mask = products.of_frames.pixel_mask
        # In the end for all frames: one may have been told behind a revision, without its bits.
        bits = mask if products.final and mask.any() else news.bits_of(mask)
        if bits is not None and self.index:
            yield self.take(Revision(self.seq, uid, 0, self.index, bits, news.revision + 1))
        if (known := news.positions_of(products.positions)) is not None:
            yield self.take(PositionsItem(self.seq, uid, *known))
        weight = _weight(products)
        # Large ones must not weigh more than the frames.
        if products.final or weight < _LIGHT or self._since >= 2 * weight:
            self._since = 0
            yield self.take(ProductsItem(self.seq, uid, products))

    def stop(self, account: Account) -> Iterator[Item]:
        """Yield the end of the run."""
        yield from self._begin((0, 0))
        yield from self._tell_held()
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
            experiment=self._info.experiment,
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
            revision=self._news.revision,
            status=status,
            verdict=str(mask.verdict),
        )

    def _clean(self, value: Any) -> Any:
        return Derived(replace(self._info, derived=""), "", 0.0).clean(value)


def _weight(products: Products) -> int:
    """Bytes of what a run says as a whole."""
    parts = products.of_frames
    arrays = [
        value for field in fields(parts) if hasattr(value := getattr(parts, field.name), "nbytes")
    ]
    return products.positions.nbytes + sum(array.nbytes for array in arrays)


def _product(shape: Any) -> int:
    """Return the points of a grid; 0 if it is none."""
    if not isinstance(shape, list | tuple) or not shape:
        return 0
    return prod(shape) if all(type(side) is int and 0 < side < 1 << 20 for side in shape) else 0
