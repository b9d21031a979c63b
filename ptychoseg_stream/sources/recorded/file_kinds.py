"""Which files a replay is about, and what kind of file each is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import h5py

from ...errors import SourceError
from ..arrays.stack import split_target
from .document_files import open_plain

Kind: TypeAlias = Literal["jsonl", "msgpack", "frames"]

_SUFFIXES: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".msgpack": "msgpack",
    ".mpk": "msgpack",
    **dict.fromkeys((".cxi", ".nxs", ".nx", ".h5", ".hdf5", ".hdf", ".npy"), "frames"),
}
_NPY = b"\x93NUMPY"
_PAIR_OR_MAP = (0x92, 0x82)  # how msgpack begins an array or map of two
_WILD = re.compile(r"[*?\[]")
_HELP = (
    "give files of documents (JSON lines, msgpack) or of frames (CXI, NeXus, HDF5, npy), "
    "a folder of them, or a pattern such as 'scan_*.h5'"
)


@dataclass(frozen=True, slots=True)
class Found:
    """A file to replay.

    Parameters
    ----------
    path : Path
        The file.
    dataset : str
        Which of its datasets; empty: to be searched for.
    named : bool
        Whether the user named this very file: then it must be readable.
    """

    path: Path
    dataset: str = ""
    named: bool = True

    @property
    def target(self) -> str:
        """``FILE`` or ``FILE:/dataset``."""
        return f"{self.path}:{self.dataset}" if self.dataset else str(self.path)


def find_files(targets: Sequence[str]) -> list[Found]:
    """Return the files that are meant, in order.

    Parameters
    ----------
    targets : sequence of str
        Files, folders (the files in them, not in folders below) or patterns, each perhaps with
        ``:/dataset``. Files of a folder or pattern come sorted by name, ``scan_2`` before
        ``scan_10``.

    Raises
    ------
    SourceError
        There is no such file, or an address was given.
    """
    return [found for target in targets for found in _find(target)]


def _find(target: str) -> list[Found]:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", target):
        raise SourceError(f"{target}: an address, not a file; {_HELP}")
    path, dataset = split_target(target)
    path = path.expanduser()
    if path.is_file():
        return [Found(path, dataset)]
    if path.is_dir():
        inside = [each for each in path.iterdir() if not each.name.startswith(".")]
    elif _WILD.search(path.name):
        inside = list(path.parent.glob(path.name))
    else:
        raise SourceError(f"{path}: there is no such file or folder; {_HELP}")
    files = sorted((each for each in inside if each.is_file()), key=_natural)
    if not files:
        raise SourceError(f"{path}: there are no files; {_HELP}")
    return [Found(each, dataset, named=False) for each in files]


def kind_of(path: Path) -> Kind:
    """Return what kind of file this is, by its suffix, else by how it begins.

    Raises
    ------
    SourceError
        It is none that can be replayed, or it cannot be read.
    """
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    if suffixes and suffixes[-1] in _SUFFIXES:
        return _SUFFIXES[suffixes[-1]]
    try:
        with open_plain(path) as file:
            head = file.read(512).lstrip()
        if h5py.is_hdf5(path):
            return "frames"
    except (OSError, EOFError) as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error
    if head.startswith(_NPY):
        return "frames"
    if head[:1] in (b"[", b"{"):
        return "jsonl"
    if head and head[0] in _PAIR_OR_MAP:
        return "msgpack"
    raise SourceError(f"{path}: neither documents nor frames; {_HELP}")


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
