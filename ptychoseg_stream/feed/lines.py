"""An item of the feed in one line: for people, or as JSON."""

import json
from typing import Any

import numpy as np

from ..sinks.feed.items import FrameItem, Item, PositionsItem, ProductsItem, Revision, Start, Stop


def line_of(item: Item) -> str:
    """Return an item in one line for people."""
    facts = facts_of(item)
    head = f"{facts.pop('seq'):>6} {facts.pop('kind'):<10}"
    return head + " ".join(f"{name} {value}" for name, value in facts.items() if value != "")


def json_of(item: Item) -> str:
    """Return an item as a line of JSON, arrays left out."""
    return json.dumps(facts_of(item))


def facts_of(item: Item) -> dict[str, Any]:
    """Return what can be said of an item without its arrays."""
    return {"seq": item.seq, "kind": _KINDS[type(item)], **_facts(item)}


def _facts(item: Item) -> dict[str, Any]:
    if isinstance(item, Start):
        shape = "x".join(map(str, item.shape))
        return {"run": item.run, "derived": item.derived, "shape": shape, "points": item.num_points}
    if isinstance(item, FrameItem):
        return {
            "index": item.index,
            "status": item.status,
            "verdict": item.verdict,
            "ring": int(np.count_nonzero(item.classes == 1)),
            "invalid": int(np.count_nonzero(item.valid_bits)),
            "image": "none" if item.image is None else str(item.image.dtype),
        }
    if isinstance(item, Revision):
        pixels = int(np.count_nonzero(item.bits))
        return {"first": item.first, "last": item.last, "pixels": pixels}
    if isinstance(item, PositionsItem):
        return {"first": item.first, "rows": len(item.positions)}
    if isinstance(item, ProductsItem):
        parts = item.products.of_frames
        return {"frames": parts.frames, "used": parts.used, "final": item.products.final}
    return {"exit_status": item.exit_status, "reason": item.reason}


_KINDS: dict[type[Item], str] = {
    Start: "start",
    FrameItem: "frame",
    Revision: "mask",
    PositionsItem: "positions",
    ProductsItem: "products",
    Stop: "stop",
}
