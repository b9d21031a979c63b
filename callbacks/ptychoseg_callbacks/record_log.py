"""A file that only grows, record by record: killing its writer costs the last one at most."""

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

    @property
    def end(self) -> int:
        """Where the next record will begin [bytes]."""
        return self._end

    def recover(self) -> Iterator[tuple[int, bytes, int]]:
        """Yield offset, bytes, and offset of what follows, of each record; cut off the rest.

        Raises
        ------
        OSError
            If the disk cannot be read.
        """
        offset, size = 0, os.fstat(self._fd).st_size
        while (record := self._whole(offset, size)) is not None:
            after = offset + _HEADER.size + len(record)
            yield offset, record, after
            offset = after
        if offset < size:
            os.ftruncate(self._fd, offset)
        self._end = offset

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
            os.ftruncate(self._fd, offset)
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
        record = self._whole(offset, os.fstat(self._fd).st_size)
        if record is None:
            raise OSError(f"{self.path}: there is no whole record at byte {offset}")
        return record, offset + _HEADER.size + len(record)

    def sync(self) -> None:
        """Have the disk hold all records.

        Raises
        ------
        OSError
            If it does not.
        """
        os.fsync(self._fd)

    def close(self) -> None:
        """Give the file back; nothing can be read or written any more."""
        self._close()

    def _whole(self, offset: int, size: int) -> bytes | None:
        if size - offset < _HEADER.size:
            return None
        length, checksum = _HEADER.unpack(self._read(_HEADER.size, offset))
        # A disk that lost power leaves zeros at the end: an empty record would pass the check.
        if not 0 < length <= size - offset - _HEADER.size:
            return None
        record = self._read(length, offset + _HEADER.size)
        return record if len(record) == length and zlib.crc32(record) == checksum else None

    def _read(self, length: int, offset: int) -> bytes:
        data = os.pread(self._fd, min(length, _MOST), offset)
        if len(data) in (0, length):
            return data
        return data + self._read(length - len(data), offset + len(data))

    def _write(self, data: bytes, offset: int) -> None:
        left = memoryview(data)
        while left:
            written = os.pwrite(self._fd, left[:_MOST], offset)
            left, offset = left[written:], offset + written
