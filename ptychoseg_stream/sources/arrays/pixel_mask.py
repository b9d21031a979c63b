"""A user's mask of detector pixels that must never be used."""

from os import PathLike, fspath
from pathlib import Path

from ...errors import DatasetError
from ...science.frame import BoolArray
from .arrays import Wanted, read_array

PIXELS = Wanted("the pixel mask", (2,), ("pixel_mask", "mask", "bad_pixels"))


def read_pixel_mask(target: str | PathLike[str]) -> BoolArray:
    """Read a pixel mask: 0 is a good pixel, anything else a bad one, as NeXus and CXI have it.

    Parameters
    ----------
    target : str or path
        ``.npz``, ``.npy`` or HDF5 (NeXus, CXI) file, with ``:name`` of the array if it holds
        several. Without a name: ``pixel_mask``, ``mask`` or ``bad_pixels``, else the only
        two-dimensional integer array.

    Returns
    -------
    ndarray of bool
        ``(H, W)``, true for the pixels that must not be used.

    Raises
    ------
    DatasetError
        No such file or array, or it is no mask; the text says which.
    """
    name, array = read_array(Path(fspath(target)).expanduser(), PIXELS)
    if array.ndim != 2 or array.dtype.kind not in "iub" or 0 in array.shape:
        raise DatasetError(
            f"{name}: {array.dtype} {array.shape}; a pixel mask is a 2-D array of integers, 0 for "
            "good pixels"
        )
    bad = array != 0
    if bad.mean() > 0.9:
        raise DatasetError(
            f"{name}: {bad.mean():.0%} of the pixels are masked; is it the other way round? 0 is "
            "a good pixel here, as in NeXus"
        )
    return bad
