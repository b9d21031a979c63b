"""The documents of a derived run: what its start, descriptor and stop say. No I/O."""

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from event_model import ComposeRunBundle, compose_run

from ..node.ports import Account, Clock, RunInfo
from ..science.frame import Frame, bit_legend, legend
from .arrays import ARRAYS
from .columns import Column
from .rows import Shape

STREAM = "primary"
TABLE = "internal"  # where Bluesky clients look for the columns of a stream
OBJECT = "ptychoseg"
SOFTWARE = "ptychoseg_stream"
RAW_SOURCE = "raw_source"
"""Metadata key of arrays: ``FILE:dataset`` of the raw frames, where they came from a file."""
COMMON = {"source": SOFTWARE, "object_name": OBJECT}
_DEEPEST = 50  # levels of metadata
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
        """Return the derived run of a raw one: what `raw` does not say is chosen now."""
        return cls(raw, raw.derived or str(uuid.uuid4()), raw.began or clock(), secret)

    @property
    def access_tags(self) -> list[str] | None:
        """Access tags of the raw run, None without any."""
        tags = self.raw.start.get("tiled_access_tags")
        if isinstance(tags, str) or not isinstance(tags, list | tuple | set | frozenset):
            tags = [tags] if tags else []
        return [str(tag) for tag in tags] or None

    def start(self) -> dict[str, Any]:
        """Return the start document."""
        return dict(self._compose().start_doc)

    def descriptor(self, stream: str, keys: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Return the descriptor of a stream; its time is that of the start, before any row.

        Parameters
        ----------
        stream : str
            Name of the stream.
        keys : dict
            Its data keys, from `array_keys` and `column_keys`.
        """
        bundle = self._compose().compose_descriptor(
            name=stream,
            data_keys=keys,
            object_keys={OBJECT: list(keys)},
            uid=str(uuid.uuid5(uuid.UUID(self.uid), stream)),
            time=self.time,
        )
        return dict(bundle.descriptor_doc)

    def stop(
        self, account: Account, events: Mapping[str, int], time: float, **counts: int
    ) -> dict[str, Any]:
        """Return the stop document.

        Parameters
        ----------
        account : Account
            What became of the frames, as the node counted them.
        events : mapping
            Rows stored, by name of the stream.
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
        stop["num_events"] = dict(events)
        told: dict[str, Any] = {
            "received": account.received,
            "written": account.written,
            "refused": {self.hide(str(reason)): count for reason, count in account.refused.items()},
            "lost": account.lost,
            "announced": account.announced,
            "refilled": account.refilled,
            "retaken": account.retaken,
            "teacher_only": account.teacher_only,
            "alarms": account.alarms,
            "verdicts": dict(account.verdicts),
            **counts,
        }
        if account.imbalance:
            told["imbalance"] = account.imbalance
        stop["account"] = told
        if account.verdict:
            stop["verdict"] = account.verdict
        return stop

    def hide(self, text: str) -> str:
        """Return a text without the secret."""
        # What is shorter is no key, and would be found in honest words.
        return text.replace(self.secret, "***") if len(self.secret) >= 8 else text

    def clean(self, value: Any, depth: int = _DEEPEST) -> Any:
        """Return `value` as what a document may hold: no None, NaN, dotted key, key or array.

        Halves of surrogates, which no server takes, become question marks; what is nested deeper
        than `depth` is left out.
        """
        if isinstance(value, str):
            return self.hide(str(value)).encode("utf-8", "replace").decode()
        if depth < 0:
            return "left out: nested too deep"
        if isinstance(value, Mapping):
            return {
                self.clean(str(key)).replace(".", "_").replace("/", "_"): self.clean(
                    item, depth - 1
                )
                for key, item in value.items()
                if item is not None
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self.clean(item, depth - 1) for item in value if item is not None]
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
            "original_run_uid": self.clean(self.raw.uid),
            **about,
            "processing": {"software": SOFTWARE, **self.clean(self.raw.processing)},
            "class_codes": legend(),
            "bit_legend": bit_legend(),
        }
        return compose_run(uid=self.uid, time=self.time, metadata=metadata)


def raw_metadata(frame: Frame) -> dict[str, str]:
    """Return where a frame came from: stream, data key, and the dataset it was read from if any."""
    source = {RAW_SOURCE: frame.origin} if frame.origin else {}
    return {"raw_stream": frame.stream, "raw_data_key": frame.data_key, **source}


def frame_metadata(raw: Mapping[str, str]) -> Frame:
    """Return a frame of which only what `raw_metadata` tells is known."""
    stream, key = raw.get("raw_stream", "primary"), raw.get("raw_data_key", "image")
    return Frame("", 0, None, (0, 0), stream=stream, data_key=key)


def array_keys(arrays: Sequence[str], shape: Shape) -> dict[str, dict[str, Any]]:
    """Return the data keys of arrays, as a descriptor holds them."""
    return {
        name: {
            "dtype": "array",
            "dtype_numpy": np.dtype(ARRAYS[name].dtype).str,
            "shape": list(shape),
            "dims": ["y", "x"],
            **COMMON,
        }
        for name in arrays
    }


def column_keys(columns: Mapping[str, Column[Any]]) -> dict[str, dict[str, Any]]:
    """Return the data keys of a table's columns, as a descriptor holds them."""
    return {
        name: {
            "dtype": column.dtype,
            "shape": [],
            **({"units": column.units} if column.units else {}),
            **COMMON,
        }
        for name, column in columns.items()
    }
