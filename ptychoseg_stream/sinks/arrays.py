"""The arrays that a run may publish: types, what stands where there is nothing, legends."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..science.frame import METHODS, ClassCode, Mask, ValidBit, bit_legend, legend
from .rows import Row, Shape

Pixels: TypeAlias = NDArray[Any]  # (H, W) of uint8 or uint16

MASK = "mask"
VALID_BITS = "valid_bits"
CONFIDENCE = "confidence"
CLASS_VOLUME = "class_volume"
CLASS_MAPS = (MASK, *METHODS)
DEFAULT = (MASK, VALID_BITS)


@dataclass(frozen=True, slots=True)
class ArrayKind:
    """What one published array holds.

    Parameters
    ----------
    fill : int
        Value of every pixel where a frame has nothing of the kind. Never one that looks good.
    find : callable
        Returns the ``(H, W)`` array of a mask, or None.
    metadata : mapping
        Legend that the array carries in Tiled and in a file.
    dtype : dtype
        Type of a pixel.
    """

    fill: int
    find: Callable[[Mask], Pixels | None]
    metadata: Mapping[str, Any]
    dtype: DTypeLike = field(default=np.uint8)


def _class_map(name: str) -> ArrayKind:
    def find(mask: Mask) -> Pixels | None:
        return mask.classes if name in (MASK, mask.source) else mask.alternatives.get(name)

    return ArrayKind(int(ClassCode.INVALID), find, {"class_codes": legend()})


def signed_legend() -> dict[str, str]:
    """Return the class codes with -1 in the place of 255."""
    return {"-1" if code == "255" else code: name for code, name in legend().items()}


ARRAYS: dict[str, ArrayKind] = {
    **{name: _class_map(name) for name in CLASS_MAPS},
    VALID_BITS: ArrayKind(
        int(ValidBit.GAP),
        lambda mask: mask.valid_bits,
        {"bit_legend": bit_legend()},
        np.uint16,
    ),
    # What segmentation viewers take for labels: signed, and below 0 where there is none.
    CLASS_VOLUME: ArrayKind(
        -1,
        lambda mask: mask.classes.view(np.int8),
        {"class_codes": signed_legend()},
        np.int8,
    ),
    CONFIDENCE: ArrayKind(
        0,
        lambda mask: mask.confidence,
        {
            "meaning": "255 times the probability that the class in mask is right, from 128 (no "
            "better than a coin) to 255; 0 where nothing is known"
        },
    ),
}


def stack(rows: Sequence[Row], name: str, shape: Shape) -> Pixels:
    """Return what array `name` gets of some rows, ``(n, H, W)``; its fill where there is nothing.

    Parameters
    ----------
    rows : sequence of Row
        Rows as `rows.fitted` returns them.
    name : str
        Key of `ARRAYS`: "mask" for the served class maps, the source ("teacher", "student",
        "fused") of others, "valid_bits", "confidence", "class_volume".
    shape : tuple of int
        ``(H, W)``.
    """
    kind = ARRAYS[name]
    block = np.full((len(rows), *shape), kind.fill, kind.dtype)
    for target, row in zip(block, rows, strict=True):
        found = kind.find(row.mask)
        if found is not None and found.shape == shape:
            target[:] = found
    return block


def itemsize(names: Sequence[str]) -> int:
    """Return the size of a pixel of the widest of some arrays [bytes]."""
    return max(np.dtype(ARRAYS[name].dtype).itemsize for name in names)


def nbytes(mask: Mask) -> int:
    """Return the memory that the arrays of a mask take [bytes]."""
    others = (mask.valid_bits, mask.confidence, *mask.alternatives.values())
    return mask.classes.nbytes + sum(array.nbytes for array in others if array is not None)
