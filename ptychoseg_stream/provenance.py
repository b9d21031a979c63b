"""What the start document of a derived run says of how its masks were made."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from .node.ports import RunInfo
from .node.students import processor
from .profile import Profile
from .science.experiment import experiment_of
from .science.frame import BoolArray
from .sinks.connection import LOOPBACK
from .sinks.options import TiledOptions

PACKAGES = (
    "bluesky",
    "h5py",
    "minisom",
    "numpy",
    "scikit-learn",
    "scipy",
    "tiled",
    "torch",
)
HASTE = ("read_timeout", "refill_timeout", "locking", "block")
"""Settings below `frames` that say how files are read, and nothing of what is read."""


def describe_with(
    profile: Profile, user: BoolArray | None = None
) -> Callable[[Mapping[str, Any]], RunInfo]:
    """Return what a sink is told about a run: its start document and how it is processed.

    Parameters
    ----------
    profile : Profile
    user : ndarray of bool, optional
        ``(h, w)`` the user's pixel mask.
    """
    options = without_none(json.loads(json.dumps(asdict(profile.node))))
    processing = {
        "software": "ptychoseg_stream",
        "version": version("ptychoseg-stream"),
        "profile": profile.name,
        "trainer": profile.trainer,
        "options": options,
        "options_digest": _digest(options),
        "versions": environment(),
        # What `ptychoseg reproduce` needs, wherever it is called.
        "cache": absolute(profile.cache),
        "pixel_mask": absolute(profile.pixel_mask),
        "pixel_mask_digest": "" if user is None else digest_of(user),
    }
    settings, target = settings_of(profile, user), target_of(profile.tiled)
    return lambda start: RunInfo(
        start["uid"],
        start,
        processing,
        settings=settings,
        target=target,
        experiment=experiment_of(start, profile.experiment),
    )


def settings_of(profile: Profile, user: BoolArray | None = None) -> dict[str, str]:
    """Return what must be the same to go on with a run: digests of all that shapes its rows.

    Not part of it are the size of batches, limits of time and memory, and what is only said about
    a run.

    Parameters
    ----------
    profile : Profile
    user : ndarray of bool, optional
        ``(h, w)`` the user's pixel mask.
    """
    frames = {k: v for k, v in asdict(profile.frames).items() if k not in HASTE}
    return {
        "version": version("ptychoseg-stream"),
        "node": _digest(without_none(asdict(profile.node))),
        "frames": _digest(frames),
        "pixel_mask": "" if user is None else digest_of(user),
        "trainer": profile.trainer,
        "tiled.arrays": " ".join(sorted(profile.tiled.arrays)),
    }


def target_of(tiled: TiledOptions) -> str:
    """Return where rows go, without a key; the same for all names of this machine."""
    url = httpx.URL(tiled.uri)
    host = "localhost" if url.host in LOOPBACK else url.host
    port = f":{url.port}" if url.port else ""
    return f"{tiled.container.strip('/')} at {host}{port}{url.path.rstrip('/')}"


def environment() -> dict[str, str]:
    """What the last bits of masks depend on: versions of packages, instructions of the processor.

    The latter are named with the widest vector instructions that PyTorch uses, such as AVX2.
    """
    versions = {name: version(name) for name in PACKAGES}
    return {**versions, "processor": processor()}


def absolute(target: str) -> str:
    """Return a folder, FILE or FILE:name with its full path; nothing for nothing."""
    return str(Path(target).expanduser().absolute()) if target else ""


def digest_of(user: BoolArray) -> str:
    """Return the digest of a pixel mask."""
    return hashlib.sha256(repr(user.shape).encode() + np.packbits(user).tobytes()).hexdigest()


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def without_none(value: Any) -> Any:
    """Drop keys whose value is None: start documents must not hold any."""
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    return value
