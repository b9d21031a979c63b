"""What a run says about how it was made, so that it can be made again."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ptychoseg_callbacks.frames.options import FinderOptions

from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.profile import Profile, load_profile
from ptychoseg_stream.provenance import PACKAGES, describe_with, digest_of
from ptychoseg_stream.sinks.options import TiledOptions


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


BASE = Profile()
SHAPES_ROWS: dict[str, dict[str, Any]] = {
    "node": {"node": NodeOptions(fit_on=3)},
    "frames": {"frames": FinderOptions(data_keys=("other",))},
    "trainer": {"trainer": "inline"},
    "tiled.arrays": {"tiled": TiledOptions(arrays=("mask", "confidence"))},
}


@pytest.mark.parametrize("part", SHAPES_ROWS)
def test_what_shapes_rows_is_part_of_the_settings_of_a_run(part: str) -> None:
    before = describe_with(BASE)({"uid": "raw"}).settings
    now = describe_with(replace(BASE, **SHAPES_ROWS[part]))({"uid": "raw"}).settings
    assert [name for name in before if before[name] != now[name]] == [part]


def test_pixel_mask_and_version_are_part_of_the_settings_of_a_run() -> None:
    user = np.zeros((4, 6), bool)
    before, now = (describe_with(BASE, each)({"uid": "raw"}).settings for each in (None, user))
    assert {name for name in before if before[name] != now[name]} == {"pixel_mask"}
    assert before["version"] == version("ptychoseg-stream")


@pytest.mark.parametrize(
    "changes",
    [
        {"batch": 3},
        {"name": "other", "description": "other", "cache": "", "idle_timeout": 5.0},
        {"frames": FinderOptions(read_timeout=9.0, refill_timeout=9.0, block=2, locking=False)},
        {"tiled": TiledOptions(timeout=3.0, batch_rows=2)},
    ],
    ids=lambda each: next(iter(each)),
)
def test_what_does_not_shape_rows_lets_a_run_be_gone_on_with(changes: dict[str, Any]) -> None:
    one, other = (describe_with(each)({"uid": "raw"}) for each in (BASE, replace(BASE, **changes)))
    assert (one.settings, one.target) == (other.settings, other.target)


def test_where_rows_go_is_the_same_under_all_names_of_this_machine() -> None:
    def target(uri: str, container: str = "a/b") -> str:
        tiled = TiledOptions(uri=uri, container=container)
        return describe_with(replace(BASE, tiled=tiled))({"uid": "raw"}).target

    here = target("http://127.0.0.1:8000")
    assert here == "a/b at localhost:8000"
    assert target("http://localhost:8000/", "/a/b/") == here
    elsewhere = [
        target("http://127.0.0.1:8001"),
        target("https://tiled.example.org"),
        target("https://tiled.example.org/prefix"),
        target("http://127.0.0.1:8000", "a/c"),
    ]
    assert len({here, *elsewhere}) == 5
