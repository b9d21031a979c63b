"""What a descriptor says about the images of its stream."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .documents import Document

_MIN_SIDE = 8  # px; a smaller array is a table or a colour, not a diffraction frame


@dataclass(frozen=True, slots=True)
class ImageKey:
    """A data key that holds images.

    Parameters
    ----------
    stream, key : str
        Name of the stream and of the key.
    shape : tuple of int
        ``(H, W)`` of an image; 0 where the descriptor does not know it.
    per_event : int
        Images per event.
    dtype : str
        As NumPy spells it; empty if unknown.
    """

    stream: str
    key: str
    shape: tuple[int, int]
    per_event: int
    dtype: str


def image_keys(data_keys: Mapping[str, Document], wanted: Sequence[str]) -> list[str]:
    """Return the keys of a descriptor that hold images, the one to segment first."""
    if wanted:
        return [key for key in wanted if key in data_keys]
    return [key for key, spec in data_keys.items() if _looks_like_image(spec)]


def _looks_like_image(spec: Document) -> bool:
    sides = list(spec.get("shape") or ())[-2:]
    return (
        spec.get("dtype") == "array"
        and len(sides) == 2
        and all(side is None or side >= _MIN_SIDE for side in sides)
    )


def image_key(stream: str, key: str, spec: Document) -> ImageKey:
    """Read the data key `spec` of a descriptor."""
    shape = [int(side or 0) for side in spec.get("shape") or ()]  # None: not known beforehand
    height, width = [0, 0, *shape][-2:]
    dtype = spec.get("dtype_numpy", "")
    return ImageKey(
        stream=stream,
        key=key,
        shape=(height, width),
        per_event=max(1, frames_in(shape)),
        dtype=dtype if isinstance(dtype, str) else "",
    )


def frames_in(shape: Sequence[int]) -> int:
    """Return how many images an array of this shape holds, as n for ``(n, H, W)``."""
    return int(np.prod(shape[:-2], dtype=np.int64)) if len(shape) > 2 else 1
