"""Malformed files of frames, and names of files that nobody may read."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from hostile_support import KEY, SIDE, Case, Stage, images, write_frames

TIFF = "multipart/related;type=image/tiff"
Make = Callable[[Stage], Any]


def _file(name: str, make: Make, mimetype: str = "", masks: int = 2, **parameters: Any) -> Case:
    """Return a case whose second event has its frame in the file (or URI) that `make` returns."""

    def feed(stage: Stage) -> None:
        run = stage.run()
        good = write_frames(stage.path(".h5"))
        key = {**KEY, "external": "STREAM:", "shape": [1, SIDE, SIDE]}
        run.send(run.start(), run.descriptor(key), run.resource("good", good))
        uri = make(stage)
        kind, doc = run.resource("bad", "file:///none", mimetype, **parameters)
        uri = uri.absolute().as_uri() if isinstance(uri, Path) else uri
        run.send((kind, {**doc, "uri": uri}))
        run.send(run.datum("good", 0, 1), run.datum("bad", 0, 1), run.datum("good", 1, 2))
        run.end()

    return Case(name, "files", feed, masks)


def _resource(name: str, spec: Any, path: Make, datum: Any = None, **kwargs: Any) -> Case:
    """Return a case whose second event names a datum of a resource."""

    def feed(stage: Stage) -> None:
        run = stage.run()
        run.begin()
        run.good()
        doc = {
            "uid": "bad",
            "run_start": run.uid,
            "spec": spec,
            "root": str(stage.root),
            "resource_path": path(stage),
            "resource_kwargs": kwargs,
        }
        run.send(("resource", doc))
        named = {"point_number": 0} if datum is None else datum
        run.send(("datum", {"datum_id": "bad/0", "resource": "bad", "datum_kwargs": named}))
        run.send(run.event("bad/0", filled={"image": False}))
        run.good()
        run.end()

    return Case(name, "files", feed)


def _secret(stage: Stage) -> Path:
    return stage.outside / "secret.h5"


def _climb(stage: Stage) -> str:
    return f"file://{stage.root}/../{stage.outside.name}/secret.h5"


def _symlink(stage: Stage) -> Path:
    path = stage.path(".h5")
    path.symlink_to(_secret(stage))
    return path


def _symlinked_folder(stage: Stage) -> Path:
    folder = stage.path("")
    folder.symlink_to(stage.outside)
    return folder / "secret.h5"


def _external_link(stage: Stage) -> Path:
    with h5py.File(path := stage.path(".h5"), "w") as file:
        file["frames"] = h5py.ExternalLink(str(_secret(stage)), "/frames")
    return path


def _external_link_up(stage: Stage) -> Path:
    with h5py.File(path := stage.path(".h5"), "w") as file:
        file["frames"] = h5py.ExternalLink(f"../{stage.outside.name}/secret.h5", "/frames")
    return path


def _external_storage(stage: Stage) -> Path:
    raw = stage.outside / "secret.raw"
    with h5py.File(path := stage.path(".h5"), "w") as file:
        file.create_dataset(
            "frames", images().shape, "u2", external=[(str(raw), 0, images().nbytes)]
        )
    return path


def _virtual(stage: Stage) -> Path:
    layout = h5py.VirtualLayout(images().shape, "u2")
    layout[:] = h5py.VirtualSource(str(_secret(stage)), "frames", images().shape)
    with h5py.File(path := stage.path(".h5"), "w", libver="latest") as file:
        file.create_virtual_dataset("frames", layout)
    return path


def _virtual_of_link(stage: Stage) -> Path:
    source = _external_link(stage)
    layout = h5py.VirtualLayout(images().shape, "u2")
    layout[:] = h5py.VirtualSource(str(source), "frames", images().shape)
    with h5py.File(path := stage.path(".h5"), "w", libver="latest") as file:
        file.create_virtual_dataset("frames", layout)
    return path


def _virtual_of_itself(stage: Stage) -> Path:
    layout = h5py.VirtualLayout(images().shape, "u2")
    layout[:] = h5py.VirtualSource(".", "frames", images().shape)
    with h5py.File(path := stage.path(".h5"), "w", libver="latest") as file:
        file.create_virtual_dataset("frames", layout)
    return path


def _with_link(target: Any) -> Make:
    def make(stage: Stage) -> Path:
        with h5py.File(path := stage.path(".h5"), "w") as file:
            file["frames"] = target
        return path

    return make


def _fifo(stage: Stage) -> Path:
    os.mkfifo(path := stage.path(".h5"))
    return path


def _folder(stage: Stage) -> Path:
    (path := stage.path(".h5")).mkdir()
    return path


def _bytes(data: bytes, suffix: str = ".h5") -> Make:
    def make(stage: Stage) -> Path:
        (path := stage.path(suffix)).write_bytes(data)
        return path

    return make


def _truncated(stage: Stage) -> Path:
    path = write_frames(stage.path(".h5"))
    os.truncate(path, 3000)  # within the first frame
    return path


def _flipped(stage: Stage) -> Path:
    """Return a file with wrong bits all over its head."""
    path = write_frames(stage.path(".h5"), compression="gzip", fletcher32=True)
    data = bytearray(path.read_bytes())
    for place in np.random.default_rng(3).integers(48, 4096, 200):
        data[place] ^= 255
    path.write_bytes(data)
    return path


def _chunk_bomb(stage: Stage) -> Path:
    path, packer = stage.path(".h5"), zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1 << 10)) + packer.flush()
    with h5py.File(path, "w", libver="latest") as file:
        shape = (1, SIDE, SIDE)
        data = file.create_dataset("frames", shape, "u2", chunks=shape, compression="gzip")
        data.id.write_direct_chunk((0, 0, 0), bomb)
    return path


def _declared(shape: tuple[int, ...], chunks: Any = True) -> Make:
    def make(stage: Stage) -> Path:
        with h5py.File(path := stage.path(".h5"), "w", libver="latest") as file:
            file.create_dataset("frames", shape, "f8", chunks=chunks)
        return path

    return make


def _holding(frames: Any, **options: Any) -> Make:
    return lambda stage: write_frames(stage.path(".h5"), frames() if callable(frames) else frames,
                                      **options)  # fmt: skip


def _references(stage: Stage) -> Path:
    with h5py.File(path := stage.path(".h5"), "w") as file:
        data = file.create_dataset("frames", (1, SIDE, SIDE), h5py.ref_dtype)
        data[0, 0, 0] = file.ref
    return path


def _tiff_of(width: int, height: int, strips: bytes = b"", compression: int = 1) -> bytes:
    """Return a TIFF file by its specification: one strip, tags as given."""
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 16),
        (259, 3, compression),
        (262, 3, 1),
        (273, 4, 200),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, len(strips)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + strips


def _circular_tiff() -> bytes:
    """Return a TIFF whose list of pages leads back to its beginning."""
    data = bytearray(_tiff_of(SIDE, SIDE, bytes(2 * SIDE * SIDE)))
    data[10 + 9 * 12 : 14 + 9 * 12] = struct.pack("<I", 8)
    return bytes(data)


def _tiff(stage: Stage) -> Path:
    path = stage.path(".tiff")
    tifffile.imwrite(path, np.zeros((SIDE, SIDE, 3), np.uint8), photometric="rgb")
    return path


_OUTSIDE = [
    _file("a path that climbs out of the root", _climb),
    _file("a path that climbs out in percent signs", lambda stage: _climb(stage).replace(
        "..", "%2e%2e"
    )),
    _file("an absolute path outside of the root", _secret),
    _file("a symbolic link out of the root", _symlink),
    _file("a symbolic link of a folder", _symlinked_folder),
    _file("an external link out of the root", _external_link),
    _file("an external link that climbs", _external_link_up),
    _file("raw storage out of the root", _external_storage),
    _file("a virtual dataset of a file out of the root", _virtual),
    _file("a virtual dataset of a link out of the root", _virtual_of_link),
    _file("a sequence whose template climbs", lambda stage: f"file://{stage.root}/", mimetype=TIFF,
          template="../outside/secret{:d}.tiff"),
    _file("a sequence whose name climbs", lambda stage: f"file://{stage.root}/", mimetype=TIFF,
          template="%s%s_%d.tiff", filename="../outside/secret"),
    _resource("a resource whose path climbs", "AD_HDF5", lambda stage: "../outside/secret.h5"),
    _resource("a resource of a spec that nobody reads", "os.system", lambda stage: "touch x"),
    _resource("a resource that a handler would read elsewhere", "AD_TIFF",
              lambda stage: "", template="%s%s_%d.tiff", filename="../../outside/secret"),
    _resource("a datum of ten to the thirtieth", "AD_HDF5", lambda stage: "f.h5",
              {"point_number": 10**30}),
    _resource("kwargs that are absurd", "AD_HDF5", lambda stage: "f.h5", frame_per_point=10**15),
]  # fmt: skip

_URIS = [
    *(
        _file(f"the URI {uri}", lambda stage, uri=uri: uri)
        for uri in (
            "http://192.0.2.1/frames.h5",
            "s3://bucket/frames.h5",
            "ftp://192.0.2.1/frames.h5",
            "file://192.0.2.1/share/frames.h5",
            "//server/share/frames.h5",
            "data:application/x-hdf5;base64,AAAA",
            "relative/frames.h5",
        )
    ),
    _file("a UNC path", lambda stage: r"\\server\share\frames.h5"),
    _file("a path with a NUL in it", lambda stage: f"file://{stage.root}/a%00b.h5"),
    _file("a path of a hundred thousand characters", lambda stage: f"file://{stage.root}/" + 50_000
          * "a/"),
    _file("a path that is no text", lambda stage: {"uri": 5}),
    _file("a path that is not there", lambda stage: stage.path(".h5")),
    _file("a file of the kernel", lambda stage: "file:///proc/self/environ"),
    _file("a device", lambda stage: "file:///dev/zero"),
    _file("a mimetype that nobody reads", lambda stage: stage.path(".h5"), "text/x-python"),
]  # fmt: skip

_HDF5 = [
    _file("a FIFO", _fifo),
    _file("a folder", _folder),
    _file("an empty file", _bytes(b"")),
    _file("bytes that are no HDF5", _bytes(np.random.default_rng(4).bytes(100_000))),
    _file("HDF5 that was cut off", _truncated),
    _file("HDF5 with wrong bits", _flipped),
    _file("a chunk that inflates a thousand times", _chunk_bomb),
    _file("a declared dataset of petabytes", _declared((10**6, 10**5, 10**5), (1, 100, 100))),
    _file("a declared chunk of gigabytes", _declared((4, 20_000, 20_000), (2, 10_000, 10_000))),
    _file("a declared dataset of frames that are not there", _declared((10**9, SIDE, SIDE))),
    _file("a dataset of text", _holding(np.full((2, SIDE, SIDE), b"x", "S8"))),
    _file("a dataset of references", _references),
    _file("a dataset of records", _holding(np.zeros((2, SIDE, SIDE), [("a", "u2"), ("b", "f4")]))),
    _file("a dataset of complex numbers", _holding(lambda: images() * 1j)),
    _file("a dataset of one dimension", _holding(np.zeros(9))),
    _file("a dataset without frames", _holding(np.zeros((0, SIDE, SIDE)))),
    _file("frames without pixels", _holding(np.zeros((4, 0, 0)))),
    _file("frames of NaN", _holding(np.full((4, SIDE, SIDE), np.nan))),
    _file("frames of another size in the middle", _holding(np.ones((4, 50, 60), np.uint16))),
    _file("a filter that nobody installed", _bytes(b"\x89HDF\r\n\x1a\n" + bytes(5000))),
    _file("a group in place of a dataset", lambda stage: write_frames(
        stage.path(".h5"), name="frames/data"
    )),
    _file("a soft link that leads to itself", _with_link(h5py.SoftLink("/frames"))),
    _file("a soft link to nowhere", _with_link(h5py.SoftLink("/nowhere"))),
    _file("an external link to a device", _with_link(h5py.ExternalLink("/dev/zero", "/frames"))),
    _file("a virtual dataset of itself", _virtual_of_itself),
    _file("a dataset whose name climbs", lambda stage: write_frames(stage.path(".h5")),
          dataset="../../../frames"),
    _file("a dataset without a name", lambda stage: write_frames(stage.path(".h5")), dataset=5),
    _file("a slice of a dataset", lambda stage: write_frames(stage.path(".h5")), slice="(0,)"),
]  # fmt: skip

_TIFF = [
    _file("bytes that are no TIFF", _bytes(b"II*\0" + bytes(range(256)) * 40, ".tiff"), TIFF),
    _file("a TIFF of ten to the ninth pixels a side", _bytes(_tiff_of(10**9, 10**9), ".tiff"),
          TIFF),
    _file("a TIFF that inflates a thousand times", _bytes(
        _tiff_of(16_000, 2_000, zlib.compress(bytes(64_000_000), 9), 8), ".tiff"
    ), TIFF),
    _file("a TIFF in colour", _tiff, TIFF),
    _file("a TIFF without end", _bytes(_circular_tiff(), ".tiff"), TIFF),
    _file("a TIFF of a compression unheard of", _bytes(_tiff_of(SIDE, SIDE, b"x" * 99, 4711),
          ".tiff"), TIFF),
    _file("a TIFF template that formats", lambda stage: f"file://{stage.root}/", TIFF,
          template="{0.__class__.__mro__}_{:d}.tif"),
    _file("a TIFF template as wide as memory", lambda stage: f"file://{stage.root}/", TIFF,
          template="%999999999d.tif"),
]  # fmt: skip

FILES = (*_OUTSIDE, *_URIS, *_HDF5, *_TIFF)
