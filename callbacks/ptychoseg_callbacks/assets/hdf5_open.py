"""Opens a dataset of an HDF5 file link by link, so that no file is opened before it was checked."""

import ctypes
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  # pyright: ignore[reportUnusedImport]  # registers filters
from h5py import h5d, h5f, h5g, h5l, h5o, h5p

from ptychoseg_stream.errors import DatasetError

from .paths import Fence

_MOST_LINKS = 32  # more is a circle
_ATTEMPTS = 20  # 2**20 ns = 1 ms in all
# A name is looked up in what a library is linked to, too: this finds the HDF5 that h5py uses.
_HDF5_LIBRARY = ctypes.CDLL(h5p.__file__)


@dataclass(frozen=True, slots=True)
class OpenDataset:
    """A dataset, and the files that are open because of it.

    Parameters
    ----------
    dataset : h5py.Dataset
        Nothing was read of it yet.
    path : str
        The file that it is in, which external links may have led to.
    files : tuple of h5py.File
        To be closed.
    """

    dataset: h5py.Dataset
    path: str
    files: tuple[h5py.File, ...]

    def close(self) -> None:
        """Close all files."""
        for file in self.files:
            file.close()


def open_dataset(
    path: str, name: str, fence: Fence, locking: bool | None, external_links: bool = True
) -> OpenDataset:
    """Open a dataset for reading, also while it is written in SWMR mode.

    Parameters
    ----------
    path, name : str
        The file, which was checked, and the dataset in it.
    fence : Fence
        Says where external links may lead.
    locking : bool, optional
        See `ReaderOptions`.
    external_links : bool
        Whether links into other files may be followed at all.

    Raises
    ------
    DatasetError
        When a link leads where it must not, or `name` is not a dataset.
    KeyError, OSError, RuntimeError, ValueError
        As h5py, when the file or the dataset is not there (yet), or damaged.
    """
    files = [_open_file(path, locking)]
    with ExitStack() as undo:
        undo.callback(_close, files)
        walker = _Walker(path, name, files, fence, locking, external_links)
        opened = OpenDataset(walker.walk(), walker.path, tuple(files))
        undo.pop_all()
    return opened


def _close(files: Iterable[h5py.File]) -> None:
    for file in files:
        with suppress(RuntimeError):
            file.close()


def led_to(name: str, led_from: str) -> str:
    """Return the path of a file that another file names: as HDF5 finds it, without its searches.

    An absolute name that is not there is looked for beside the file, as files are moved together.
    """
    folder = Path(led_from).parent
    beside = folder / name
    if not beside.exists():
        moved = [folder / Path(name).name, Path(os.path.realpath(led_from)).parent / name]
        beside = next((path for path in moved if path.exists()), beside)
    return str(beside)


def _open_file(path: str, locking: bool | None) -> h5py.File:
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(h5f.LIBVER_LATEST, h5f.LIBVER_LATEST)
    if locking is not None:
        access.set_file_locking(locking, not locking)
    _bound_attempts(access)
    flags = h5f.ACC_RDONLY | h5f.ACC_SWMR_READ
    return h5py.File(h5f.open(os.fsencode(path), flags, access))


def _bound_attempts(access: h5p.PropFAID) -> None:
    """Bound how often HDF5 reads metadata again whose checksum is wrong.

    It does so 100 times and doubles its pause each time: a damaged file, or one that is written
    while it is read, would block for years. h5py has no function for this one.
    """
    set_attempts = getattr(_HDF5_LIBRARY, "H5Pset_metadata_read_attempts", None)
    if set_attempts is not None:
        set_attempts(ctypes.c_int64(access.id), ctypes.c_uint(_ATTEMPTS))


class _Walker:
    """Follows a name from the root of a file; HDF5 itself only ever follows one hard link."""

    def __init__(
        self,
        path: str,
        name: str,
        files: list[h5py.File],
        fence: Fence,
        locking: bool | None,
        external_links: bool,
    ) -> None:
        self.path = path
        self._name = name
        self._files = files
        self._fence = fence
        self._locking = locking
        self._external_links = external_links
        self._links = 0

    def walk(self) -> h5py.Dataset:
        group = self._root()
        steps = list(_steps(self._name))
        while steps:
            step = steps.pop(0).encode()
            if not group.links.exists(step):
                raise KeyError(f"no {step.decode()} in {self.path} on the way to {self._name}")
            kind = group.links.get_info(step).type
            if kind == h5l.TYPE_SOFT:
                target = group.links.get_val(step).decode()
                group = self._root() if target.startswith("/") else group
                steps[:0] = self._followed(target)
            elif kind == h5l.TYPE_EXTERNAL:
                file, target = (os.fsdecode(part) for part in group.links.get_val(step))
                steps[:0] = self._followed(target)
                group = self._led(file)
            elif kind != h5l.TYPE_HARD:
                raise DatasetError(f"{self} goes through a link of a kind that is not read: {kind}")
            elif h5g.get_objinfo(group, step, follow_link=False).type == h5g.DATASET and not steps:
                return self._dataset(group, step)
            else:
                group = self._group(group, step)
        raise DatasetError(f"{self} is a group, not a dataset: name a dataset or another data key")

    def __str__(self) -> str:
        return f"{self.path}:{self._name}"

    def _root(self) -> h5g.GroupID:
        return h5g.open(self._files[-1].id, b"/")

    def _group(self, group: h5g.GroupID, step: bytes) -> h5g.GroupID:
        found = h5o.open(group, step)
        if not isinstance(found, h5g.GroupID):
            raise DatasetError(f"{self} does not lead to a dataset: {step.decode()} is no group")
        return found

    def _followed(self, target: str) -> Iterator[str]:
        self._links += 1
        if self._links > _MOST_LINKS:
            raise DatasetError(f"{self} goes through more than {_MOST_LINKS} links: they circle")
        return _steps(target)

    def _led(self, file: str) -> h5g.GroupID:
        """Go on in another file."""
        path = led_to(file, self.path)
        if not self._external_links:
            raise DatasetError(
                f"{self} leads on to {path}; a source of a virtual dataset may not: "
                "name the dataset itself"
            )
        self._fence.check_led(path, self.path)
        self._files.append(_open_file(path, self._locking))
        self.path = path
        return self._root()

    def _dataset(self, group: h5g.GroupID, step: bytes) -> h5py.Dataset:
        """Open a dataset; other files of it are sought beside its own and nowhere else."""
        found = h5d.open(group, step)
        plist = found.get_create_plist()
        access = h5p.create(h5p.DATASET_ACCESS)
        folder = os.fsencode(Path(self.path).parent)
        if plist.get_layout() == h5d.VIRTUAL:
            access.set_virtual_prefix(folder)
        elif plist.get_external_count():
            access.set_efile_prefix(folder)
        else:
            return h5py.Dataset(found)
        del found, plist  # HDF5 opens no dataset in two ways at a time
        return h5py.Dataset(h5d.open(group, step, access))


def _steps(name: str) -> Iterator[str]:
    return (step for step in name.split("/") if step not in ("", "."))
