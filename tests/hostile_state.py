"""What a node keeps on disk, tampered with between two of its lives; and profiles."""

import json
import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hostile_support import Case, Stage, images
from ptychoseg_callbacks.documents import encode
from ptychoseg_callbacks.runs.resume import Checkpoint

Tamper = Callable[[Stage, Path], None]


def _journal(name: str, tamper: Tamper, masks: int = 5) -> Case:
    """Return a case that tampers with the folder of a run whose node was killed."""
    return Case(name, "journals", lambda stage: tamper(stage, stage.kept), masks)


def _written(file: str, data: bytes) -> Tamper:
    return lambda stage, folder: _overwrite(folder / file, data)


def _overwrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _flip(file: str, part: float) -> Tamper:
    def tamper(stage: Stage, folder: Path) -> None:
        data = bytearray((folder / file).read_bytes())
        data[int(part * len(data))] ^= 16
        (folder / file).write_bytes(data)

    return tamper


def _cut(file: str, part: float) -> Tamper:
    return lambda stage, folder: os.truncate(
        folder / file, int(part * (folder / file).stat().st_size)
    )


def _about(**changes: Any) -> Tamper:
    def tamper(stage: Stage, folder: Path) -> None:
        about = json.loads((folder / "run.json").read_bytes())
        (folder / "run.json").write_text(json.dumps({**about, **changes}))

    return tamper


def _record(message: Any, first: bool = False) -> Tamper:
    """Write a record with a right checksum behind, or before, all others."""

    def tamper(stage: Stage, folder: Path) -> None:
        made = message(stage) if callable(message) else message
        record = struct.pack("<QI", len(made), zlib.crc32(made)) + made
        path = folder / "documents.log"
        data = path.read_bytes()
        path.write_bytes(record + data if first else data + record)

    return tamper


def _checkpoint(**changes: Any) -> Tamper:
    """Change what is in a checkpoint, and leave its form and its checksums as they are."""

    def tamper(stage: Stage, folder: Path) -> None:
        data = (folder / "checkpoint").read_bytes()
        changed = replace(Checkpoint.unpack(data), **changes).pack()
        parts = zip(data.split(b"\n", 1), changed.split(b"\n", 1), strict=True)
        sums = len("01234567 ")
        (folder / "checkpoint").write_bytes(
            b"\n".join(old[:sums] + new[sums:] for old, new in parts)
        )

    return tamper


def _replaced_by_link(file: str) -> Tamper:
    def tamper(stage: Stage, folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).symlink_to(stage.outside / "secret.raw")

    return tamper


def _replaced_by_folder(file: str) -> Tamper:
    def tamper(stage: Stage, folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return tamper


def _foreign(stage: Stage, folder: Path) -> None:
    """Leave things beside the folder, and in it, that are none of ours."""
    runs = folder.parent
    (runs / "a file").write_bytes(b"x")
    (runs / "a folder").mkdir()
    (runs / "a folder" / "lock").touch()
    (runs / "a circle").symlink_to(runs / "a circle")
    (runs / "away").symlink_to(stage.outside)
    os.mkfifo(runs / "a fifo")
    os.mkfifo(folder / "another fifo")
    shutil.copytree(stage.outside, folder / "copy")


_DEEP = b"[" * 200_000

JOURNALS = (
    _journal("no checkpoint", lambda stage, folder: (folder / "checkpoint").unlink()),
    _journal("an empty checkpoint", _written("checkpoint", b"")),
    _journal("a checkpoint of noise", _written("checkpoint", np.random.default_rng(5).bytes(9999))),
    _journal("a checkpoint that was cut off", _cut("checkpoint", 0.5)),
    *(
        _journal(f"a checkpoint with a wrong bit at {part:.0%}", _flip("checkpoint", part))
        for part in (0.0001, 0.3, 0.6, 0.9, 0.9999)
    ),
    _journal("a checkpoint that is a pickle", lambda stage, folder: _overwrite(
        folder / "checkpoint", pickle.dumps(stage.bomb())
    )),
    _journal("a checkpoint that is a folder", _replaced_by_folder("checkpoint")),
    _journal("a checkpoint from behind the end", _checkpoint(next=10**12)),
    _journal("a checkpoint of a uid that climbs", _checkpoint(derived="../../x", target="other")),
    _journal("a checkpoint whose account is absurd", _checkpoint(tally={"received": -5})),
    _journal("a run.json of noise", _written("run.json", b"\xff\0{"), masks=0),
    _journal("a run.json nested two hundred thousand deep", _written("run.json", _DEEP), masks=0),
    _journal("a run.json that is a list", _written("run.json", b"[]"), masks=0),
    _journal("a run.json of a uid that climbs", _about(derived="../../escaped"), masks=0),
    _journal("a run.json of a time that never was", _about(began=float("nan"))),
    _journal("a run.json of a raw uid that is a number", _about(raw=5), masks=0),
    _journal("a journal that was cut off", _cut("documents.log", 0.7)),
    _journal("a journal with a wrong bit", _flip("documents.log", 0.7)),
    _journal("a journal with noise behind", lambda stage, folder: _overwrite(
        folder / "documents.log", (folder / "documents.log").read_bytes() + b"\xff" * 999
    )),
    _journal("a journal with a pickle in it", _record(
        lambda stage: pickle.dumps(["event", stage.bomb(), 1.0, 1])
    ), masks=0),
    _journal("a journal with an array of objects in it", _record(lambda stage: encode(["event", {
        b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1],
        b"data": pickle.dumps(stage.bomb()),
    }, 1.0, 1])), masks=0),
    _journal("a journal with a record that is no list", _record(encode(7)), masks=0),
    _journal("a journal with a name that is a list", _record(encode([["event"], {}, 1.0, 1])),
             masks=0),
    _journal("a journal with a document that is none", _record(
        encode(["event", None, "x", None])
    ), masks=0),
    _journal("a journal that begins with an event", _record(encode(["event", {}, 1.0, 1]), True),
             masks=0),
    _journal("a journal that is a link out of its folder", _replaced_by_link("documents.log"),
             masks=0),
    _journal("a journal that is a folder", _replaced_by_folder("documents.log"), masks=0),
    _journal("a journal that is gone", lambda stage, folder: (folder / "documents.log").unlink(),
             masks=0),
    _journal("files of somebody else among the journals", _foreign),
    _journal("a list of finished runs of noise", lambda stage, folder: _overwrite(
        folder.parent / "finished", b"\xff\0\n" + _DEEP + b"\n[1, 2, 3]\n"
    )),
    _journal("a list of finished runs that is a folder",
             lambda stage, folder: (folder.parent / "finished").mkdir()),
)  # fmt: skip


def _spool(name: str, tamper: Tamper) -> Case:
    """Return a case that tampers with masks that wait for the server."""
    return Case(name, "spool", lambda stage: tamper(stage, stage.kept), 0)


def _segment(folder: Path) -> Path:
    return min(folder.glob("rows-*.h5"))


def _segment_of(data: bytes) -> Tamper:
    return lambda stage, folder: _overwrite(_segment(folder), data)


def _segment_linked(stage: Stage, folder: Path) -> None:
    path = _segment(folder)
    with h5py.File(path, "a") as file:
        del file["mask"]
        file["mask"] = h5py.ExternalLink(str(stage.outside / "secret.h5"), "/frames")


def _segment_odd(stage: Stage, folder: Path) -> None:
    with h5py.File(_segment(folder), "a") as file:
        del file["mask"]
        file["mask"] = images()  # of another shape, dtype and length
        file.attrs["first"] = 10**12


def _segment_huge(stage: Stage, folder: Path) -> None:
    with h5py.File(_segment(folder), "a") as file:
        del file["mask"]
        file.create_dataset("mask", (10**6, 10**4, 10**4), "u1", chunks=(1, 100, 100))


SPOOL = (
    _spool("a segment of noise", _segment_of(np.random.default_rng(6).bytes(9999))),
    _spool("an empty segment", _segment_of(b"")),
    _spool("a segment that was cut off", lambda stage, folder: os.truncate(_segment(folder), 2000)),
    _spool("a segment that links out of the spool", _segment_linked),
    _spool("a segment of another shape", _segment_odd),
    _spool("a segment of petabytes declared", _segment_huge),
    _spool("a segment that is a FIFO", lambda stage, folder: (
        _segment(folder).unlink(), os.mkfifo(folder / "rows-000000000000-000000000003.h5")
    )),
    _spool("a segment of a name that counts on", lambda stage, folder: shutil.copy(
        _segment(folder), folder / "rows-000000000003-999999999999.h5"
    )),
    _spool("a spooled run of noise", _written("run.json", b"\xff\0{")),
    _spool("a spooled run nested two hundred thousand deep", _written("run.json", _DEEP)),
    _spool("a spooled run of a uid that climbs", _about(derived="../../escaped")),
    _spool("a spooled run of metadata that are absurd", _about(
        start={"tiled_access_tags": 5, "sample": [[[1]]]}, processing={"a.b": None}
    )),
    _spool("an ending of noise", _written("stop.json", b"\xff\0{")),
    _spool("an ending nested two hundred thousand deep", _written("stop.json", _DEEP)),
    _spool("files of somebody else among the masks", lambda stage, folder: (
        (folder.parent / "file").touch(),
        (folder.parent / "away").symlink_to(stage.outside),
        (folder / "rows-x-y.h5").touch(),
        (folder / "rows-1.h5").mkdir(),
    )),
)  # fmt: skip


def _profile(name: str, text: str | Callable[[Stage], str]) -> Case:
    def feed(stage: Stage) -> None:
        made = text if isinstance(text, str) else text(stage)
        (stage.root / "hostile.yml").write_bytes(made.encode("utf-8", "surrogateescape"))

    return Case(name, "profiles", feed, 0)


def _mkdir(tag: str) -> Callable[[Stage], str]:
    return lambda stage: f"name: !!python/{tag} ['{stage.executed}']\n"


def _laughs(stage: Stage) -> str:
    lines = ["- &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "name:\n" + "\n".join(lines) + "\n"


PROFILES = (
    _profile("a tag that calls a function", _mkdir("object/apply:os.mkdir")),
    _profile("a tag that makes an object", _mkdir("object/new:os.mkdir")),
    _profile("a tag that names a function", "name: !!python/name:os.system\n"),
    _profile("a tag that imports a module", "name: !!python/module:antigravity\n"),
    _profile("a tag of nobody", "name: !secret /etc/passwd\n"),
    _profile("aliases that grow a billion times", _laughs),
    _profile("an alias of itself", "name: &a [*a]\n"),
    _profile("a list in place of a profile", "- a\n- b\n"),
    _profile("a key that is a list", "? [a, b]\n: 5\n"),
    _profile("bytes that are no text", "name: \udcff\udcfe\n"),
    _profile("braces nested ten thousand deep", "name: " + "[" * 10_000),
    _profile("values of wrong kinds", "frames: {roots: 5, max_gap: -1}\nbatch: many\n"),
)
