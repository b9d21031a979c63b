"""Masks that can be told apart, and waiting for what another thread does."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptychoseg_stream.node.ports import Account, RunInfo
from ptychoseg_stream.science.frame import ClassCode, Frame, Mask
from ptychoseg_stream.science.records import NAN, Alarm, Quality, StageRecord
from ptychoseg_stream.sinks.segment import load

SHAPE = (6, 8)


def run_info(uid: str = "raw-1", **start: Any) -> RunInfo:
    start = {"uid": uid, "time": 1.0, "scan_id": 7, "plan_name": "grid_scan", **start}
    return RunInfo(uid, start, {"profile": "demo", "versions": {"torch": "2.6"}})


def classes_of(index: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Ring everywhere, and the index of the frame in the first two pixels."""
    classes = np.full(shape, ClassCode.RING, np.uint8)
    classes[0, :2] = index % 200, index // 200
    return classes


def mask_of(index: int, run: str = "raw-1", shape: tuple[int, int] = SHAPE, **more: Any) -> Mask:
    frame = Frame(run, index, None, shape, seq_num=index + 1, time=1000.0 + index)
    values: dict[str, Any] = {
        "classes": classes_of(index, shape),
        "source": "teacher",
        "status": "ok",
        "centroids_hash": "c0ffee",
        "quality": Quality(iou_to_teacher=0.5),
        "shift": (0.25, -0.5),
        "latency": 0.002,
    }
    return Mask(frame=frame, **{**values, **more})


def masks_of(indices: Sequence[int], **more: Any) -> list[Mask]:
    return [mask_of(index, **more) for index in indices]


def bits_of(index: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Valid everywhere but for a stop, and a cosmic and hot pixel whose column tells the frame."""
    bits = np.zeros(shape, np.uint16)
    bits[-1, :] = 512
    bits[0, index % shape[1]] = 1024 + 8
    return bits


def alarm_of(index: int, **more: Any) -> Alarm:
    values = {"monitor": "plateau", "value": 41.5, "expected": NAN, "score": 9.25, "action": "note"}
    return Alarm(**{**values, "index": index, "text": f"frame {index}: the dose fell", **more})


def stage_of(stage: int, **more: Any) -> StageRecord:
    values: dict[str, Any] = {
        "stage": stage,
        "frames": (0, 5, 10, 15, 20)[: stage + 1],
        "rounds": 2,
        "delta": NAN if stage == 0 else 0.004,
        "converged": stage > 0,
        "promoted": True,
        "reason": "",
        "iou_to_anchor": 0.96,
        "area_change": -0.01,
        "student_hash": f"student-{stage}",
        "parent_hash": f"student-{stage - 1}" if stage else "",
        "centroids_hash": "c0ffee",
    }
    return StageRecord(**{**values, **more})


def indices_in(masks: np.ndarray) -> list[int]:
    """Frame index that each class map carries; -1 for one of class 255."""
    first, second = masks[:, 0, 0].astype(int), masks[:, 0, 1].astype(int)
    return np.where((masks == 255).all((1, 2)), -1, first + 200 * second).tolist()


def account_of(received: int, **more: Any) -> Account:
    return Account(**{"received": received, "written": received, **more})


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Wait for something another thread does; the limit only ends a test that fails."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def read_table(path: Path | str, name: str) -> dict[str, list[Any]]:
    """Columns (text decoded) of a table in a run's file, by name; empty if there is none."""
    with h5py.File(path) as file:
        return {
            column: data.asstr()[:].tolist() if data.dtype.kind == "O" else data[:].tolist()
            for column, data in file.get(name, {}).items()
        }


def read_file(path: Path | str) -> dict[str, Any]:
    """Arrays, columns of the table beside them, and attributes of a run's file, by name."""
    with h5py.File(path) as file:
        others = set(file) - {"internal", "alarms", "stages", "start", "stop"}
        arrays = {name: file[name][:] for name in others}
        texts = {name: file[name].asstr()[()] for name in ("start", "stop") if name in file}
        return {**read_table(path, "internal"), **arrays, **texts, **dict(file.attrs)}


def read_spool(folder: Path | str) -> dict[str, Any]:
    """Arrays and columns of all segments of a run in the spool, and its documents, by name."""
    batches = [load(path) for path in sorted(Path(folder).glob("rows-*.h5"))]
    columns: dict[str, Any] = {}
    for batch in batches:
        for name, values in batch.table.to_pydict().items():
            columns.setdefault(name, []).extend(values)
    blocks = {
        name: np.concatenate([batch.arrays[name] for batch in batches])
        for name in (batches[0].arrays if batches else ())
    }
    texts = {path.stem: json.loads(path.read_text()) for path in Path(folder).glob("*.json")}
    return {**columns, **blocks, **texts}
