"""A labeller and a sink that are simple and real; the detectors are in `detectors_support`."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from detectors_support import SHAPE, DatumDetector, InlineDetector, StreamDetector, watermarked
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.queueing.waiting import OverloadOptions
from ptychoseg_callbacks.segmentation import Segmentation, SegmentationOptions
from scans_support import fly

from ptychoseg_stream.node.ports import Account, Products, RunInfo
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.node.vitals import Progress
from ptychoseg_stream.science.frame import ClassCode, Frame, Mask

__all__ = [
    "SHAPE",
    "DatumDetector",
    "FileSink",
    "InlineDetector",
    "ListSink",
    "StreamDetector",
    "ThresholdLabeller",
    "adds_up",
    "describe",
    "fly",
    "marks",
    "open_inbox",
    "segmentation",
    "watermarked",
]


class ThresholdLabeller:
    """Ring where the frame is bright; `plateau` is the first pixel: masks carry the watermark."""

    def __init__(self, fail_at: Sequence[int] = ()) -> None:
        self.fail_at = fail_at
        self.batches: list[list[int]] = []
        self.open_runs: set[str] = set()
        self.labelled: dict[str, int] = {}  # frames of each open run

    def open(self, run_uid: str, checkpoint: bytes = b"") -> None:
        self.open_runs.add(run_uid)
        self.labelled[run_uid] = int(checkpoint or b"0")

    def checkpoint(self, run_uid: str) -> bytes:
        return str(self.labelled[run_uid]).encode()

    def process(self, frames: Sequence[Frame]) -> list[Mask]:
        self.batches.append([frame.index for frame in frames])
        for frame in frames:
            self.labelled[frame.run] = frame.index + 1
        return [self._label(frame) for frame in frames]

    def _label(self, frame: Frame) -> Mask:
        bare = replace(frame, image=None)
        if frame.index in self.fail_at:
            raise ZeroDivisionError("a bug in the labeller")
        if frame.image is None:
            classes = np.full(frame.shape, ClassCode.INVALID, np.uint8)
            return Mask(bare, classes, "none", "lost", frame.fault)
        if frame.image.max() == 0:
            classes = np.full(frame.shape, ClassCode.INVALID, np.uint8)
            return Mask(bare, classes, "none", "refused", "the frame is empty")
        classes = np.where(frame.image > 100, ClassCode.RING, ClassCode.BACKGROUND).astype(np.uint8)
        return Mask(bare, classes, "teacher", "ok", plateau=float(frame.image[0, 0]))

    def products(self, run_uid: str) -> None:
        """It has none."""

    def close(self, run_uid: str) -> None:
        self.open_runs.remove(run_uid)

    def progress(self) -> Progress:
        return Progress(step=len(self.batches))


class ListSink:
    """Keeps everything in memory."""

    def __init__(self) -> None:
        self.runs: dict[str, RunInfo] = {}
        self.masks: dict[str, list[Mask]] = {}
        self.products: dict[str, Products] = {}
        self.accounts: dict[str, Account] = {}
        self.is_shut_down = False

    def open(self, run: RunInfo) -> None:
        self.runs[run.uid] = run
        self.masks[run.uid] = []

    def write(self, run_uid: str, masks: Sequence[Mask]) -> None:
        self.masks[run_uid].extend(masks)

    def publish(self, run_uid: str, products: Products) -> None:
        self.products[run_uid] = products

    def close(self, run_uid: str, account: Account) -> None:
        self.accounts[run_uid] = account

    def stored(self, run_uid: str) -> int:
        return len(self.masks[run_uid])

    def settled(self, run_uid: str) -> bool:
        return run_uid in self.accounts or run_uid not in self.runs

    def address(self, run_uid: str) -> str:
        return f"memory:{run_uid}"

    def fault(self) -> str:
        return ""

    def drain(self, timeout: float) -> bool:
        return True

    def shutdown(self) -> None:
        self.is_shut_down = True


class FileSink(ListSink):
    """Leaves one JSON file per closed run in a folder, for the eyes of another process."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def close(self, run_uid: str, account: Account) -> None:
        super().close(run_uid, account)
        rows = [[m.frame.index, m.plateau, m.status, m.reason] for m in self.masks[run_uid]]
        told = {"rows": rows, "exit_status": account.exit_status, "reason": account.reason}
        part = self.folder / f"{run_uid}.part"
        part.write_text(json.dumps(told))
        part.rename(self.folder / f"{run_uid}.json")


def describe(start: Any) -> RunInfo:
    return RunInfo(start["uid"], start, {"profile": "test"})


def segmentation(
    labeller: Any = None, sink: Any = None, options: SegmentationOptions | None = None
) -> Segmentation:
    return Segmentation(labeller or ThresholdLabeller(), sink or ListSink(), describe, options)


def open_inbox(setup: dict[str, Any]) -> Inbox:
    """Return the inbox of a child: with journals where its setup has a spool."""
    journals = Journals(SpoolOptions(**setup["spool"])) if "spool" in setup else None
    return Inbox(journals, OverloadOptions(**setup.get("overload", {})), later=True)


def marks(masks: Sequence[Mask]) -> list[int]:
    """Return the watermarks of masks."""
    return [int(mask.plateau) for mask in masks]


def adds_up(account: Account) -> bool:
    done = account.written + sum(account.refused.values()) + account.lost
    return account.received == done
