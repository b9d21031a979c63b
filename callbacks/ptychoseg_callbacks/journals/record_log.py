"""A file that only grows, record by record: killing its writer costs the last one at most."""

import errno
import os
import struct
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path

_HEADER = struct.Struct("<QI")  # bytes of the record, and their CRC-32
_MOST = 1 << 30  # bytes asked of the kernel at once


class RecordLog:
    """Records in a file, each with its length and checksum.

    One thread appends; any thread may read. Who still holds the object can read it even when the
    file has been removed.

    Parameters
    ----------
    path : Path
        Made if it is not there.

    Attributes
    ----------
    damaged : int
        Records that `recover` left out.

    Raises
    ------
    OSError
        If the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        self._close = weakref.finalize(self, os.close, self._fd)
        self._end = os.fstat(self._fd).st_size
        self.damaged = 0

    @property
    def end(self) -> int:
        """Where the next record will begin [bytes]."""
        return self._end

    def recover(self) -> Iterator[tuple[int, bytes, int]]:
        """Yield offset, bytes, and offset of what follows, of each whole record.

        A damaged one in between is left out, and counted in `damaged`. What is behind the last
        whole one is torn, and cut off.

        Raises
        ------
        OSError
            If the disk cannot be read.
        """
        offset = whole = doubtful = 0
        self.damaged = 0
        size = os.fstat(self._handle).st_size
        while after := self._after(offset, size):
            record = self._whole(offset, after)
            if record is None:
                doubtful += 1
            else:
                self.damaged += doubtful
                doubtful, whole = 0, after
                yield offset, record, after
            offset = after
        if whole < size:
            os.ftruncate(self._handle, whole)
        self._end = whole

    def append(self, record: bytes) -> int:
        """Write a record at the end and return its offset.

        Raises
        ------
        OSError
            If the disk is full or broken; the file is then as it was before.
        """
        offset = self._end
        try:
            self._write(_HEADER.pack(len(record), zlib.crc32(record)), offset)
            self._write(record, offset + _HEADER.size)
        except OSError:
            os.ftruncate(self._handle, offset)
            raise
        self._end = offset + _HEADER.size + len(record)
        return offset

    def read(self, offset: int) -> tuple[bytes, int]:
        """Return the record at an offset, and where the next one begins.

        Raises
        ------
        OSError
            If there is none, or it is damaged.
        """
        after = self._after(offset, os.fstat(self._handle).st_size)
        record = self._whole(offset, after) if after else None
        if record is None:
            raise OSError(f"{self.path}: there is no whole record at byte {offset}")
        return record, after

    def following(self, offset: int) -> int:
        """Return where the record behind a damaged one begins; 0 if that is not known."""
        try:
            return self._after(offset, os.fstat(self._handle).st_size)
        except OSError:
            return 0

    def sync(self) -> None:
        """Have the disk hold all records.

        Raises
        ------
        OSError
            If it does not.
        """
        os.fsync(self._handle)

    def close(self) -> None:
        """Give the file back; to read or write raises OSError from now on."""
        self._fd = -1  # the number may soon be that of another file
        self._close()

    @property
    def _handle(self) -> int:
        if self._fd < 0:
            raise OSError(errno.EBADF, "it was closed", str(self.path))
        return self._fd

    def _after(self, offset: int, size: int) -> int:
        """Return where a record ends, whole or not; 0 if its length cannot be right."""
        if size - offset < _HEADER.size:
            return 0
        header = self._read(_HEADER.size, offset)
        length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else 0
        # A disk that lost power leaves zeros at the end: an empty record would pass the check.
        right = 0 < length <= size - offset - _HEADER.size
        return offset + _HEADER.size + length if right else 0

    def _whole(self, offset: int, after: int) -> bytes | None:
        data = self._read(_HEADER.size, offset)
        length = after - offset - _HEADER.size
        record = self._read(length, offset + _HEADER.size)
        whole = len(record) == length and zlib.crc32(record) == _HEADER.unpack(data)[1]
        return record if whole else None

    def _read(self, length: int, offset: int) -> bytes:
        data = os.pread(self._handle, min(length, _MOST), offset)
        if len(data) in (0, length):
            return data
        return data + self._read(length - len(data), offset + len(data))

    def _write(self, data: bytes, offset: int) -> None:
        left = memoryview(data)
        while left:
            written = os.pwrite(self._handle, left[:_MOST], offset)
            left, offset = left[written:], offset + written
