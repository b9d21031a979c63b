"""Malformed files of recorded documents, and of frames that documents are made of."""

import gzip
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import h5py
import msgpack
import numpy as np
from hostile_support import SIDE, Case, Run, Stage, images, write_frames
from ptychoseg_callbacks.documents import encode

Make = Callable[[Stage], bytes]


def _documents(run: Run) -> list[list[Any]]:
    return [
        list(each) for each in (run.start(), run.descriptor(), run.event(), run.event(), run.stop())
    ]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else str(value)


def _lines(name: str, line: Make, suffix: str = ".jsonl", packed: bool = False) -> Case:
    """Return a case of a line between good ones."""

    def feed(stage: Stage) -> None:
        lines = [json.dumps(doc, default=_plain).encode() for doc in _documents(stage.run())]
        lines.insert(3, line(stage))
        data = b"\n".join(lines) + b"\n"
        stage.path(suffix).write_bytes(gzip.compress(data) if packed else data)

    return Case(name, "recordings", feed)


def _records(name: str, record: Make, masks: int = 2) -> Case:
    """Return a case of a msgpack record between good ones."""

    def feed(stage: Stage) -> None:
        records = [encode(doc) for doc in _documents(stage.run())]
        records.insert(3, record(stage))
        stage.path(".msgpack").write_bytes(b"".join(records))

    return Case(name, "recordings", feed, masks)


def _frames(name: str, write: Callable[[Stage], None], masks: int = 0) -> Case:
    return Case(name, "recordings", write, masks)


def _cxi(stage: Stage, **datasets: Any) -> None:
    """Write a CXI file with two frames, and other datasets; ``a__b`` is ``a/b``."""
    with h5py.File(stage.path(".cxi"), "w", libver="latest") as file:
        file["entry_1/data_1/data"] = images()[:2]
        for name, value in datasets.items():
            _put(file, f"entry_1/{name.replace('__', '/')}", value)


def _put(file: h5py.File, path: str, value: Any) -> None:
    if isinstance(value, tuple):
        file.create_dataset(path, value, "f8", chunks=True)
    else:
        file[path] = value


def _link_out(stage: Stage) -> Any:
    return h5py.ExternalLink(str(stage.outside / "secret.h5"), "/frames")


def _linked_frames(stage: Stage) -> None:
    with h5py.File(stage.path(".cxi"), "w") as file:
        file["entry_1/data_1/data"] = _link_out(stage)


def _linked_fifo(stage: Stage) -> None:
    os.mkfifo(fifo := stage.root / "fifo")
    _cxi(stage, data_1__translation=h5py.ExternalLink(str(fifo), "/x"))


def _circle(stage: Stage) -> None:
    with h5py.File(stage.path(".h5"), "w") as file:
        group = file.create_group("a")
        group["b"] = file["/"]
        group["c"] = h5py.SoftLink("/a")
        file.attrs["default"] = "a"
        group.attrs["default"] = "b"
        file["frames"] = images()[:2]


def _array_file(stage: Stage) -> None:
    np.save(stage.path(".npy"), np.array([[[stage.bomb()]]]), allow_pickle=True)


def _declared_array(stage: Stage) -> None:
    header = f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({10**9}, {SIDE}, {SIDE})}}"
    head = header.encode().ljust(117) + b"\n"
    stage.path(".npy").write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)


def _bomb_file(stage: Stage) -> None:
    stage.path(".jsonl").write_bytes(gzip.compress(bytes(1 << 30), 1))


RECORDINGS = (
    _lines("a line of noise", lambda stage: b"\x00\xff{[" * 99),
    _lines("a line of braces nested a hundred thousand deep", lambda stage: b"[" * 100_000),
    _lines("a line of a number without end", lambda stage: b'["event", {"seq_num": ' + b"9" * 9999
           + b"}]"),
    _lines("a line that names no document", lambda stage: b'["__import__", {}]'),
    _lines("a line of a number that is none", lambda stage: b'["event", NaN]'),
    _lines("a line of another kind", lambda stage: b'{"name": ["event"], "doc": 5}'),
    _lines("a gzipped line of noise", lambda stage: b"\xff" * 99, packed=True),
    _records("a record that is a pickle", lambda stage: pickle.dumps(stage.bomb()), masks=1),
    _records("a record of an array of objects", lambda stage: encode(["event", {}]).replace(
        b"\x80", msgpack.packb({"data": {b"nd": True, b"type": "|O", b"kind": b"O",
                                         b"shape": [1], b"data": pickle.dumps(stage.bomb())}})
    )),
    _records("a record of an extension type", lambda stage: msgpack.packb(
        ["event", msgpack.ExtType(7, b"x")]
    )),
    _records("a record of two gigabytes declared", lambda stage: b"\xc6\x7f\xff\xff\xff", masks=1),
    _records("a record nested a thousand deep", lambda stage: b"\x91" * 1000 + b"\xc0"),
    # A line may be of half a gigabyte, and is copied once.
    replace(_frames("a gzip file that inflates a thousand times", _bomb_file), memory=3 << 29),
    _frames("a CXI file whose frames are out of the root", _linked_frames),
    _frames("a CXI file whose positions are out of the root", lambda stage: _cxi(
        stage, data_1__translation=_link_out(stage)
    ), masks=2),
    _frames("a CXI file whose positions are in a FIFO", _linked_fifo, masks=2),
    _frames("a CXI file of ten to the ninth positions", lambda stage: _cxi(
        stage, data_1__translation=(10**9, 3)
    ), masks=2),
    _frames("a CXI file of absurd facts", lambda stage: _cxi(
        stage, instrument_1__source_1__energy=np.full(1, np.nan), title="x" * 10**6,
        start_time=b"\xff\xfe", sample_1__name=(10**9,), entry_identifier=np.full((3, 3), b"y"),
    ), masks=2),
    _frames("an HDF5 file whose groups go in circles", _circle, masks=2),
    _frames("an HDF5 file that was cut off", lambda stage: os.truncate(
        write_frames(stage.path(".h5")), 3000
    )),
    _frames("an array file of objects", _array_file),
    _frames("an array file that is larger than its bytes", _declared_array),
)  # fmt: skip
