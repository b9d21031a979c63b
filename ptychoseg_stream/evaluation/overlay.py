"""Class maps over frames as small pictures: the colors, the window, the difference."""

import io
from typing import Any

import numpy as np
from matplotlib import image as png
from numpy.typing import NDArray

from ..science.frame import BoolArray, ClassCode, ClassMap

Rgb = NDArray[np.uint8]  # (h, w, 3)

CLASS_COLORS: dict[ClassCode, tuple[str, float]] = {
    ClassCode.RING: ("#e69f00", 0.55),
    ClassCode.CORE: ("#56b4e9", 0.50),
    ClassCode.BEAM_STOP: ("#cc79a7", 0.75),
    ClassCode.SCATTER: ("#009e73", 0.28),
    ClassCode.EMPTY: ("#2b3a67", 0.45),
    ClassCode.INVALID: ("#f0e442", 0.60),
}
"""Color and opacity of each class; background has none. Okabe and Ito's palette (2008), made to be
told apart by colour-blind readers."""


EXTRA, MISSED = "#d55e00", "#0072b2"
"""Ring pixels that the reference does not have, and those it has alone."""


def window_of(ring: BoolArray) -> tuple[slice, slice]:
    """Cut to the ring with half its size around: a ring is 20 pixels of 104."""
    y, x = np.nonzero(ring)
    if len(y) == 0:
        return slice(None), slice(None)
    reach = 0.75 * max(np.ptp(y), np.ptp(x)) + 4
    cy, cx = (y.min() + y.max()) / 2, (x.min() + x.max()) / 2
    return (
        slice(max(0, int(cy - reach)), int(cy + reach) + 1),
        slice(max(0, int(cx - reach)), int(cx + reach) + 1),
    )


def grey(image: NDArray[Any]) -> Rgb:
    """Logarithm of a frame as grey levels; pixels without a value are black."""
    values = np.log1p(np.maximum(np.nan_to_num(image.astype(float), posinf=0, neginf=0), 0))
    # Of the bright end, so that one hot pixel does not darken the rest.
    white = max(float(np.percentile(values, 99.8)), 1e-9)
    level = (255 * np.minimum(values / white, 1)).astype(np.uint8)
    return np.repeat(level[:, :, None], 3, axis=2)


def tinted(picture: Rgb, classes: ClassMap) -> Rgb:
    """Return the picture with each class in its color."""
    out = picture.astype(float)
    for code, (color, opacity) in CLASS_COLORS.items():
        at = classes == code
        out[at] = (1 - opacity) * out[at] + opacity * np.array(rgb_of(color))
    return out.round().astype(np.uint8)


def compared(picture: Rgb, ring: BoolArray, reference: BoolArray) -> Rgb:
    """Return the picture with the ring pixels that differ from the reference in full color."""
    out = picture.copy()
    out[ring & ~reference] = rgb_of(EXTRA)
    out[reference & ~ring] = rgb_of(MISSED)
    return out


def enlarged(picture: Rgb, size: int = 240) -> Rgb:
    """Repeat pixels, so that viewers that smooth leave their edges sharp."""
    scale = max(1, round(size / max(picture.shape[:2])))
    return np.repeat(np.repeat(picture, scale, axis=0), scale, axis=1)


def as_png(picture: Rgb) -> bytes:
    """Encode as PNG."""
    buffer = io.BytesIO()
    png.imsave(buffer, picture, format="png")
    return buffer.getvalue()


def rgb_of(color: str) -> tuple[int, int, int]:
    """``#rrggbb`` as three numbers, 0 to 255."""
    r, g, b = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return r, g, b
