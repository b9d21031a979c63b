"""Writes frames as ptychodus takes them: an npz of patterns, and positions as csv.

Keys and columns are those of its plug-ins "NPZ" (diffraction: patterns, indexes, bad_pixels) and
"CSV" (positions: y, x in metres, no header, the line is the index), ptychodus 1.7.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .record import ExportRun
from .target import growing, require_free


def positions_beside(path: Path) -> Path:
    """Return the file of positions that belongs to one of patterns."""
    return path.with_name(f"{path.stem}_positions.csv")


def write_ptychodus(
    run: ExportRun,
    path: Path,
    *,
    force: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Path:
    """Write patterns, and positions beside them; frame by frame.

    Parameters
    ----------
    run : ExportRun
    path : Path
        ``.npz``.
    force : bool
        Replace files that are there.
    progress : callable
        Told the number of frames that are written.

    Returns
    -------
    Path
        The file of positions.

    Raises
    ------
    DatasetError
        If a file is there already, or a raw frame cannot be read.
    StoreError
        If the disk does not take it, or masks cannot be read.
    """
    beside = positions_beside(path)
    require_free(beside, force=force)
    with (
        growing(path, force=force) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as out,
    ):
        with out.open("patterns.npy", "w", force_zip64=True) as file:
            _begin(file, (len(run), *run.shape))
            for index, frame in enumerate(run.frames()):
                file.write(np.ascontiguousarray(frame.counts, "<f4").tobytes())
                progress(index + 1)
        _add(out, "indexes", np.arange(len(run)))
        _add(out, "bad_pixels", run.static != 0)  # 1 is bad
    with growing(beside, force=force) as part:
        lines = [f"{y!r},{x!r}\n" for y, x in run.positions.tolist()]
        part.write_text("".join(lines))
    return beside


def _begin(file: IO[bytes], shape: tuple[int, ...]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _add(out: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with out.open(f"{name}.npy", "w") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
