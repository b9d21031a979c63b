"""What a run says about how it was made, so that it can be made again."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from ptychoseg_stream.profile import Profile, load_profile
from ptychoseg_stream.provenance import PACKAGES, describe_with, digest_of


def test_folders_and_files_are_named_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes a mask again may be in another folder, or another user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    profile = Profile(cache="~/cache", pixel_mask="bad.h5:mask")
    processing = describe_with(profile)({"uid": "raw"}).processing
    assert processing["cache"] == str(tmp_path / "me" / "cache")
    assert processing["pixel_mask"] == f"{tmp_path / 'bad.h5'}:mask"
    nothing = describe_with(replace(profile, cache="", pixel_mask=""))({"uid": "raw"}).processing
    assert (nothing["cache"], nothing["pixel_mask"], nothing["pixel_mask_digest"]) == ("", "", "")


def test_versions_and_processor_are_named() -> None:
    versions = describe_with(load_profile("demo"))({"uid": "raw"}).processing["versions"]
    assert {name: versions[name] for name in PACKAGES} == {n: version(n) for n in PACKAGES}
    assert len(versions["processor"].split()) >= 2


def test_pixel_mask_has_a_digest_of_its_own() -> None:
    user = np.zeros((4, 6), bool)
    user[1, 2] = True
    described = describe_with(Profile(), user)({"uid": "raw"}).processing
    assert described["pixel_mask_digest"] == digest_of(user)
    others = [user.T, user.reshape(3, 8), ~user, np.zeros_like(user)]
    assert len({digest_of(each) for each in [user, *others]}) == 5
