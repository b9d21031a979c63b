"""Images on their way from a document, a file or a store to frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from ..assets.keys import MAX_FRAMES, MAX_PIXELS, ImageKey, frames_in
from ..documents import drop_reason

LABELLED_BEFORE = "labelled before"


@dataclass(frozen=True, slots=True)
class Images:
    """Consecutive images: ``(n, H, W)``, or why they are not there.

    Parameters
    ----------
    count : int
        How many.
    stack : ndarray or None
        ``(count, H, W)`` of real numbers.
    fault : str
        Why there is none.
    origin : str
        ``FILE:dataset`` whose row i is frame i.
    refilled : {"", "file", "tiled"}
        As in `ptychoseg_stream.science.frame.Frame`.
    elsewhere : bool
        Whether a store of raw runs may have what is not here.
    """

    count: int
    stack: NDArray[Any] | None = None
    fault: str = ""
    origin: str = ""
    refilled: Literal["", "file", "tiled"] = ""
    elsewhere: bool = False


def shape_of(value: object) -> tuple[int, ...]:
    """Return the shape of an array or of nested lists; nothing is converted.

    Lists within lists are taken to be as long as the first of them.
    """
    if isinstance(value, np.ndarray):
        return cast(NDArray[Any], value).shape
    sides: list[int] = []
    while isinstance(value, list | tuple) and len(sides) < 32:
        items = cast(Sequence[object], value)
        sides.append(len(items))
        value = items[0] if items else None
    return tuple(sides)


def frames_of(value: object, source: ImageKey, max_frames: int = MAX_FRAMES) -> int:
    """Return how many frames the value of an event stands for.

    It says the same whether or not the value turns out to be images: the index of all later frames
    depends on it.
    """
    shape: Sequence[Any] = shape_of(value)
    if drop_reason(value):
        shape = cast(dict[str, Any], value).get("shape") or ()
    if len(shape) < 2 or not all(isinstance(side, int) for side in shape):
        return source.per_event
    count = frames_in(shape)
    return count if 1 <= count <= max_frames else source.per_event


def inline_images(
    value: Any, source: ImageKey, max_frames: int = MAX_FRAMES, max_pixels: int = MAX_PIXELS
) -> Images:
    """Return the images that are in an event itself, as an array or as lists."""
    count = frames_of(value, source, max_frames)
    if reason := drop_reason(value):
        return Images(count, fault=f"data key {source.key} was dropped: {reason}", elsewhere=True)
    where = f"data key {source.key} of stream {source.stream}"
    try:
        stack = np.asarray(value, (source.dtype or None) if isinstance(value, list) else None)
    except (ValueError, TypeError, OverflowError) as error:
        return Images(count, fault=f"{where} does not hold numbers: {error}")
    if stack.ndim < 2 or stack.dtype.kind not in "biuf":
        fault = f"{where} holds {stack.dtype} of shape {stack.shape}, not a real (H, W) image"
        return Images(count, fault=f"{fault}; name another one in data_keys")
    height, width = stack.shape[-2:]
    if not 1 <= height * width <= max_pixels:
        fault = f"{where} holds images of {height} x {width} px; 1 to {max_pixels} px are taken"
        return Images(count, fault=f"{fault}: raise frames.max_pixels if they are right")
    if frames_in(stack.shape) != count:
        fault = f"{where} holds {frames_in(stack.shape)} images in one event"
        return Images(count, fault=f"{fault}; 1 to {max_frames} are taken (frames.max_gap)")
    return Images(count, stack.reshape(count, height, width))  # (n, h, w)
