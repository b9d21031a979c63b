"""What travels: a frame in, a mask out, and the one list of class codes."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.floating]  # float32 unless a docstring says otherwise
BoolArray: TypeAlias = NDArray[np.bool_]
ClassMap: TypeAlias = NDArray[np.uint8]  # (H, W), values of ClassCode

Method: TypeAlias = Literal["teacher", "student", "fused"]
MaskSource: TypeAlias = Literal["teacher", "student", "fused", "none"]
FrameStatus: TypeAlias = Literal["ok", "refused", "lost"]


class ClassCode(IntEnum):
    """The fixed class codes; every file and Tiled node that holds masks carries this legend."""

    BACKGROUND = 0
    RING = 1
    CORE = 2
    BEAM_STOP = 3
    INVALID = 255


def legend() -> dict[str, str]:
    """Return ``{"0": "background", ...}``, the form that metadata of files and nodes takes."""
    return {str(code.value): code.name.lower() for code in ClassCode}


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One diffraction frame and its identity.

    Parameters
    ----------
    run : str
        Uid of the raw run.
    index : int
        Row of the frame in the raw array, counted per (stream, data key); never repeats.
    image : ndarray or None
        ``(H, W)`` detector units of any real dtype; None when the frame could not be read.
    shape : tuple of int
        ``(H, W)``; what the descriptor promised when there is no image.
    seq_num : int
        Event number, from 1; repeats after a rewind.
    time : float
        When the frame was taken [s since the epoch].
    fault : str
        Why there is no image.
    """

    run: str
    index: int
    image: NDArray[Any] | None
    shape: tuple[int, int]
    seq_num: int = 0
    stream: str = "primary"
    data_key: str = "image"
    time: float = 0.0
    fault: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """The answer to one frame: its class map, where it came from, and the numbers of its row.

    Parameters
    ----------
    frame : Frame
        The frame without its image.
    classes : ndarray of uint8
        ``(H, W)`` class codes; all `ClassCode.INVALID` when `status` is not "ok".
    source : {"teacher", "student", "fused", "none"}
        Which of the masks `classes` is.
    status : {"ok", "refused", "lost"}
        "refused": the frame cannot be labelled; "lost": it could not be read. `reason` says why.
    alternatives : dict
        The other class maps of the same frame by source name, where the profile publishes them.
    student_revision, student_hash, centroids_hash
        Which student (0 is the first, -1 none) and centroids made it.
    iou_to_teacher : float
        Ring IoU of the served mask with the teacher's; NaN where there is no mask.
    ring_area : int
        Ring pixels of `classes`.
    shift : tuple of float
        ``(dy, dx)`` of the frame against the staged mean [px].
    plateau : float
        Bright-field plateau of the frame [counts per pixel].
    latency : float
        From the arrival of the frame's document to the finished mask [s]; who saw both fills it in.
    """

    frame: Frame
    classes: ClassMap
    source: MaskSource
    status: FrameStatus
    reason: str = ""
    alternatives: dict[str, ClassMap] = field(default_factory=dict)
    student_revision: int = -1
    student_hash: str = ""
    centroids_hash: str = ""
    iou_to_teacher: float = float("nan")
    ring_area: int = 0
    shift: tuple[float, float] = (0.0, 0.0)
    plateau: float = 0.0
    latency: float = 0.0
