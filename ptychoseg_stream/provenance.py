"""What the start document of a derived run says of how its masks were made."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .node.ports import RunInfo
from .node.students import processor
from .profile import Profile
from .science.frame import BoolArray

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
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()
    processing = {
        "software": "ptychoseg_stream",
        "version": version("ptychoseg-stream"),
        "profile": profile.name,
        "trainer": profile.trainer,
        "options": options,
        "options_digest": digest,
        "versions": environment(),
        # What `ptychoseg reproduce` needs, wherever it is called.
        "cache": absolute(profile.cache),
        "pixel_mask": absolute(profile.pixel_mask),
        "pixel_mask_digest": "" if user is None else digest_of(user),
    }
    return lambda start: RunInfo(start["uid"], start, processing)


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


def without_none(value: Any) -> Any:
    """Drop keys whose value is None: start documents must not hold any."""
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    return value
