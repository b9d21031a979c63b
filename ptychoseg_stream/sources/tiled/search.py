"""Which runs of a Tiled container are meant: by time and by what their start documents say."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeAlias, cast

from .address import Path
from .client import Item
from .layout import has_spec, metadata_of

Filter: TypeAlias = tuple[str, str]


class Lists(Protocol):
    """Lists containers, as a `TiledClient` does."""

    def children(
        self,
        path: Path,
        *,
        offset: int = 0,
        limit: int = 100,
        sort: str = "",
        filters: Sequence[Filter] = (),
    ) -> list[Item]:
        """Return the nodes in a container, one page of them."""
        ...


RUN = "BlueskyRun"
_PAGE = 50
_SPAN = re.compile(r"(\d+(?:[.]\d+)?)\s*(s|m|min|h|d|w)")
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which runs of a container are replayed.

    Parameters
    ----------
    since, until : str
        When they began: a date (``2026-11-01``, ``2026-11-01T14:30``; local time unless it says
        otherwise), or how long ago (``90min``, ``2h``, ``3d``). Empty: no limit.
    where : mapping of str to str
        Values of the start document, as in ``{"plan_name": "grid_scan", "scan_id": "7"}``; a dot
        leads into a mapping (``sample.name``).
    """

    since: str = ""
    until: str = ""
    where: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        """Refuse what cannot be understood."""
        for name in ("since", "until"):
            try:
                moment(getattr(self, name), 0.0)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        if "" in self.where:
            raise ValueError("where: a key is empty; give key=value")


def moment(text: str, now: float) -> float | None:
    """Return the time that ``2026-11-01`` or ``3h`` (ago) means [s since the epoch].

    Raises
    ------
    ValueError
        If it means none.
    """
    if not text:
        return None
    if span := _SPAN.fullmatch(text.strip()):
        return now - float(span[1]) * _SECONDS[span[2]]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(
            f"{text!r} is no time: give a date as 2026-11-01 or 2026-11-01T14:30, or how long ago "
            "as 2h or 3d"
        ) from error


def equals(key: str, value: Any) -> list[Filter]:
    """Return the filter for runs that have a value in their metadata."""
    return [
        ("filter[eq][condition][key]", key),
        ("filter[eq][condition][value]", json.dumps(value)),
    ]


def compares(operator: str, key: str, value: Any) -> list[Filter]:
    """Return the filter for a value on one side of a limit; `operator` is "ge", "lt", ..."""
    return [
        ("filter[comparison][condition][operator]", operator),
        ("filter[comparison][condition][key]", key),
        ("filter[comparison][condition][value]", json.dumps(value)),
    ]


def runs_of(
    client: Lists, path: Path, selection: Selection, now: float
) -> Iterator[tuple[Path, Item]]:
    """Yield the runs of a container that are meant, in the order in which they began.

    Raises
    ------
    SourceError
        If the server cannot be asked.
    """
    filters: list[Filter] = []
    for operator, text in (("ge", selection.since), ("lt", selection.until)):
        if (limit := moment(text, now)) is not None:
            filters += compares(operator, "start.time", limit)
    exact = list(filters)
    for key, text in selection.where.items():
        exact += equals(f"start.{key}", _value(text))
    found = _pages(client, path, exact)
    if (first := next(found, None)) is None:
        # What looks like a number may have been written as text.
        for key, text in selection.where.items():
            filters += equals(f"start.{key}", text)
        found = _pages(client, path, filters) if selection.where else found
    else:
        yield first
    yield from found


def run_of_uid(client: Lists, path: Path, uid: str) -> tuple[Path, Item] | None:
    """Return the run of a uid in a container; None if it is not there."""
    found = client.children(path, limit=1, filters=equals("start.uid", uid))
    return ((*path, str(found[0]["id"])), found[0]) if found else None


def key_of_uid(client: Lists, path: Path, uid: str) -> Path | None:
    """Return where the run of a uid is in a container; None if it is not there."""
    found = run_of_uid(client, path, uid)
    return found[0] if found else None


def _pages(client: Lists, path: Path, filters: Sequence[Filter]) -> Iterator[tuple[Path, Item]]:
    offset = 0
    while True:
        page = client.children(path, offset=offset, limit=_PAGE, sort="start.time", filters=filters)
        for node in page:
            if has_spec(node, RUN):
                yield (*path, str(node["id"])), node
        if len(page) < _PAGE:
            return
        offset += _PAGE


def began(node: Item) -> float:
    """Return when a run began [s since the epoch], as its start document says; 0 if it does not."""
    start = metadata_of(node).get("start")
    value = cast(Mapping[str, Any], start).get("time") if isinstance(start, Mapping) else 0.0
    return float(value) if isinstance(value, int | float) else 0.0


def _value(text: str) -> Any:
    """Return the number or truth value that a text is, else the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text
