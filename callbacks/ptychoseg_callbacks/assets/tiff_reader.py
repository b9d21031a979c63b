"""Reads frames out of one TIFF file."""

import struct
import zlib
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from ptychoseg_stream.errors import DatasetError

from .hdf5_reader import check_frame_size
from .options import ReaderOptions
from .paths import Fence

# A damaged file makes tifffile stumble almost anywhere.
DAMAGED = (
    OSError,
    ValueError,  # TiffFileError is one
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    AssertionError,
    MemoryError,
    struct.error,
    zlib.error,
)
_RATIO = 4096  # LZW, the tightest of those that are read, cannot inflate to more
_READ = {
    tifffile.COMPRESSION.NONE,
    tifffile.COMPRESSION.LZW,
    tifffile.COMPRESSION.PACKBITS,
    tifffile.COMPRESSION.DEFLATE,
    tifffile.COMPRESSION.ADOBE_DEFLATE,
}
_MOST_SEGMENTS = 2**16


def read_tiff(
    path: str, first: int, last: int, options: ReaderOptions, fence: Fence
) -> NDArray[Any]:
    """Return pages [first, last) of a TIFF file, or those of them that are there.

    Returns
    -------
    ndarray
        ``(n, H, W)``.

    Raises
    ------
    DatasetError
        When it must not be read, or does not hold frames.
    Exception
        Any of `DAMAGED`, when it is not there (yet) or damaged.
    """
    fence.check(path)
    frames: list[NDArray[Any]] = []
    with tifffile.TiffFile(path) as file:
        for number in range(first, last):
            try:
                page = file.pages[number]
            except IndexError:
                break
            where = f"{path}, page {number}"
            _check(where, page, options)
            # One thread: the segments were checked one by one, not all at once.
            frame = np.asarray(page.asarray(maxworkers=1))
            frames.append(frame.reshape(frame.shape[-2:]) if frame.ndim > 2 else frame)
            if sum(f.nbytes for f in frames) + frames[-1].nbytes > options.max_read_bytes:
                break
        if not file.pages:
            raise OSError(f"{path} holds no image")
    return np.stack(frames) if frames else np.empty((0, 0, 0), np.uint8)


def _check(where: str, page: Any, options: ReaderOptions) -> None:
    """Refuse a page that is no frame, or would take too much memory."""
    shape = tuple(int(side) for side in page.shape)
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2 or page.dtype is None or np.dtype(page.dtype).kind not in "biuf":
        raise DatasetError(
            f"{where} holds {page.dtype} of shape {shape}, not a real (H, W) image: "
            "name another data key"
        )
    check_frame_size(where, shape, np.dtype(page.dtype), options)
    if page.compression not in _READ:
        raise DatasetError(
            f"{where} is compressed by {tifffile.COMPRESSION(page.compression).name}; none, LZW, "
            "PackBits and deflate are read"
        )
    tile = int(np.prod(page.chunks, dtype=object)) * np.dtype(page.dtype).itemsize
    inflated = tile
    if page.compression != tifffile.COMPRESSION.NONE:
        inflated = max(tile, _RATIO * max(page.databytecounts, default=0))
    if inflated > options.max_read_bytes or len(page.databytecounts) > _MOST_SEGMENTS:
        raise DatasetError(
            f"{where} may inflate to {inflated} bytes in one of {len(page.databytecounts)} pieces, "
            f"of which at most {options.max_read_bytes} are read: write smaller strips, or raise "
            "frames.max_read_bytes of the profile"
        )
