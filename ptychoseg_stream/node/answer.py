"""From what was seen of a frame to its `Mask`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from ..science.background import Background
from ..science.classes import class_map, clean_ring
from ..science.consensus import Consensus
from ..science.frame import (
    BoolArray,
    ClassCode,
    ClassMap,
    FloatArray,
    Frame,
    FrameStatus,
    Mask,
    MaskSource,
    Method,
    ValidBit,
)
from ..science.fusion import STEEPNESS
from ..science.geometry import Geometry
from ..science.learning import Student
from ..science.metrics import iou
from ..science.prepare import Prepared
from ..science.records import Quality
from ..science.som import Centroids
from ..science.track import Shift
from ..science.validity import Inspected
from ..science.verdict import PolarProfile, judge
from ..science.window import Window
from .options import NodeOptions


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What was seen of a frame that has a beam.

    Parameters
    ----------
    frame : Frame
    pixels : Inspected
        Of full size.
    window : Window
        Part of the frame that the others are about.
    prepared : Prepared
        Of the one frame, its plateau that of the ring's interior.
    shift : tuple of float
        Against the reference ``(dy, dx)`` [px].
    geometry : Geometry
        Of the beam in this frame.
    ring : ndarray of bool
        ``(h, w)`` the teacher's.
    profile : PolarProfile
        Of that ring.
    probability : dict
        ``(h, w)`` ring probability by "student" and "fused", where there is a student.
    """

    frame: Frame
    pixels: Inspected
    window: Window
    prepared: Prepared
    shift: Shift
    geometry: Geometry
    ring: BoolArray
    profile: PolarProfile
    probability: Mapping[Method, FloatArray]


def compose(
    seen: Seen,
    reference: Consensus,
    background: Background,
    options: NodeOptions,
    student: Student | None,
    centroids: Centroids,
) -> Mask:
    """Compose the answer to a frame."""
    rings: dict[Method, BoolArray] = {
        name: clean_ring(p > 0.5) for name, p in seen.probability.items()
    }
    rings["teacher"] = seen.ring
    source: Method = options.serve if options.serve in rings else "teacher"
    shown: list[Method] = [name for name in rings if name == source or name in options.also]
    profiles = {name: _profile(name, rings[name], seen) for name in shown}
    maps: dict[Method, ClassMap] = {
        name: _full_map(rings[name], profiles[name], seen, reference) for name in shown
    }
    bits = seen.pixels.bits.copy()
    bits[maps[source] == ClassCode.BEAM_STOP] |= np.uint16(ValidBit.STOP)
    profile = profiles[source]
    classes = maps[source]
    # Without a ring nothing says where the beam is not.
    if profile.verdict != "none" and not seen.frame.teacher_only:
        classes = background.split(seen.pixels.counts, classes, bits)
    missing = np.full(classes.shape, ClassCode.INVALID, np.uint8)
    served = _served(source, seen, options.teacher.edge_level)
    return Mask(
        replace(seen.frame, image=None),
        classes,
        source,
        "ok",
        profile.reason,
        {n: classes if n == source else maps.get(n, missing) for n in options.also},
        student_revision=student.revision if student else -1,
        student_hash=student.hash if student else "",
        centroids_hash=centroids.hash,
        verdict=profile.verdict,
        quality=_quality(rings, source, seen, profile, served),
        valid_bits=bits,
        confidence=_confidence(rings[source], seen, served) if options.confidence else None,
        ring_area=int(np.count_nonzero(classes == ClassCode.RING)),
        shift=seen.window.shift_to_full(seen.shift),
        plateau=float(seen.prepared.plateau[0]) / seen.window.bin**2,
    )


def _full_map(ring: BoolArray, profile: PolarProfile, seen: Seen, reference: Consensus) -> ClassMap:
    """Class map of the whole frame; 255 where no measured pixel is near."""
    small = class_map(ring, seen.geometry, None, reference.stop_sectors, profile)
    classes = small if seen.window.is_whole else seen.window.put_classes(small)
    # Counts are repaired behind a shadow that is known, so the ring goes on there.
    shadow = (seen.pixels.bits & np.uint16(ValidBit.STOP)) != 0
    classes[shadow & (classes == ClassCode.RING)] = ClassCode.BEAM_STOP
    classes[seen.pixels.unknown] = ClassCode.INVALID
    return classes


def _profile(name: Method, ring: BoolArray, seen: Seen) -> PolarProfile:
    if name == "teacher":
        return seen.profile
    return judge(ring, seen.geometry, seen.prepared.unknown[0])


def _quality(
    rings: Mapping[Method, BoolArray],
    source: Method,
    seen: Seen,
    profile: PolarProfile,
    probability: FloatArray,
) -> Quality:
    served = rings[source]
    inner, outer = (v[profile.seen] for v in (profile.inner, profile.outer))
    known = len(outer) > 0 and profile.verdict != "none"
    disc = profile.verdict == "disc"
    beam, scale = seen.window.to_full(seen.geometry), seen.window.bin
    return Quality(
        iou_to_teacher=iou(served, rings["teacher"]),
        iou_to_student=iou(served, rings["student"]) if "student" in rings else float("nan"),
        entropy=_entropy(probability, served),
        centre=(beam.y, beam.x),
        inner=(0.0 if disc else scale * float(np.median(inner))) if known else float("nan"),
        outer=scale * float(np.median(outer)) if known else float("nan"),
    )


def _served(source: Method, seen: Seen, level: float) -> FloatArray:
    """Return the ring probability ``(h, w)`` behind the served mask, calibrated.

    The teacher has none: its edge is as steep as that of the student. An average over frames is
    less certain than it could be: twice its log-odds are right (`benchmarks/calibration.py`;
    factors of 1.5 to 3 hardly differ).
    """
    p = seen.probability.get(source)
    if p is None:
        return 1 / (1 + np.exp(-STEEPNESS * (seen.prepared.relative[0] - level)))
    return p**2 / (p**2 + (1 - p) ** 2)


def _entropy(probability: FloatArray, ring: BoolArray) -> float:
    """Mean binary entropy of the pixels of the ring and of the most probable others [bits]."""
    n = int(np.count_nonzero(ring))
    if n == 0:
        return float("nan")
    others = probability[~ring]
    inside = probability[ring]
    if len(others) > n:
        others = np.partition(others, len(others) - n)[len(others) - n :]
    p = np.clip(np.concatenate([inside, others]).astype(np.float64), 1e-6, 1 - 1e-6)
    return float(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean())


def _confidence(ring: BoolArray, seen: Seen, probability: FloatArray) -> NDArray[np.uint8]:
    """Probability that ring or not ring is right, ``(h, w)``: 128 is a coin, 255 certain.

    0 where no class can be said.
    """
    right = np.where(ring, probability, 1 - probability).astype(np.float32)
    if not seen.window.is_whole:
        right = seen.window.put(right, around=1.0)
    confidence = np.clip(np.rint(255 * right), 128, 255).astype(np.uint8)
    confidence[seen.pixels.unknown] = 0
    return confidence


def unlabelled(
    frame: Frame,
    shape: tuple[int, int],
    error: FrameError,
    options: NodeOptions,
    pixels: Inspected | None,
    centroids: Centroids | None,
) -> Mask:
    """Return the mask of a frame that has none: class 255 throughout, and the reason."""
    classes = np.full(shape, ClassCode.INVALID, np.uint8)
    status: FrameStatus = "refused" if frame.image is not None else "lost"
    source: MaskSource = "none"
    return Mask(
        replace(frame, image=None),
        classes,
        source,
        status,
        str(error),
        dict.fromkeys(options.also, classes),
        centroids_hash=centroids.hash if centroids else "",
        verdict="no beam" if error.verdict == "no beam" else "none",
        valid_bits=pixels.bits if pixels is not None else None,
    )
