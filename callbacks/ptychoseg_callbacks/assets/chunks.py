"""Which frames of an HDF5 dataset are stored, and that none of their chunks is a bomb."""

import bz2
import itertools
import math
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import h5py
from h5py import h5z

from ptychoseg_stream.errors import DatasetError

_SLACK = 64  # bytes of checksums and headers
_MOST_CHUNKS = 2**16  # of one row of a dataset
_DEFLATE, _BZIP2 = 1, 307
_LZ4, _BSHUF, _BLOSC, _ZSTD, _SZIP, _LZF = 32004, 32008, 32001, 32015, 4, 32000
_SIZED = (5, 6)  # nbit and scaleoffset: their third value is the number of elements
_PLAIN = (2, 3)  # shuffle and fletcher32: what comes out is as large as what goes in
_RATIO = {_DEFLATE: 1032, _BZIP2: 2**20}  # more than these cannot be inflated to
_READ = "gzip, LZF, LZ4, Bitshuffle, Blosc, Zstd, bzip2, szip, nbit, scaleoffset"


@dataclass(frozen=True, slots=True)
class _Filter:
    code: int
    values: tuple[int, ...]
    place: int  # in the pipeline; its bit in the mask of a chunk says that it was left out


class Chunks:
    """The chunks of one dataset.

    HDF5 reads chunks that were never written as zeros, which look like an image; and it inflates
    whatever a compressed chunk says. So both are looked at before frames are read.

    Parameters
    ----------
    dataset : h5py.Dataset
        Not virtual.
    where : str
        ``file:dataset``, for messages.
    most : int
        Most bytes that a chunk may take in memory.

    Raises
    ------
    DatasetError
        When its chunks are too large or too many, or compressed in a way that cannot be checked.
    """

    def __init__(self, dataset: h5py.Dataset, where: str, most: int) -> None:
        self._dataset = dataset
        self._where = where
        self._most = most
        self._shape: tuple[int, ...] | None = dataset.chunks
        self._filter = self._compressor()
        if self._shape is None:
            return
        self._bytes = math.prod(self._shape) * dataset.dtype.itemsize
        if self._bytes > most:
            raise DatasetError(
                f"{where} has chunks of {self._shape} {dataset.dtype}, {self._bytes} bytes each, "
                f"of which at most {most} are read at once: write smaller chunks, or raise "
                "frames.max_read_bytes of the profile"
            )

    def stored(self, first: int, last: int) -> int:
        """Return how many frames from `first` on, before `last`, are stored without a gap.

        Raises
        ------
        DatasetError
            When a chunk would inflate to more than it says.
        """
        if self._shape is None:
            return last - first if self._dataset.id.get_storage_size() else 0
        corners = self._corners_of_frame()
        seen: set[tuple[int, ...]] = set()
        for frame in range(first, last):
            place = leading_index(frame, self._dataset.shape)
            lead = tuple(n // side * side for n, side in zip(place, self._shape[:-2], strict=True))
            if lead not in seen and not all(
                self._is_stored(lead + tile) for tile in itertools.product(*corners)
            ):
                return frame - first
            seen.add(lead)
        return last - first

    def _corners_of_frame(self) -> list[range]:
        sides = zip(self._dataset.shape[-2:], (self._shape or ())[-2:], strict=True)
        corners = [range(0, side, step) for side, step in sides]
        if (count := math.prod(len(c) for c in corners)) > _MOST_CHUNKS:
            raise DatasetError(f"{self._where} has {count} chunks per frame: write larger ones")
        return corners

    def _is_stored(self, corner: tuple[int, ...]) -> bool:
        info = self._dataset.id.get_chunk_info_by_coord(corner)
        if not info.size:
            return False
        told, packer = self._bytes + _SLACK, self._filter
        if info.size > 2 * told:
            self._refuse(corner, info.size)
        if packer is None or info.filter_mask >> packer.place & 1:
            return True
        if packer.code in _RATIO:
            # Only what might inflate to too much is inflated twice.
            if info.size * _RATIO[packer.code] > self._most:
                raw = self._dataset.id.read_direct_chunk(corner)[1]
                if not _inflates_within(packer.code, raw, told):
                    self._refuse(corner, told + 1)
        elif (size := self._promised(packer, info.byte_offset, corner)) > told:
            self._refuse(corner, size)
        return True

    def _promised(self, packer: _Filter, offset: int, corner: tuple[int, ...]) -> int:
        """Return the size that the header of a compressed chunk names."""
        if packer.code not in _HEADERS:
            return 0
        if self._dataset.file.userblock_size:
            head = self._dataset.id.read_direct_chunk(corner)[1][:18]
        else:
            head = os.pread(self._dataset.file.id.get_vfd_handle(), 18, offset)
        return _HEADERS[packer.code](head, packer.values)

    def _refuse(self, corner: tuple[int, ...], size: int) -> None:
        raise DatasetError(
            f"the chunk at {corner} of {self._where} inflates to {size} bytes or more, and has "
            f"room for {self._bytes}: the file is damaged or made to do harm"
        )

    def _compressor(self) -> _Filter | None:
        """Return the one compressing filter of the pipeline."""
        plist = self._dataset.id.get_create_plist()
        count = plist.get_nfilters()
        filters = [_Filter(f[0], f[2], n) for n in range(count) for f in [plist.get_filter(n)]]
        packers = [f for f in filters if f.code not in _PLAIN]
        for packer in packers:
            known = packer.code in (*_RATIO, *_HEADERS, *_SIZED, _LZF)
            if not known or len(packers) > 1:
                codes = ", ".join(str(f.code) for f in packers)
                raise DatasetError(
                    f"{self._where} is compressed by HDF5 filters {codes}; one of these is read: "
                    f"{_READ}"
                )
            if not h5z.filter_avail(packer.code):
                raise DatasetError(
                    f"{self._where} is compressed by HDF5 filter {packer.code}, which is not "
                    "there: install another version of hdf5plugin"
                )
            elements = math.prod(self._shape or ())
            if packer.code in _SIZED and (*packer.values, 0, 0, 0)[2] > elements:
                raise DatasetError(f"{self._where}: its filter names more pixels than a chunk has")
        return packers[0] if packers else None


def leading_index(frame: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return where a frame is along all axes but the last two; axis 0 may be exceeded."""
    place: list[int] = []
    for side in shape[-3:0:-1]:
        frame, rest = divmod(frame, max(side, 1))
        place.insert(0, rest)
    return (frame, *place) if len(shape) > 2 else ()


def _inflates_within(code: int, raw: bytes, most: int) -> bool:
    """Inflate at most so many bytes and say whether that was all; damaged data are for HDF5."""
    unpacker = zlib.decompressobj() if code == _DEFLATE else bz2.BZ2Decompressor()
    try:
        return len(unpacker.decompress(raw, most + 1)) <= most
    except (zlib.error, OSError, EOFError):
        return True


def _big(head: bytes, values: tuple[int, ...]) -> int:
    return int.from_bytes(head[:8], "big")


def _bitshuffle(head: bytes, values: tuple[int, ...]) -> int:
    packed = len(values) > 4 and values[4]  # else it is only shuffled, and has no header
    return _big(head, values) if packed else 0


def _blosc(head: bytes, values: tuple[int, ...]) -> int:
    return int.from_bytes(head[4:8], "little")


def _szip(head: bytes, values: tuple[int, ...]) -> int:
    return int.from_bytes(head[:4], "little")


def _zstd(head: bytes, values: tuple[int, ...]) -> int:
    """Read the size in the header of a Zstandard frame (RFC 8878, 3.1.1.1); 0 if there is none."""
    if len(head) < 18:
        return 0
    flag, single = head[4] >> 6, head[4] >> 5 & 1
    at = 5 + (1 - single) + (0, 1, 2, 4)[head[4] & 3]
    width = (single, 2, 4, 8)[flag]
    return int.from_bytes(head[at : at + width], "little") + (256 if flag == 1 else 0)


_HEADERS: dict[int, Callable[[bytes, tuple[int, ...]], int]] = {
    _LZ4: _big,
    _BSHUF: _bitshuffle,
    _BLOSC: _blosc,
    _SZIP: _szip,
    _ZSTD: _zstd,
}
