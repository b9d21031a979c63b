"""What is remembered of one run, and the walk of its frames."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import FrameError
from ..science.augment import Example
from ..science.classes import class_map, clean_ring
from ..science.consensus import Consensus, StagedFrame, agree
from ..science.frame import (
    BoolArray,
    ClassCode,
    ClassMap,
    Frame,
    FrameStatus,
    Mask,
    Method,
)
from ..science.fusion import Fusion
from ..science.geometry import Geometry, find_beam
from ..science.inputs import inputs_of
from ..science.learning import Student
from ..science.metrics import iou
from ..science.prepare import Prepared, join, prepare
from ..science.records import Quality
from ..science.som import Centroids
from .options import NodeOptions
from .store import Store
from .trainer import Stage, Trainer


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """A frame that can be labelled."""

    frame: Frame
    prepared: Prepared


class RunLabeller:
    """Labels the frames of one run.

    Frames are prepared one by one, then labelled in groups that end before a staged frame. Nothing
    that is computed of a frame depends on the group it is in.

    Parameters
    ----------
    options : NodeOptions
    trainer : Trainer
        Of this run.
    store : Store
        Where centroids are cached and students kept.
    """

    def __init__(self, options: NodeOptions, trainer: Trainer, store: Store) -> None:
        self._options = options
        self.trainer = trainer
        self._store = store
        self._shape: tuple[int, int] | None = None
        self._centroids: Centroids | None = None
        self._consensus: Consensus | None = None
        self._staged: list[StagedFrame] = []
        self._student: Student | None = None
        self._fusion = Fusion(options.fusion_weight)

    def label(self, frames: Sequence[Frame]) -> list[Mask]:
        """Label the next frames, in order; a bad one gets a mask of class 255 that says why."""
        masks: list[Mask] = []
        group: list[_Ready] = []
        for item in self._prepared(frames):
            if isinstance(item, Mask) or self._is_staged(item.frame.index):
                masks += self._label_group(group)
                group = []
            if isinstance(item, Mask):
                masks.append(item)
            elif self._is_staged(item.frame.index) or self._consensus is None:
                masks.append(self._begin_or_stage(item))
            else:
                group.append(item)
        return masks + self._label_group(group)

    def _prepared(self, frames: Sequence[Frame]) -> Iterator[_Ready | Mask]:
        for frame in frames:
            if self._shape is None:
                self._shape = frame.shape
            try:
                yield _Ready(frame, self._prepare(frame))
            except FrameError as error:
                status: FrameStatus = "refused" if frame.image is not None else "lost"
                yield self._unlabelled(frame, status, str(error))

    def _prepare(self, frame: Frame) -> Prepared:
        if frame.image is None:
            raise FrameError(frame.fault or "the frame could not be read")
        if frame.image.shape != self._shape:
            raise FrameError(
                f"another size: frame {frame.index} is {frame.image.shape}, the run began with "
                f"{self._shape}; change the region of interest between runs, not within one"
            )
        if self._centroids is None and self._cached(frame) is None:
            self._refuse_before_fit(frame)
        return prepare(frame.image, self._options.prepare)

    def _cached(self, frame: Frame) -> Centroids | None:
        self._centroids = self._store.find_centroids(frame.shape, self._options)
        return self._centroids

    def _refuse_before_fit(self, frame: Frame) -> None:
        if frame.index < self._options.fit_on:
            raise FrameError(
                f"no centroids yet: they are fitted on frame {self._options.fit_on} (`node.fit_on`)"
            )

    def _unlabelled(self, frame: Frame, status: FrameStatus, reason: str) -> Mask:
        classes = np.full(self._shape or frame.shape, ClassCode.INVALID, np.uint8)
        return Mask(
            replace(frame, image=None),
            classes,
            "none",
            status,
            reason,
            dict.fromkeys(self._options.also, classes),
            centroids_hash=self._centroids.hash if self._centroids else "",
        )

    def _is_staged(self, index: int) -> bool:
        n = len(self._staged)
        return n < len(self._options.stages) and index >= self._options.stages[n]

    def _begin_or_stage(self, item: _Ready) -> Mask:
        centroids = self._centroids or self._fit(item)
        try:
            self._stage(item, centroids)
            if self._centroids is None:
                self._store.keep_centroids(centroids, item.frame.shape, self._options)
                self._centroids = centroids
        except FrameError as error:
            # Its beam is another one: it must not spoil the mean, the next frame takes its place.
            if self._consensus is None:
                return self._unlabelled(item.frame, "refused", str(error))
        return self._label_group([item])[0]

    def _fit(self, item: _Ready) -> Centroids:
        geometry = find_beam(item.prepared.relative[0], self._options.teacher.edge_level)
        return Centroids.fit_prepared(item.prepared, geometry, self._options.teacher)

    def _stage(self, item: _Ready, centroids: Centroids) -> None:
        shift = (0.0, 0.0)
        if self._consensus is not None:
            dy, dx = self._consensus.finder.find(item.prepared)[0]
            shift = (float(dy), float(dx))
        staged = [*self._staged, StagedFrame(item.prepared, shift)]
        self._consensus = agree(staged, centroids, self._options.prepare)
        if self._is_staged(item.frame.index):
            self._staged = staged
            self.trainer.submit(Stage(self._examples(self._consensus)))

    def _examples(self, consensus: Consensus) -> list[Example]:
        return [
            Example(
                staged.prepared.counts[0],
                float(staged.prepared.plateau[0]),
                consensus.label_for(staged.shift),
                consensus.geometry.moved(staged.shift),
                self._options.prepare,
            )
            for staged in self._staged
        ]

    def _label_group(self, group: Sequence[_Ready]) -> list[Mask]:
        if not group or self._consensus is None or self._centroids is None:
            return []
        self._adopt()
        prepared = join([item.prepared for item in group])
        shifts = [(float(dy), float(dx)) for dy, dx in self._consensus.finder.find(prepared)]
        geometries = [self._consensus.geometry.moved(shift) for shift in shifts]
        teacher = self._centroids.ring(prepared, geometries)
        rings: list[dict[Method, BoolArray]] = [{"teacher": ring} for ring in teacher]
        if self._student is not None:
            probability = self._student.predict(inputs_of(prepared, geometries))
            for ring, p, shift in zip(rings, probability, shifts, strict=True):
                ring["student"] = clean_ring(p > 0.5)
                ring["fused"] = clean_ring(self._fusion.update(p, shift) > 0.5)
        return [
            self._mask(item, ring, geometry, shift)
            for item, ring, geometry, shift in zip(group, rings, geometries, shifts, strict=True)
        ]

    def _adopt(self) -> None:
        if (student := self.trainer.collect()) is not None:
            self._store.keep_student(student, self._options)
            self._student = student

    def _mask(
        self,
        item: _Ready,
        rings: dict[Method, BoolArray],
        geometry: Geometry,
        shift: tuple[float, float],
    ) -> Mask:
        source: Method = self._options.serve if self._options.serve in rings else "teacher"
        bad = item.prepared.bad[0]

        def classes_of(name: Method) -> ClassMap:
            if name not in rings or self._consensus is None:
                return np.full(bad.shape, ClassCode.INVALID, np.uint8)
            return class_map(rings[name], geometry, bad, self._consensus.stop_sectors)

        classes = classes_of(source)
        student, centroids = self._student, self._centroids
        return Mask(
            replace(item.frame, image=None),
            classes,
            source,
            "ok",
            alternatives={
                name: classes if name == source else classes_of(name) for name in self._options.also
            },
            student_revision=student.revision if student else -1,
            student_hash=student.hash if student else "",
            centroids_hash=centroids.hash if centroids else "",
            quality=Quality(iou_to_teacher=iou(rings[source], rings["teacher"])),
            ring_area=int(np.count_nonzero(classes == ClassCode.RING)),
            shift=shift,
            plateau=float(item.prepared.plateau[0]),
        )
