"""What a run says as a whole as named arrays and plain facts, the same in Tiled and in files.

::

    <uid>                facts: frames, centre, radii, energy, distance, the legends ...
    ├── pixel_mask            (H, W) uint16, bits; 0: may be used
    ├── background            (H, W) float32 [counts per frame], above 0
    ├── background_variance   (H, W) float32 of one sample; NaN: not known
    ├── background_samples    (H, W) int32
    ├── pupil                 (H, W) uint8, 1: ring
    ├── segmentation_mask     (H, W) uint8, 1: ring and what it encloses
    ├── mean                  (H, W) float32 [counts]
    ├── sums                  (N, 4) float64: bright field, dark field, DPC y and x
    ├── positions             (N, 2) float64 y and x [m]
    └── scan_map              (4, ny, nx) float32: the sums in real positions
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import StoreError
from ..node.ports import Products
from ..science.experiment import Experiment
from ..science.frame import bit_legend
from ..science.products import SUMS, RunProducts
from ..science.scan_map import scan_map

PRODUCTS = "products"
"""Name of the group beside the masks in a file."""
SUFFIX = "_products"
"""What the container of products ends with in Tiled, after the name of that of the derived runs.

They are not below the run: all that reads a BlueskyRun takes every child for a stream of events.
"""
IMAGES = ("pixel_mask", "background", "background_variance", "background_samples", "pupil", "mean")
Arrays: TypeAlias = Mapping[str, NDArray[Any]]
MEANINGS = {
    "pixel_mask": "union over the run of the reasons not to use a pixel; 0: use it",
    "background": "counts per frame that the sample has no part in; 1e-6 where not known",
    "background_variance": "of one sample of the background [counts^2]; NaN where not known",
    "background_samples": "frames in which the pixel was labelled empty",
    "pupil": "1 where most frames are ring",
    "segmentation_mask": "1 where the beam is: ring and what it encloses",
    "mean": "mean of the valid counts",
    "sums": "per frame: " + ", ".join(SUMS) + " [counts, counts, px, px]",
    "positions": "per frame: y, x of the probe on the sample [m]; NaN where not known",
    "scan_map": "per channel (" + ", ".join(SUMS) + "): rows are y, columns x",
}


def arrays_of(products: Products) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays by name, and the facts beside them; facts that are not known are left out.

    Parameters
    ----------
    products : Products
    """
    parts = products.of_frames
    placed = scan_map(products.positions, parts.sums)
    arrays = {
        **{name: getattr(parts, name) for name in IMAGES},
        "segmentation_mask": ndimage.binary_fill_holes(parts.pupil != 0).astype(np.uint8),
        "sums": parts.sums,
        "positions": products.positions,
        "scan_map": placed.values,
    }
    of_map = {
        "map_origin_y_m": placed.origin[0],
        "map_origin_x_m": placed.origin[1],
        "map_step_y_m": placed.step[0],
        "map_step_x_m": placed.step[1],
        "map_rows": placed.values.shape[1],  # the array in Tiled may be larger: it cannot shrink
        "map_columns": placed.values.shape[2],
    }
    return arrays, {
        "frames": parts.frames,
        "used": parts.used,
        "final": products.final,
        "channels": list(SUMS),
        "bit_legend": bit_legend(),
        **_known(_numbers(products) | of_map),
    }


def place_of(run: Sequence[str]) -> tuple[str, ...]:
    """Return the path in Tiled of the products of a derived run.

    Parameters
    ----------
    run : sequence of str
        Path of the run: at least its container and its uid.
    """
    *above, container, uid = run
    return (*above, container + SUFFIX, uid)


def products_of(arrays: Arrays, about: Mapping[str, Any]) -> Products:
    """Return what `arrays_of` took apart.

    Raises
    ------
    StoreError
        If something is missing.
    """

    def number(name: str, unknown: float = float("nan")) -> float:
        return float(about.get(name, unknown))

    try:
        parts = RunProducts(
            frames=int(about["frames"]),
            used=int(about["used"]),
            **{name: np.asarray(arrays[name]) for name in IMAGES},
            centre=(number("centre_y"), number("centre_x")),
            inner=number("radius_inner"),
            outer=number("radius_outer"),
            sums=np.asarray(arrays["sums"]),
        )
        size = number("pixel_size_y_m", 0.0), number("pixel_size_x_m", 0.0)
        geometry = Experiment(number("energy_eV", 0.0), number("detector_distance_m", 0.0), size)
        final = bool(about.get("final", False))
        return Products(parts, np.asarray(arrays["positions"]), geometry, final)
    except (LookupError, TypeError, ValueError) as error:
        raise StoreError(f"the products of the run are not complete: {error!r}") from error


def _numbers(products: Products) -> dict[str, float]:
    parts, experiment = products.of_frames, products.experiment
    return {
        "centre_y": parts.centre[0],
        "centre_x": parts.centre[1],
        "radius_inner": parts.inner,
        "radius_outer": parts.outer,
        "energy_eV": experiment.energy or float("nan"),
        "detector_distance_m": experiment.distance or float("nan"),
        "pixel_size_y_m": experiment.pixel_size[0] or float("nan"),
        "pixel_size_x_m": experiment.pixel_size[1] or float("nan"),
    }


def _known(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
