"""Documents out of a file that somebody recorded: JSON lines or msgpack, plain or gzipped."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeAlias, cast

import msgpack
from event_model import DocumentNames
from msgpack.exceptions import BufferFull, OutOfData, UnpackException
from ptychoseg_callbacks.documents import Document, decode

Note: TypeAlias = Callable[[str], None]
"""Takes one line about something that was left out."""

Named: TypeAlias = tuple[str, Document]
"""Name and document."""

LARGEST = 1 << 29
"""A longer line or record is left out [bytes]: what is read must fit into memory."""

_BLOCK = 1 << 16  # bytes read at once
_GZIP = b"\x1f\x8b"
_LOST_AFTER = 100  # records in a row that are no documents: the file has gone wrong
_NAMES = frozenset(name.value for name in DocumentNames) - {"bulk_events", "bulk_datum"}
_UNREADABLE = (OSError, EOFError, zlib.error)  # of a disk, and of a gzip file
# What decoding bytes of somebody else may raise; a record is then left out.
_UNDECODABLE = (ValueError, TypeError, KeyError, OverflowError, MemoryError, RecursionError)


def open_plain(path: Path) -> BufferedReader | gzip.GzipFile:
    """Open a file for reading; what is gzipped, whatever its name, is unpacked on the way."""
    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
    return gzip.GzipFile(path, "rb") if packed else path.open("rb")


def read_jsonl(path: Path, note: Note) -> Iterator[Named]:
    """Yield the documents of a file that has one per line.

    Parameters
    ----------
    path : Path
        Each line is ``["name", doc]``, as suitcase-jsonl writes it, or ``{"name": name, "doc":
        doc}``, as Bluesky's `JSONLinesWriter` and `JSONWriter` do. Several runs may follow.
    note : callable
        Is told of each line that is no document, with its number; the next line is read.
    """
    number = 0
    try:
        with open_plain(path) as file:
            while line := file.readline(LARGEST):
                number += 1
                if len(line) == LARGEST:
                    _skip_line(file, line)
                    note(f"{path}, line {number}: longer than {LARGEST} bytes, left out")
                    continue
                text = line.strip().rstrip(b",")
                if text in (b"", b"[", b"]"):  # a JSON array with one document per line
                    continue
                try:
                    yield document_of(json.loads(text))
                except _UNDECODABLE as error:
                    note(f"{path}, line {number}: not a document ({_text(error)}), left out")
    except _UNREADABLE as error:
        note(f"{path}, line {number + 1}: cannot read on ({_text(error)}); the rest is left out")


def read_msgpack(path: Path, note: Note) -> Iterator[Named]:
    """Yield the documents of a file of msgpack records; nothing is unpickled.

    Parameters
    ----------
    path : Path
        Records ``[name, doc]``, one behind the other, with arrays as msgpack_numpy writes them:
        the form of suitcase-msgpack and of `DocumentWriter`.
    note : callable
        Is told of each record that cannot be used, with its first byte. The next one is read
        unless it is unknown where that begins.
    """
    count = wrong = start = 0
    try:
        with open_plain(path) as file:
            for start, record in _records(file):
                try:
                    yield document_of(decode(record))
                except _UNDECODABLE as error:
                    note(f"{path}, byte {start}: not a document ({_text(error)}), left out")
                    wrong += 1
                    if record[0] < 0x80 or wrong > _LOST_AFTER:  # a number: no record begins here
                        raise _Unframed(start, "this is not msgpack of documents") from error
                else:
                    count, wrong = count + 1, 0
    except (_Unframed, *_UNREADABLE) as error:
        where = error.byte if isinstance(error, _Unframed) else start
        note(
            f"{path}, byte {where}: cannot read on ({_text(error)}); {count} documents were read, "
            "the rest is left out"
        )


def document_of(value: Any) -> Named:
    """Return name and document of a decoded line or record.

    Raises
    ------
    ValueError
        It is neither ``[name, doc]`` nor ``{"name": name, "doc": doc}``.
    """
    if isinstance(value, dict):
        value = [value.get("name"), value.get("doc")]
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("it is no pair of a name and a document")
    name, doc = value
    if not isinstance(name, str) or name not in _NAMES:
        raise ValueError(f"{str(name)[:40]!r} is no kind of document")
    if not isinstance(doc, dict):
        raise ValueError(f"the {name} is no mapping of keys to values")
    return name, cast(Document, doc)


class _Unframed(Exception):
    """Nobody can tell where the next record begins."""

    def __init__(self, byte: int, reason: str) -> None:
        super().__init__(reason)
        self.byte = byte


class _Kept:
    """A file whose bytes are kept until they are taken."""

    def __init__(self, file: BufferedReader | gzip.GzipFile) -> None:
        self._file = file
        self._first = 0  # of the bytes kept
        self.bytes = bytearray()

    def read(self, size: int = -1) -> bytes:
        block = self._file.read1(size)  # what is there, before a gzip file fails
        self.bytes += block
        return block

    def take(self, stop: int) -> bytes:
        """Return the bytes up to `stop`, counted from the beginning of the file."""
        taken = bytes(self.bytes[: stop - self._first])
        del self.bytes[: len(taken)]
        self._first = stop
        return taken


def _records(file: BufferedReader | gzip.GzipFile) -> Iterator[tuple[int, bytes]]:
    """Yield the first byte of each record, and the record.

    Raises
    ------
    _Unframed
        The next record cannot be told from what comes after it.
    """
    kept = _Kept(file)
    unpacker = msgpack.Unpacker(kept, read_size=_BLOCK, max_buffer_size=LARGEST)
    while True:
        start = unpacker.tell()
        try:
            unpacker.skip()
        except OutOfData as error:
            if not kept.bytes:
                return
            raise _Unframed(start, "the file ends within a document") from error
        except BufferFull as error:
            raise _Unframed(start, f"a document of more than {LARGEST} bytes") from error
        except UnpackException as error:
            raise _Unframed(start, f"not msgpack: {error or type(error).__name__}") from error
        yield start, kept.take(unpacker.tell())


def _skip_line(file: BufferedReader | gzip.GzipFile, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(_BLOCK)


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
