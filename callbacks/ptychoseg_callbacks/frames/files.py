"""The files of a run: which document names which, and the readers that are open."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

from event_model import unpack_datum_page
from event_model.documents import DatumPage

from ptychoseg_stream.errors import DatasetError

from ..assets.asset import Asset, asset_of_resource, asset_of_stream_resource
from ..assets.keys import ImageKey
from ..assets.readers import Reader, open_reader
from ..documents import Document
from .options import FinderOptions
from .shelves import Shelf

_MOST_RESOURCES = 10_000
_MOST_DATUMS = 100_000
_MOST_OPEN = 8  # files

AssetId: TypeAlias = tuple[str, str]  # uid of the (stream) resource, dataset if the datum names it


@dataclass(frozen=True, slots=True)
class Place:
    """Where images are: frames [first, last) of an asset.

    Parameters
    ----------
    asset : (str, str)
        Which; see `Files`.
    first, last : int
        Frames; counted from 0 where only a handler knows which they are.
    datum : mapping, optional
        What that handler is asked for.
    """

    asset: AssetId
    first: int
    last: int
    datum: Mapping[str, Any] | None = None


class Files:
    """Remembers resources and datums, opens files when their frames are wanted.

    Parameters
    ----------
    options : FinderOptions
        How files are read.
    handlers : mapping, optional
        Spec -> handler class; default: the installed ones.
    """

    def __init__(
        self, options: FinderOptions, handlers: Mapping[str, Callable[..., Any]] | None = None
    ) -> None:
        self._options = options.reader()
        self._handlers = handlers
        self._resources: dict[str, tuple[str, Document]] = {}
        self._datums: dict[str, dict[str, Document]] = {}  # by resource, by datum id: kwargs
        self._resource_of: dict[str, str] = {}  # by datum id, the oldest first
        self._numbered: dict[str, tuple[int, Place]] = {}  # by resource: a datum's number and place
        self._assets: dict[AssetId, Asset] = {}
        self._readers: dict[AssetId, Reader] = {}  # the one used longest ago first
        self._shelves: dict[AssetId, Shelf] = {}

    def note(self, name: str, doc: Document) -> None:
        """Remember a resource or stream_resource."""
        self._resources.pop(doc["uid"], None)
        self._resources[doc["uid"]] = (name, doc)
        while len(self._resources) > _MOST_RESOURCES:
            self._forget(next(iter(self._resources)))

    def note_datum(self, doc: Document) -> None:
        """Remember a datum until its event comes."""
        identity, resource, kwargs = doc["datum_id"], doc["resource"], doc["datum_kwargs"]
        if not isinstance(kwargs, Mapping) or not isinstance(identity, str):
            raise DatasetError(f"datum {identity!r} is malformed: it needs an id and datum_kwargs")
        self._datums.setdefault(resource, {})[identity] = cast(Document, kwargs)
        self._resource_of[identity] = resource
        while len(self._resource_of) > _MOST_DATUMS:
            self.claim([next(iter(self._resource_of))])

    def note_datum_page(self, doc: Document) -> None:
        """Remember the datums of a page."""
        for datum in unpack_datum_page(cast(DatumPage, doc)):
            self.note_datum(cast(Document, datum))

    def resource(self, uid: str) -> Document:
        """Return a (stream) resource document.

        Raises
        ------
        DatasetError
            When it was missed.
        """
        if uid not in self._resources:
            raise DatasetError(f"resource {uid} was missed")
        return self._resources[uid][1]

    def has_stream_of(self, key: str) -> bool:
        """Return whether a stream_resource of a data key was received."""
        return any(
            name == "stream_resource" and doc.get("data_key") == key
            for name, doc in self._resources.values()
        )

    def resource_of(self, datum_id: str) -> str:
        """Return the uid of the resource of a datum, also of one that was missed."""
        return self._resource_of.get(datum_id) or datum_id.rsplit("/", 1)[0]

    def knows(self, uid: str) -> bool:
        """Return whether a (stream) resource was received."""
        return uid in self._resources

    def shelf(self, asset: AssetId) -> Shelf:
        """Return which frames of an asset are known to be whose."""
        return self._shelves.setdefault(asset, Shelf())

    def datum_place(self, datum_id: str, source: ImageKey | None) -> Place:
        """Return where the images of a datum are.

        Raises
        ------
        DatasetError
            When its resource was missed, or it was missed itself and nothing tells its place.
        """
        resource = self.resource_of(datum_id)
        self.resource(resource)
        kwargs = self._datums.get(resource, {}).get(datum_id)
        number = datum_id.removeprefix(f"{resource}/")
        if kwargs is None:
            return self._guess(datum_id, resource, number)
        place = self._place(resource, kwargs, source)
        if number.isdecimal() and place.datum is None:
            self._numbered[resource] = int(number), place
        return place

    def _place(self, resource: str, kwargs: Document, source: ImageKey | None) -> Place:
        asset = self._asset((resource, ""), source)
        span = None if asset.spec in (self._handlers or {}) else asset.span(kwargs)
        if span is None:
            count = max(asset.frames_per_point, source.per_event if source else 1)
            return Place((resource, ""), 0, count, kwargs)
        dataset = "" if asset.dataset else str(kwargs.get("dataset", ""))
        return Place((resource, dataset), span.start, span.stop)

    def _guess(self, datum_id: str, resource: str, number: str) -> Place:
        """Return where a datum that was missed must be: ids and points are counted together."""
        if resource in self._numbered and number.isdecimal():
            known, place = self._numbered[resource]
            width = place.last - place.first
            first = place.first + (int(number) - known) * width
            if 0 <= first <= place.first + _MOST_DATUMS * width:
                return replace(place, first=first, last=first + width)
        raise DatasetError(f"datum {datum_id} was missed")

    def unclaimed(self, before: str) -> list[str]:
        """Return the datums received before this one, of its resource, that no event named."""
        datums = self._datums.get(self.resource_of(before), {})
        return list(datums)[: list(datums).index(before)] if before in datums else []

    def left_over(self, resource: str) -> list[str]:
        """Return all datums of a resource that no event named."""
        return list(self._datums.get(resource, {}))

    def claim(self, datum_ids: Iterable[str]) -> None:
        """Forget datums that an event named, and those of the same resource before them."""
        for datum_id in datum_ids:
            resource = self._resource_of.get(datum_id, "")
            datums = self._datums.get(resource, {})
            while datum_id in datums:
                oldest = next(iter(datums))
                del datums[oldest], self._resource_of[oldest]
            if not datums:
                self._datums.pop(resource, None)

    def reader(self, asset: AssetId, source: ImageKey) -> Reader:
        """Return the reader of an asset; a few of them stay open.

        Raises
        ------
        DatasetError
            When it cannot be read at all.
        """
        reader = self._readers.pop(asset, None)
        if reader is None:
            reader = open_reader(self._asset(asset, source), self._options, self._handlers)
        self._readers[asset] = reader
        while len(self._readers) > _MOST_OPEN:
            self._readers.pop(next(iter(self._readers))).close()
        return reader

    def _asset(self, identity: AssetId, source: ImageKey | None) -> Asset:
        if identity not in self._assets:
            name, doc = self._resources.get(identity[0], ("", {}))
            if not name:
                raise DatasetError(f"resource {identity[0]} was missed")
            read = asset_of_resource if name == "resource" else asset_of_stream_resource
            asset = read(doc, source)
            if source is None:
                return asset
            self._assets[identity] = replace(asset, dataset=identity[1] or asset.dataset)
        return self._assets[identity]

    def _forget(self, resource: str) -> None:
        del self._resources[resource]
        self._numbered.pop(resource, None)
        for identity in [each for each in self._shelves if each[0] == resource]:
            del self._shelves[identity]
        for identity in [each for each in self._assets if each[0] == resource]:
            del self._assets[identity]
            if reader := self._readers.pop(identity, None):
                reader.close()

    def close(self) -> None:
        """Give all files back."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
