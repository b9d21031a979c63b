"""What a profile asks of this machine: folders, disk, files, processor, packages."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hdf5plugin
import torch

from ..errors import DatasetError
from ..node.spool import SpoolOptions
from ..profile import Profile
from ..sources.arrays.pixel_mask import read_pixel_mask
from .check import Check, fail, note, ok
from .leftovers import leftover_checks

GIBIBYTE = 1 << 30


def machine_checks(profile: Profile) -> Iterator[Check]:
    """Look at what is on this machine; nothing is left behind but folders that were missing."""
    yield from _spool(profile.spool)
    yield from leftover_checks(profile.spool, profile.name)
    yield _cache(profile.cache)
    yield from _folders(profile)
    if profile.pixel_mask:
        yield _pixel_mask(profile.pixel_mask)
    yield _filters()
    yield _processor()


def _spool(options: SpoolOptions) -> Iterator[Check]:
    for name, folder in (("journal", options.runs), ("mask spool", options.masks)):
        yield _writable(name, folder, "choose another `spool.folder`, on a local disk")
    folder = _existing(options.runs)
    free = shutil.disk_usage(folder).free
    text = f"{free / GIBIBYTE:.1f} GiB free at {folder}"
    if free < options.min_free_bytes:
        yield fail(
            "disk space",
            f"{text}, `spool.min_free_bytes` wants {options.min_free_bytes / GIBIBYTE:.1f}",
            "free some, choose another `spool.folder`, or lower the limit",
        )
    elif free < 10 * options.min_free_bytes:
        yield note("disk space", text, "enough for now; masks wait here while Tiled is down")
    else:
        yield ok("disk space", text)


def _cache(folder: str) -> Check:
    if not folder:
        return note(
            "cache",
            "centroids and students are kept in memory only (`cache` is empty)",
            "name a folder, or `ptychoseg reproduce` cannot make masks again",
        )
    return _writable("cache", Path(folder).expanduser(), "choose another `cache`")


def _writable(name: str, folder: Path, advice: str) -> Check:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"ptychoseg")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return fail(name, f"{folder} cannot be written: {error.strerror or error}", advice)
    return ok(name, f"{folder} can be written")


def _existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _folders(profile: Profile) -> Iterator[Check]:
    """Folders that frames are read from."""
    for there, here in profile.frames.root_map.items():
        yield _readable("root_map", Path(here), f"it stands for {there}", "frames.root_map")
    for root in profile.frames.roots:
        yield _readable("roots", Path(root), "frames are read from it", "frames.roots")
    if not profile.frames.roots:
        yield note(
            "roots",
            "documents may name files anywhere on this machine (`frames.roots` is empty)",
            "list the folders that detectors write to, where documents come over a network",
        )


def _readable(name: str, folder: Path, what: str, key: str) -> Check:
    if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK):
        return ok(name, f"{folder} can be read; {what}")
    return fail(
        name, f"{folder} is no folder that can be read; {what}", f"mount it, or correct `{key}`"
    )


def _pixel_mask(target: str) -> Check:
    try:
        mask = read_pixel_mask(target)
    except DatasetError as error:
        return fail("pixel mask", str(error), "correct `pixel_mask` of the profile")
    bad, shape = int(mask.sum()), " x ".join(map(str, mask.shape))
    return ok("pixel mask", f"{target}: {shape} pixels, {bad} of them never used")


def _filters() -> Check:
    return ok("HDF5 filters", f"Bitshuffle, LZ4 and others from {Path(hdf5plugin.PLUGIN_PATH)}")


def _processor() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if torch.cuda.is_available():
        return ok("processor", f"{cores} cores; GPU {torch.cuda.get_device_name(0)} is seen")
    advice = "" if (cores or 1) > 1 else "a scan and a node want one each"
    return note("processor", f"{cores} cores, no GPU seen: students learn on the CPU", advice)
