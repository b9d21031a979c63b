"""The documents of a derived run: what its start, descriptor and stop say. No I/O."""

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from event_model import ComposeRunBundle, compose_run

from ..node.ports import Account, Clock, RunInfo
from ..science.frame import legend
from .rows import COLUMNS, Shape

STREAM = "primary"
TABLE = "internal"
OBJECT = "ptychoseg"
SOFTWARE = "ptychoseg_stream"
EXIT_STATUSES = ("success", "abort", "fail")
# What a reader searches masks by, besides the uid of the raw run.
COPIED = {
    "scan_id": "raw_scan_id",
    "plan_name": "raw_plan_name",
    "sample": "sample",
    "data_session": "data_session",
}


@dataclass(frozen=True, slots=True)
class Derived:
    """A derived run: the raw run it comes from, its own uid and when it began.

    Parameters
    ----------
    raw : RunInfo
        The raw run.
    uid : str
        Uid of the derived run.
    time : float
        When it began [s since the epoch].
    secret : str
        Text (an API key) that must not appear in any document.
    """

    raw: RunInfo
    uid: str
    time: float
    secret: str = field(default="", repr=False)

    @classmethod
    def of(cls, raw: RunInfo, clock: Clock, secret: str = "") -> "Derived":
        """Begin a derived run now, under a new uid."""
        return cls(raw, str(uuid.uuid4()), clock(), secret)

    @property
    def access_tags(self) -> list[str] | None:
        """Access tags of the raw run, None without any."""
        tags = self.raw.start.get("tiled_access_tags")
        return [str(tag) for tag in tags] if tags else None

    def start(self) -> dict[str, Any]:
        """Return the start document."""
        return dict(self._compose().start_doc)

    def descriptor(self, arrays: Sequence[str], shape: Shape) -> dict[str, Any]:
        """Return the descriptor of the stream; its time is that of the start, before any row."""
        keys = data_keys(arrays, shape)
        bundle = self._compose().compose_descriptor(
            name=STREAM,
            data_keys=keys,
            object_keys={OBJECT: list(keys)},
            uid=str(uuid.uuid5(uuid.UUID(self.uid), STREAM)),
            time=self.time,
        )
        return dict(bundle.descriptor_doc)

    def stop(self, account: Account, rows: int, time: float, **counts: int) -> dict[str, Any]:
        """Return the stop document.

        Parameters
        ----------
        account : Account
            What became of the frames, as the node counted them.
        rows : int
            Rows stored.
        time : float
            Now [s since the epoch].
        **counts : int
            What the sink counted itself, added to the account.
        """
        known = account.exit_status in EXIT_STATUSES
        stop: dict[str, Any] = dict(
            self._compose().compose_stop(
                exit_status=account.exit_status if known else "fail",  # pyright: ignore[reportArgumentType]
                reason=self.clean(account.reason),
                time=max(time, self.time),
            )
        )
        stop["num_events"] = {STREAM: rows}
        stop["account"] = {
            "received": account.received,
            "written": account.written,
            "refused": {str(reason): count for reason, count in account.refused.items()},
            "lost": account.lost,
            **counts,
        }
        return stop

    def clean(self, value: Any) -> Any:
        """Return `value` as what a document may hold: no None, NaN, dotted key, key or array."""
        if isinstance(value, str):
            # What is shorter is no key, and would be found in honest words.
            return value.replace(self.secret, "***") if len(self.secret) >= 8 else str(value)
        if isinstance(value, Mapping):
            return {
                self.clean(str(key)).replace(".", "_").replace("/", "_"): self.clean(item)
                for key, item in value.items()
                if item is not None
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self.clean(item) for item in value if item is not None]
        if isinstance(value, np.ndarray | np.generic):
            return self.clean(value.tolist())
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, int) and abs(value) < 2**53:
            return value
        return self.clean(str(value))

    def _compose(self) -> ComposeRunBundle:
        start = self.raw.start
        about = {
            ours: self.clean(start[key])
            for key, ours in COPIED.items()
            if start.get(key) is not None
        }
        if not isinstance(about.get("sample", ""), str | dict):
            about["sample"] = str(about["sample"])  # event-model takes a text or a mapping
        if "data_session" in about:
            about["data_session"] = str(about["data_session"])
        metadata = {
            "plan_name": SOFTWARE,
            "original_run_uid": self.raw.uid,
            **about,
            "processing": {"software": SOFTWARE, **self.clean(self.raw.processing)},
            "class_codes": legend(),
        }
        return compose_run(uid=self.uid, time=self.time, metadata=metadata)


def data_keys(arrays: Sequence[str], shape: Shape) -> dict[str, dict[str, Any]]:
    """Return the data keys of the arrays and of the table's columns, as a descriptor holds them."""
    common = {"source": SOFTWARE, "object_name": OBJECT}
    keys: dict[str, dict[str, Any]] = {
        name: {
            "dtype": "array",
            "dtype_numpy": "|u1",
            "shape": list(shape),
            "dims": ["y", "x"],
            **common,
        }
        for name in arrays
    }
    for name, column in COLUMNS.items():
        units = {"units": column.units} if column.units else {}
        keys[name] = {"dtype": column.dtype, "shape": [], **units, **common}
    return keys
