"""What travels: a frame in, a mask out, and the one list of class codes."""

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .records import Alarm, Quality, StageRecord

FloatArray: TypeAlias = NDArray[np.floating]  # float32 unless a docstring says otherwise
BoolArray: TypeAlias = NDArray[np.bool_]
ClassMap: TypeAlias = NDArray[np.uint8]  # (H, W), values of ClassCode
BitMap: TypeAlias = NDArray[np.uint16]  # (H, W), combinations of ValidBit; 0: use this pixel

Method: TypeAlias = Literal["teacher", "student", "fused"]
METHODS: tuple[Method, ...] = ("teacher", "student", "fused")
MaskSource: TypeAlias = Literal["teacher", "student", "fused", "none"]
FrameStatus: TypeAlias = Literal["ok", "refused", "lost"]
Verdict: TypeAlias = Literal["annulus", "disc", "none", "no beam"]


class ClassCode(IntEnum):
    """The fixed class codes; every file and Tiled node that holds masks carries this legend.

    Background is what lies outside ring, core and beam-stop. Where the counts allow it, it is told
    apart into `EMPTY` (nothing but the detector's background) and `SCATTER` (dark field with
    signal); `BACKGROUND` is what cannot be told. `INVALID`: no class can be said, because the frame
    has no mask or no measured pixel is near. Whether a pixel may be *used* is another question,
    answered by `ValidBit`.
    """

    BACKGROUND = 0
    RING = 1
    CORE = 2
    BEAM_STOP = 3
    SCATTER = 4
    EMPTY = 5
    INVALID = 255


class ValidBit(IntFlag):
    """Why a pixel must not be used: the low 16 bits of NeXus' ``NXdetector/pixel_mask``.

    Bits 0 to 8 have the meaning that NeXus gives them; 9 to 11 are left to us. 0 is a good pixel.
    """

    GAP = 1 << 0  # no value: no sensor, NaN, negative in a signed format
    DEAD = 1 << 1  # never counts
    HOT = 1 << 3  # over-responding in frame after frame
    USER = 1 << 8  # masked by the profile
    STOP = 1 << 9  # in the shadow of a beam-stop
    COSMIC = 1 << 10  # spike or track in this frame only
    SATURATED = 1 << 11  # at or above the saturation level in this frame


def bit_legend() -> dict[str, str]:
    """Return ``{"1": "gap", "2": "dead", ...}``: value of each bit and its reason."""
    return {str(bit.value): str(bit.name).lower() for bit in ValidBit}


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
    origin : str
        ``FILE:dataset`` whose row `index` is the image; empty if there is none.
    attempt : int
        How often the same image of the same event was taken before: a plan that goes back to a
        checkpoint takes points again. The last attempt is the one that counts.
    refilled : {"", "file", "tiled"}
        Where the image was had from although it, or its document, was never received.
    teacher_only : bool
        Whether the cheaper path is to be taken: frames come faster than they can be labelled.
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
    origin: str = ""
    attempt: int = 0
    refilled: Literal["", "file", "tiled"] = ""
    teacher_only: bool = False


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
    verdict : {"annulus", "disc", "none", "no beam"}
        What the frame shows; `reason` says why it is not a ring.
    quality : Quality
        How far the mask can be trusted.
    valid_bits : ndarray of uint16 or None
        ``(H, W)`` of `ValidBit`; None where nothing is known (a frame that could not be read).
    confidence : ndarray of uint8 or None
        ``(H, W)`` probability that the class is right, 128 (a coin) to 255; on request.
    alarms, stages : tuple
        What was noticed, and learned, up to this frame and since the one before.
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
    verdict: Verdict = "none"
    quality: Quality = field(default_factory=Quality)
    valid_bits: BitMap | None = None
    confidence: NDArray[np.uint8] | None = None
    alarms: tuple[Alarm, ...] = ()
    stages: tuple[StageRecord, ...] = ()
    ring_area: int = 0
    shift: tuple[float, float] = (0.0, 0.0)
    plateau: float = 0.0
    latency: float = 0.0
