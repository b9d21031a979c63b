"""Chooses the (stream, data key) of a run that is segmented; knows its descriptors."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ptychoseg_stream.errors import DatasetError

from ..assets.keys import ImageKey, described, image_keys
from ..documents import Document
from .options import FinderOptions

log = logging.getLogger(__name__)

_MOST_DESCRIPTORS = 10_000
_MOST_SEEN = 200  # names of keys in a message


@dataclass(frozen=True, slots=True)
class _Described:
    """What is remembered of a descriptor."""

    stream: str
    source: ImageKey | None  # the images that are segmented, if they are in this stream
    keys: Mapping[str, ImageKey]  # all of it


class Choice:
    """The descriptors of a run; the first stream and key that match the options are chosen.

    Parameters
    ----------
    run : str
        Uid of the raw run.
    options : FinderOptions
        What is wanted.

    Attributes
    ----------
    chosen : ImageKey, optional
        The newest description of what is segmented.
    events : Counter
        Events of each stream that is not segmented, if it is known which frames are theirs.
    """

    def __init__(self, run: str, options: FinderOptions) -> None:
        self._run = run
        self._options = options
        self._descriptors: dict[str, _Described] = {}
        self._seen: list[str] = []
        self.chosen: ImageKey | None = None
        self.events: Counter[str] = Counter()

    def note(self, doc: Document) -> None:
        """Read a descriptor.

        Raises
        ------
        DatasetError
            When there are more descriptors than a run can have.
        """
        stream, data_keys = str(doc.get("name", "")), doc["data_keys"]
        known = described(stream, data_keys, self._options.max_pixels, self._options.max_gap)
        if len(self._descriptors) >= _MOST_DESCRIPTORS and doc["uid"] not in self._descriptors:
            raise DatasetError(
                f"run {self._run} has more than {_MOST_DESCRIPTORS} descriptors: further ones are "
                "not read; reuse the stream that is described already"
            )
        source = self._chosen_in(stream, data_keys, known)
        self._descriptors[doc["uid"]] = _Described(stream, source, known)

    def _chosen_in(
        self, stream: str, data_keys: Mapping[str, Any], known: Mapping[str, ImageKey]
    ) -> ImageKey | None:
        if self._options.streams and stream not in self._options.streams:
            return None
        if len(self._seen) < _MOST_SEEN:
            self._seen += [f"{stream}/{key}" for key in data_keys]
        keys = image_keys(data_keys, self._options.data_keys)
        if not keys:
            return None
        if self.chosen is None:
            self.chosen = known[keys[0]]
            ignored = (
                f"; ignored: {', '.join(keys[1:])} (frames.data_keys chooses)" if keys[1:] else ""
            )
            # Only a choice among several may be the wrong one, and worth a line on the screen.
            level = logging.WARNING if ignored else logging.INFO
            log.log(level, "run %s: segmenting %s of %s%s", self._run, keys[0], stream, ignored)
        if self.chosen.stream == stream and self.chosen.key in keys:
            self.chosen = known[self.chosen.key]
            return self.chosen
        log.info("run %s: images of stream %s are ignored", self._run, stream)
        return None

    def knows(self, descriptor: str) -> bool:
        """Return whether a descriptor was received."""
        return descriptor in self._descriptors

    def source(self, descriptor: str) -> ImageKey | None:
        """Return the images that are segmented, if this descriptor has them."""
        return self._descriptors[descriptor].source

    def key(self, descriptor: str, key: str) -> ImageKey | None:
        """Return what a descriptor says about a key, whether or not it is segmented."""
        return self._descriptors[descriptor].keys.get(key)

    def saw(self, descriptor: str, events: int = 1) -> None:
        """Count events of a stream that is not segmented."""
        self.events[self._descriptors[descriptor].stream] += events

    def described(self, stream: str) -> bool:
        """Return whether a descriptor of a stream was received."""
        return any(each.stream == stream for each in self._descriptors.values())

    def sharing(self, key: str) -> set[str]:
        """Return the streams that have images under this key, and may have them in one file."""
        return {each.stream for each in self._descriptors.values() if key in each.keys}

    def tell(self) -> None:
        """Say so if no images were found."""
        if self.chosen is not None:
            return
        # A run without images is nothing strange, unless images of a name were asked for.
        log.log(
            logging.WARNING if self._options.data_keys else logging.INFO,
            "run %s: no images found (streams: %s; data keys: %s); there was: %s; "
            "see frames.streams and frames.data_keys of the profile",
            self._run,
            ", ".join(self._options.streams) or "any",
            ", ".join(self._options.data_keys) or "any that looks like an image",
            ", ".join(self._seen) or "nothing",
        )
