"""What a descriptor says about the images of its stream; nothing it says is taken on trust."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from ..documents import Document

_MIN_SIDE = 8  # px; a smaller array is a table or a colour, not a diffraction frame
_REAL = re.compile(r"[<>|=]?[?biuf]\d{0,2}|u?int\d*|float\d*|bool")  # as NumPy spells numbers

MAX_PIXELS = 1 << 26  # per image
MAX_FRAMES = 100_000  # per event


@dataclass(frozen=True, slots=True)
class ImageKey:
    """A data key that holds images.

    Parameters
    ----------
    stream, key : str
        Name of the stream and of the key.
    shape : tuple of int
        ``(H, W)`` of an image; 0 where the descriptor does not know it, or says what cannot be.
    per_event : int
        Images per event.
    dtype : str
        As NumPy spells it; empty if unknown.
    streamed : bool
        Whether stream_datum documents bring the images, and events do not.
    alone : bool
        Whether it is the only key of its descriptor that does so.
    """

    stream: str
    key: str
    shape: tuple[int, int]
    per_event: int
    dtype: str
    streamed: bool = False
    alone: bool = True


def image_keys(data_keys: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    """Return the keys of a descriptor that hold images, the one to segment first."""
    if wanted:
        return [key for key in wanted if key in data_keys]
    return [key for key, spec in data_keys.items() if _looks_like_image(spec)]


def _looks_like_image(spec: object) -> bool:
    if not isinstance(spec, Mapping):
        return False
    doc = cast(Document, spec)
    sides = _sides(doc)
    unknown = [side == 0 for side in sides[-2:]]
    return (
        doc.get("dtype") == "array"
        and len(sides) >= 2
        and all(none or side >= _MIN_SIDE for none, side in zip(unknown, sides[-2:], strict=True))
    )


def described(
    stream: str,
    data_keys: Mapping[str, Any],
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
) -> dict[str, ImageKey]:
    """Read all data keys of a descriptor; what it says of sizes that cannot be is unknown.

    Parameters
    ----------
    stream : str
        Name of the stream.
    data_keys : mapping
        As in the descriptor.
    max_pixels, max_frames : int
        Largest image, and most images per event, that are believed.
    """
    streamed = {key for key, spec in data_keys.items() if _is_streamed(spec)}
    keys: dict[str, ImageKey] = {}
    for key, spec in data_keys.items():
        read = _image_key(stream, key, spec, max_pixels, max_frames)
        keys[key] = replace(read, streamed=key in streamed, alone=streamed <= {key})
    return keys


def image_key(
    stream: str,
    key: str,
    data_keys: Mapping[str, Any],
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
) -> ImageKey:
    """Read the data key `key` of a descriptor; see `described`."""
    return described(stream, data_keys, max_pixels, max_frames)[key]


def _image_key(stream: str, key: str, spec: Any, max_pixels: int, max_frames: int) -> ImageKey:
    spec = cast(Document, spec) if isinstance(spec, Mapping) else {}
    sides = _sides(spec)
    height, width = [0, 0, *sides][-2:]
    per_event = frames_in(sides)
    return ImageKey(
        stream=stream,
        key=key,
        shape=(height, width) if height * width <= max_pixels else (0, 0),
        per_event=per_event if 1 <= per_event <= max_frames else 1,
        dtype=_real_dtype(spec.get("dtype_numpy")),
    )


def frames_in(shape: Sequence[int]) -> int:
    """Return how many images an array of this shape holds, as n for ``(n, H, W)``."""
    return math.prod(shape[:-2]) if len(shape) > 2 else 1


def _sides(spec: Document) -> list[int]:
    """Return the declared shape; 0 for what is no length."""
    shape = spec.get("shape")
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        return []
    return [
        side if isinstance(side, int) and not isinstance(side, bool) and side > 0 else 0
        for side in cast(Sequence[Any], shape)[:32]
    ]


def _is_streamed(spec: object) -> bool:
    return isinstance(spec, Mapping) and cast(Document, spec).get("external") == "STREAM:"


def _real_dtype(text: object) -> str:
    """Return a dtype of real numbers as it is spelt; empty for anything else."""
    if not isinstance(text, str) or not _REAL.fullmatch(text):
        return ""
    try:
        return text if np.dtype(text).kind in "biuf" else ""
    except TypeError:
        return ""
