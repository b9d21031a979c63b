"""What the documents say about files of frames: resource and stream_resource, read with care."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ptychoseg_stream.errors import DatasetError

from ..documents import Document
from .keys import ImageKey

HDF5 = "application/x-hdf5"
TIFF = "multipart/related;type=image/tiff"

# Where the writers of these specs put their frames, unless the documents name a dataset.
_HDF5_SPECS = {
    "AD_HDF5": "/entry/data/data",
    "AD_HDF5_SINGLE": "/entry/data/data",
    "AD_HDF5_SWMR": "/entry/data/data",
    "AD_HDF5_SWMR_STREAM": "",  # the datum says it
    "AD_HDF5_SWMR_SLICE": "",
    "HDF5": "/entry/data/data",
    "TPX_HDF5": "/entry/instrument/detector/data",
}
_TIFF_SPECS = ("AD_TIFF",)
_TIFF_TYPES = (TIFF, "image/tiff")
_MOST_FRAMES = 2**20  # per point or per file; more is a damaged document


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, or sequence of files, of frames as the documents describe it; nothing is opened yet.

    Frames of an asset are counted over the whole of it, from 0: point p of a scan is frames
    ``[p * frames_per_point, (p + 1) * frames_per_point)``, however many axes the dataset has and
    however many files there are.

    Parameters
    ----------
    uri : str
        ``file:`` URI or path, as the documents spell it (a resource's root is part of it).
    mimetype : str
        `HDF5`, `TIFF`, or whatever else a stream_resource says; "" if a handler must read it.
    spec : str
        Of a resource; empty for a stream_resource.
    dataset : str
        Of an HDF5 file; empty where each datum names its own.
    frames_per_point : int
        Frames per event.
    shape : tuple of int
        ``(H, W)`` as declared; 0 where it is not known.
    dtype : str
        As declared, spelt by NumPy; empty if unknown.
    chunk_shape : tuple of int
        As declared; empty if unknown.
    template, filename : str
        How the files of a sequence are named; no template: one file.
    frames_per_file : int
        Of a sequence.
    kwargs : mapping
        All ``resource_kwargs`` or ``parameters``.
    """

    uri: str
    mimetype: str = ""
    spec: str = ""
    dataset: str = ""
    frames_per_point: int = 1
    shape: tuple[int, int] = (0, 0)
    dtype: str = ""
    chunk_shape: tuple[int, ...] = ()
    template: str = ""
    filename: str = ""
    frames_per_file: int = 1
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def span(self, datum_kwargs: Mapping[str, Any]) -> range | None:
        """Return the frames that a datum names; None where only a handler knows.

        Raises
        ------
        DatasetError
            When the numbers in it make no sense.
        """
        if not self.mimetype:
            return None
        where = f"a datum of {self.uri}"
        if isinstance(ends := datum_kwargs.get("indices"), Mapping):
            first = _whole(where, "indices.start", ends.get("start"), 0, _MOST_FRAMES**2)
            last = _whole(where, "indices.stop", ends.get("stop"), first, first + _MOST_FRAMES)
        else:
            names = [name for name in ("point_number", "frame") if name in datum_kwargs]
            if not names:
                keys = ", ".join(map(str, datum_kwargs)) or "nothing"
                raise DatasetError(
                    f"{where} names no frame: it has {keys} instead of point_number, frame or "
                    "indices; install a handler for its spec (group databroker.handlers)"
                )
            first = _whole(where, names[0], datum_kwargs[names[0]], 0, _MOST_FRAMES**2)
            last = first + 1
        return range(first * self.frames_per_point, last * self.frames_per_point)


def asset_of_stream_resource(doc: Document, key: ImageKey | None = None) -> Asset:
    """Read a stream_resource document.

    Parameters
    ----------
    doc : mapping
        A stream_resource; also of event-model < 1.20, which has spec, root and resource_path.
    key : ImageKey, optional
        The data key its frames are for; says how many frames an event has.

    Raises
    ------
    DatasetError
        When something is missing or makes no sense.
    """
    if "mimetype" not in doc and "spec" in doc:
        return asset_of_resource(doc, key)
    where = f"stream_resource {doc.get('uid')}"
    uri = _text(where, "uri", doc.get("uri"))
    mimetype = _text(where, "mimetype", doc.get("mimetype", HDF5))
    kwargs = _mapping(where, "parameters", doc.get("parameters", {}))
    if kwargs.get("slice"):
        raise DatasetError(
            f"{where} wants slice {kwargs['slice']!r} of {uri}, which is not read: "
            "let the detector write frames to a dataset of their own"
        )
    kind = TIFF if mimetype in _TIFF_TYPES else mimetype
    return _asset(where, uri, kind, "", kwargs, key)


def asset_of_resource(doc: Document, key: ImageKey | None = None) -> Asset:
    """Read a resource document; see `asset_of_stream_resource`."""
    where = f"resource {doc.get('uid')}"
    spec = _text(where, "spec", doc.get("spec"))
    root = _text(where, "root", doc.get("root", ""), empty=True)
    path = _text(where, "resource_path", doc.get("resource_path"), empty=bool(root))
    if doc.get("path_semantics") == "windows" or re.match(r"[A-Za-z]:|\\\\", root + path):
        root, path = root.replace("\\", "/"), path.replace("\\", "/")
    # Writers disagree on whether resource_path begins with a slash; it is below root anyway.
    uri = posixpath.join(root, path.lstrip("/")) if root else path
    kwargs = _mapping(where, "resource_kwargs", doc.get("resource_kwargs") or {})
    kind = HDF5 if spec in _HDF5_SPECS else TIFF if spec in _TIFF_SPECS else ""
    if kind and kwargs.get("template") and not uri.endswith("/"):
        uri += "/"  # these writers name a folder here
    return _asset(where, uri, kind, spec, kwargs, key)


def _asset(
    where: str,
    uri: str,
    mimetype: str,
    spec: str,
    kwargs: Mapping[str, Any],
    key: ImageKey | None,
) -> Asset:
    # "multiplier" and "path" are what older ophyd-async calls them.
    declared = kwargs.get("frame_per_point") or kwargs.get("multiplier") or 1
    per_point = _whole(where, "frame_per_point", declared, 1, _MOST_FRAMES)
    per_point = max(per_point, key.per_event if key else 1)
    chunk_shape = _shape(where, kwargs.get("chunk_shape") or ())
    template = _text(where, "template", kwargs.get("template", ""), empty=True)
    dataset = kwargs.get("dataset") or kwargs.get("path") or _HDF5_SPECS.get(spec, "")
    per_file = _frames_per_file(where, spec, kwargs, chunk_shape, per_point) if template else 1
    return Asset(
        uri=uri,
        mimetype=mimetype,
        spec=spec,
        dataset=_text(where, "dataset", dataset, empty=mimetype != HDF5 or bool(spec)),
        frames_per_point=per_point,
        shape=key.shape if key else (0, 0),
        dtype=key.dtype if key else "",
        chunk_shape=chunk_shape,
        template=template,
        filename=_text(where, "filename", kwargs.get("filename") or "", empty=True),
        frames_per_file=per_file,
        kwargs=dict(kwargs),
    )


def _frames_per_file(
    where: str,
    spec: str,
    kwargs: Mapping[str, Any],
    chunk_shape: tuple[int, ...],
    per_point: int,
) -> int:
    """Return how many frames each file of a sequence holds, as bluesky's consolidators count."""
    if files := kwargs.get("files_per_datum"):
        return max(1, per_point // _whole(where, "files_per_datum", files, 1, _MOST_FRAMES))
    if spec or kwargs.get("multiplier") or kwargs.get("frame_per_point"):
        return 1  # area detector in mode Single: a file per frame
    if len(chunk_shape) == 3 or (chunk_shape and kwargs.get("join_method") == "concat"):
        return chunk_shape[0]
    return per_point


def _text(where: str, name: str, value: Any, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty) or "\0" in value or len(value) > 4096:
        raise DatasetError(
            f"{where}: {name} is {str(value)[:200]!r}, which names nothing; "
            "see what the device emits"
        )
    return value


def _mapping(where: str, name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DatasetError(f"{where}: {name} is {str(value)[:200]!r}, not a mapping")
    return value


def _whole(where: str, name: str, value: Any, least: int, most: int) -> int:
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value % 1 == 0
    if not whole or not least <= value <= most:
        raise DatasetError(
            f"{where}: {name} is {str(value)[:200]!r}, not a whole number within {least} and {most}"
        )
    return int(value)


def _shape(where: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or len(value) > 32:
        raise DatasetError(f"{where}: chunk_shape is {str(value)[:200]!r}, not a list of sizes")
    return tuple(_whole(where, "chunk_shape", side, 1, 2**40) for side in value)
