"""Which dataset of an HDF5 file holds the frames, and what the file says about the scan."""

from collections.abc import Iterator
from math import prod
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from ptychoseg_callbacks.assets.hdf5_open import led_to
from ptychoseg_callbacks.assets.paths import Fence

from ...errors import DatasetError

CXI_FRAMES = ("entry_1/data_1/data", "entry_1/instrument_1/detector_1/data")
CXI_TRANSLATION = ("entry_1/data_1/translation", "entry_1/sample_1/geometry_1/translation")
CXI_ENERGY = "entry_1/instrument_1/source_1/energy"
JOULE_PER_EV = 1.602176634e-19
FRAME_DIMS = (3, 4)
NUMERIC_KINDS = "iuf"
_MOST_LINKS = 32  # more is a circle
_MOST_POSITIONS = 10**7


def find_frames(file: h5py.File) -> str:
    """Return the path of the dataset that holds the frames.

    In this order: what NeXus attributes point to (``default``, ``signal``), the places of the CXI
    format, the largest numeric dataset of three or four dimensions. Links are followed.

    Raises
    ------
    DatasetError
        The file has no such dataset.
    """
    marked = _nexus_signal(file)
    if marked and _fits(get_dataset(file, marked)):
        return marked
    for path in CXI_FRAMES:
        if _fits(get_dataset(file, path)):
            return path
    found = {path: prod(d.shape) for path, d in _datasets(file) if _fits(d)}
    if not found:
        held = ", ".join(f"/{path} {d.shape} {d.dtype}" for path, d in _datasets(file)) or "nothing"
        raise DatasetError(
            f"{file.filename}: no numeric dataset of 3 or 4 dimensions (frames, height, width), "
            f"only {held}; give a file with a stack of frames"
        )
    return max(found, key=lambda path: found[path])


def candidates(file: h5py.File) -> list[str]:
    """Return the paths of all datasets that could hold frames."""
    return [path for path, dataset in _datasets(file) if _fits(dataset)]


def get_dataset(file: h5py.File, path: str) -> h5py.Dataset | None:
    """Return the dataset at `path`; None when nothing, a group or a dangling link is there."""
    node = lookup(file, path)
    return node if isinstance(node, h5py.Dataset) else None


def get_own_dataset(file: h5py.File, path: str) -> h5py.Dataset | None:
    """Return the dataset at `path` if its values are in the file that it is in."""
    dataset = get_dataset(file, path)
    return None if dataset is None or dataset.is_virtual or dataset.external else dataset


def lookup(group: h5py.Group, path: str, links: int = _MOST_LINKS) -> Any:
    """Return the group or dataset at `path`; None when there is none.

    HDF5 would open whatever file an external link names, a device or FIFO too. Here it must be a
    regular file beside the one that names it, or below.
    """
    node: Any = group
    steps = _steps(path)
    try:
        while steps and isinstance(node, h5py.Group):
            step = steps.pop(0)
            link: Any = node.get(step, getlink=True)
            if isinstance(link, h5py.HardLink):
                node = node[step]
                continue
            links -= 1
            if links < 0 or link is None:
                return None
            if isinstance(link, h5py.SoftLink):
                node = node.file if link.path.startswith("/") else node
                steps = [*_steps(link.path), *steps]
            else:
                other = led_to(link.filename, node.file.filename)
                Fence().check_led(other, node.file.filename)
                node = lookup(h5py.File(other, "r"), link.path, links)
    except (KeyError, OSError, ValueError, RuntimeError, DatasetError):
        return None
    return None if steps else node


def _steps(path: str) -> list[str]:
    return [step for step in path.split("/") if step not in ("", ".")]


def find_positions(file: h5py.File, n_frames: int) -> NDArray[np.float64] | None:
    """Return ``(n, 2)`` y and x of each frame [m], as a CXI file has them; None if it has not."""
    for path in CXI_TRANSLATION:
        dataset = get_own_dataset(file, path)
        if dataset is None or n_frames > _MOST_POSITIONS or dataset.shape[:1] != (n_frames,):
            continue
        if dataset.ndim == 2 and dataset.dtype.kind in NUMERIC_KINDS:
            return np.asarray(dataset[:, :2], np.float64)[:, ::-1]  # CXI: x, y, z
    return None


def find_energy(file: h5py.File) -> float | None:
    """Return the photon energy [eV] of a CXI file; None if it has none."""
    dataset = get_own_dataset(file, CXI_ENERGY)
    if dataset is None or dataset.size != 1 or dataset.dtype.kind not in NUMERIC_KINDS:
        return None
    return float(np.asarray(dataset[()]).reshape(())) / JOULE_PER_EV


def _fits(dataset: h5py.Dataset | None) -> bool:
    return (
        dataset is not None
        and dataset.ndim in FRAME_DIMS
        and dataset.dtype.kind in NUMERIC_KINDS
        and 0 not in dataset.shape
    )


def _nexus_signal(file: h5py.File) -> str:
    """Return the path that the ``default`` and ``signal`` attributes lead to, else any NXdata's."""
    group: h5py.Group = file
    for _ in range(8):  # a chain of defaults that goes on for longer is a circle
        signal = _attribute(group, "signal")
        if signal:
            return f"{group.name}/{signal}".lstrip("/")
        child = lookup(group, _attribute(group, "default") or "\0")
        if not isinstance(child, h5py.Group):
            break
        group = child
    for path, node in _walk(file, set()):
        if isinstance(node, h5py.Group) and _attribute(node, "NX_class") == "NXdata":
            signal = _attribute(node, "signal")
            if signal and _fits(get_dataset(file, f"{path}/{signal}")):
                return f"{path}/{signal}"
    return ""


def _attribute(group: h5py.Group, name: str) -> str:
    value: Any = group.attrs.get(name, "")
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else ""


def _datasets(file: h5py.File) -> list[tuple[str, h5py.Dataset]]:
    return [(path, node) for path, node in _walk(file, set()) if isinstance(node, h5py.Dataset)]


def _walk(
    group: h5py.Group, seen: set[h5py.Group], prefix: str = ""
) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Yield every group and dataset once, datasets behind soft and external links too."""
    for name in group:
        path = f"{prefix}{name}"
        node = lookup(group, name)
        hard = isinstance(group.get(name, getlink=True), h5py.HardLink)
        if isinstance(node, h5py.Dataset):
            if hard or node.file.filename != group.file.filename:
                yield path, node
        elif isinstance(node, h5py.Group) and hard and node not in seen:
            seen.add(node)  # hard links may form a circle
            yield path, node
            yield from _walk(node, seen, f"{path}/")
