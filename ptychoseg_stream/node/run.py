"""What is remembered of one run, and the walk of its frames."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import FrameError
from ..science.background import Background
from ..science.consensus import Consensus
from ..science.drift import Monitors
from ..science.frame import BoolArray, FloatArray, Frame, Mask, Method
from ..science.fusion import Fusion
from ..science.geometry import Geometry
from ..science.inputs import inputs_of
from ..science.learning import Student
from ..science.prepare import Prepared
from ..science.readings import read
from ..science.records import Alarm, StageRecord
from ..science.som import Centroids
from ..science.track import BeamTracker
from ..science.validity import Inspected, PixelHistory, inspect
from ..science.window import Window
from .answer import Seen, compose, unlabelled
from .ladder import Kept, Ladder, fit_teacher
from .look import (
    Look,
    beam_outside,
    choose_window,
    find_and_look,
    look_at,
    through,
    without_broken,
)
from .options import NodeOptions
from .store import Store
from .students import Provenance, StoredStudent
from .trainer import Trainer


class RunLabeller:
    """Labels the frames of one run, one after the other.

    Parameters
    ----------
    options : NodeOptions
    trainer : Trainer
        Of this run.
    store : Store
        Where centroids are cached and students kept.
    uid : str
        Of the raw run.
    user : ndarray of bool, optional
        ``(h, w)`` pixels that must never be used.
    """

    def __init__(
        self,
        options: NodeOptions,
        trainer: Trainer,
        store: Store,
        uid: str = "",
        user: BoolArray | None = None,
    ) -> None:
        self._options = options
        self.trainer = trainer
        self._store = store
        self._uid = uid
        self._user = user
        self._shape: tuple[int, int] | None = None
        self._window: Window | None = None
        self._history: PixelHistory | None = None
        self._background: Background | None = None
        self._centroids: Centroids | None = None
        self._ladder = Ladder(options)
        self._tracker = BeamTracker()
        self._monitors = Monitors(options.drift)
        self._usual = np.zeros(0)
        self._fusion = Fusion(options.fusion, options.teacher.edge_level)
        self._student: Student | None = None
        self._alarms: list[Alarm] = []

    def label(self, frames: Sequence[Frame]) -> list[Mask]:
        """Label the next frames, in order; a bad one gets a mask of class 255 that says why."""
        return [self._label(frame) for frame in frames]

    def _label(self, frame: Frame) -> Mask:
        if self._shape is None and min(frame.shape) > 0:  # a lost frame may not know its size
            self._shape = frame.shape
        pixels: Inspected | None = None
        stages: tuple[StageRecord, ...] = ()
        try:
            pixels = self._inspect(frame)
            window = self._window if self._ladder.has_ring else None
            window = window or choose_window(pixels, self._options)
            prepared = through(window, pixels, self._options)
            reference, centroids = self._begin(frame.index, prepared, window)
            kept, look = self._follow(frame.index, prepared, reference, centroids)
            stages = self._adopt()
            mask = self._answer(frame, pixels, kept, look, centroids)
            self._keep_in_window(frame.index, look)
        except FrameError as error:
            if error.verdict == "no beam" and self._ladder.has_ring:
                self._lose(frame.index, str(error), pixels)
            mask = unlabelled(
                frame, self._shape or frame.shape, error, self._options, pixels, self._centroids
            )
        alarms, self._alarms = tuple(self._alarms), []
        return replace(mask, alarms=alarms, stages=stages)

    def _inspect(self, frame: Frame) -> Inspected:
        """Find the pixels that cannot be used."""
        if frame.image is None:
            raise FrameError(frame.fault or "the frame could not be read")
        if frame.image.shape != self._shape:
            raise FrameError(
                f"another size: frame {frame.index} is {frame.image.shape}, the run began with "
                f"{self._shape}; change the region of interest between runs, not within one"
            )
        if self._centroids is None:
            self._centroids = self._store.find_centroids(frame.shape, self._options)
        if self._centroids is None and frame.index < self._options.fit_on:
            raise FrameError(
                f"no centroids yet: they are fitted on frame {self._options.fit_on} (`node.fit_on`)"
            )
        return inspect(frame.image, self._options.prepare, self._history, self._user)

    def _begin(self, index: int, prepared: Prepared, window: Window) -> tuple[Consensus, Centroids]:
        """Return reference and centroids.

        Until a frame shows a ring, each is its own reference.
        """
        reference = self._ladder.consensus
        if reference is not None and self._centroids is not None and self._ladder.has_ring:
            return reference, self._centroids
        centroids = self._centroids or fit_teacher(prepared, self._options)
        reference = self._ladder.begin(Kept(index, prepared, (0.0, 0.0)), centroids)
        if self._centroids is None:
            self._store.keep_centroids(centroids, window.shape, self._options)
            self._centroids = centroids
        self._window = window
        self._tracker = BeamTracker()
        self._usual = np.zeros(len(centroids.prototypes))
        self._history = self._history or PixelHistory(window.shape, self._options.validity)
        self._background = self._background or Background(window.shape, self._options.background)
        return reference, centroids

    def _follow(
        self, index: int, prepared: Prepared, reference: Consensus, centroids: Centroids
    ) -> tuple[Kept, Look]:
        """Find the beam, have the monitors judge the frame, and learn from it if it is a good one.

        Raises
        ------
        FrameError
            If the beam is lost.
        """
        if not self._ladder.has_ring:  # nothing to compare with, to watch, or to learn
            look = look_at(prepared, (0.0, 0.0), reference, centroids)
            return Kept(index, prepared, look.shift), look
        measured, look = find_and_look(prepared, self._tracker, reference, centroids)
        readings = read(
            look.scaled, measured, look.labels, look.profile, look.expected, self._usual
        )
        alarms = self._monitors.update(index, readings, self._ladder.finished)
        self._alarms += alarms
        if not self._monitors.beam:
            text = next((a.text for a in alarms if a.action == "no beam"), "")
            raise FrameError(text or "no beam: it is still lost", "no beam")
        self._tracker.update(measured, seen=look.shift == measured)
        kept = Kept(index, prepared, look.shift)
        if any(alarm.action == "restart" for alarm in alarms):
            self._ladder.restart(kept, centroids)
            self._fusion.forget()
            self._usual[:] = 0
        if not self._monitors.doubtful:
            self._usual += look.labels.hits[0]
            self._learn(kept, centroids)
        if (renewed := self._ladder.consensus) is not None and renewed is not reference:
            look = look_at(prepared, look.shift, renewed, centroids)
        return kept, look

    def _keep_in_window(self, index: int, look: Look) -> None:
        """Have the next frame choose another window if the beam leaves this one."""
        if self._window is not None and not self._window.holds(look.geometry):
            self._leave_window(index, self._window.to_full(look.geometry))

    def _lose(self, index: int, reason: str, pixels: Inspected | None) -> None:
        """Tell that the beam is lost; it may have jumped out of the window."""
        self._alarms += self._monitors.lost(index, reason)
        if pixels is None or self._window is None or self._centroids is None:
            return
        beam = beam_outside(self._window, pixels, self._options, self._centroids)
        if beam is not None:
            self._leave_window(index, beam)

    def _leave_window(self, index: int, beam: Geometry) -> None:
        text = (
            f"the beam moved to ({beam.y:.0f}, {beam.x:.0f}) px, out of the part of the frame that "
            "is looked at; another part is chosen, and learning begins anew there"
        )
        self._alarms.append(Alarm(index, "window", beam.y, beam.x, float("nan"), "restart", text))
        self._window = None
        self._ladder = Ladder(self._options, index + 1)
        self._tracker = BeamTracker()
        self._monitors = Monitors(self._options.drift)
        self._fusion.forget()

    def _learn(self, kept: Kept, centroids: Centroids) -> None:
        """Take a frame into the mean; submit a stage if it is time for one."""
        if self._ladder.wants(kept.index):
            stage = self._ladder.stage(kept, centroids)
            if stage is not None:
                self.trainer.submit(stage)
                return
        self._ladder.add(kept)

    def _adopt(self) -> tuple[StageRecord, ...]:
        """Take over what was learned meanwhile."""
        outcomes = self.trainer.collect()
        for outcome in outcomes:
            if outcome.student is not None:
                o = self._options
                made_of = Provenance.of(outcome.record, self._uid, o.student, o.prepare)
                self._store.keep_student(StoredStudent(outcome.student, made_of))
                self._student = outcome.student
        return tuple(outcome.record for outcome in outcomes)

    def _answer(
        self, frame: Frame, pixels: Inspected, kept: Kept, look: Look, centroids: Centroids
    ) -> Mask:
        reference, background = self._ladder.consensus, self._background
        window = self._window
        if reference is None or background is None or self._history is None or window is None:
            raise LookupError("no frame has begun this run")
        self._history.update(pixels)
        probability = self._probability(kept, look, reference)
        seen = Seen(
            frame,
            pixels,
            window,
            look.scaled,
            kept.shift,
            look.geometry,
            look.labels.rings[0],
            look.profile,
            probability,
        )
        return compose(seen, reference, background, self._options, self._student, centroids)

    def _probability(
        self, kept: Kept, look: Look, reference: Consensus
    ) -> dict[Method, FloatArray]:
        if self._student is None or self._ladder.mean is None:
            return {}
        student = self._student.predict(inputs_of(look.scaled, [look.geometry]))[0]
        if self._monitors.doubtful:
            # What was remembered may be of another beam; what is seen now is not yet known for it.
            return {"student": student, "fused": student}
        mean = self._ladder.mean
        image = mean.image(self._options.prepare) / np.float32(reference.unit)
        return {
            "student": student,
            "fused": self._fusion.update(student, without_broken(image, look), mean.n, kept.shift),
        }
