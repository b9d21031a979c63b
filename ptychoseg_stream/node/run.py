"""The walk of the frames of one run."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import FrameError
from ..science.background import Background
from ..science.consensus import Consensus
from ..science.frame import BoolArray, FloatArray, Frame, Mask, Method
from ..science.geometry import Geometry
from ..science.inputs import inputs_of
from ..science.learning import Student
from ..science.prepare import Prepared
from ..science.products import RunProducts
from ..science.readings import read
from ..science.records import Alarm, StageRecord
from ..science.som import Centroids
from ..science.totals import Totals
from ..science.track import BeamTracker
from ..science.validity import Inspected, PixelHistory, inspect
from ..science.window import Window
from .answer import Seen, compose, unlabelled
from .ladder import Kept, fit_teacher
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
from .state import RunState
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
    state : RunState, optional
        What is remembered of the frames before; None for a run that begins.
    """

    def __init__(
        self,
        options: NodeOptions,
        trainer: Trainer,
        store: Store,
        uid: str = "",
        user: BoolArray | None = None,
        state: RunState | None = None,
    ) -> None:
        self._options = options
        self.trainer = trainer
        self._store = store
        self._uid = uid
        self._user = user
        self.state = state or RunState.begin(options, store.known(options))

    def label(self, frames: Sequence[Frame]) -> list[Mask]:
        """Label the next frames, in order; a bad one gets a mask of class 255 that says why."""
        return [self._label(frame) for frame in frames]

    def _label(self, frame: Frame) -> Mask:
        now = self.state
        if now.shape is None and min(frame.shape) > 0:  # a lost frame may not know its size
            now.shape = frame.shape
        pixels: Inspected | None = None
        stages: tuple[StageRecord, ...] = ()
        try:
            pixels = self._inspect(frame)
            window = now.window if now.ladder.has_ring else None
            window = window or choose_window(pixels, self._options)
            prepared = through(window, pixels, self._options)
            reference, centroids = self._begin(frame.index, prepared, window)
            kept, look = self._follow(frame, prepared, reference, centroids)
            stages = self._adopt()
            mask = self._answer(frame, pixels, kept, look, centroids)
            self._keep_in_window(frame.index, look)
        except FrameError as error:
            if error.verdict == "no beam" and now.ladder.has_ring:
                self._lose(frame.index, str(error), pixels)
            shape = now.shape or frame.shape
            mask = unlabelled(frame, shape, error, self._options, pixels, now.centroids)
        self._add_up(mask, pixels)
        alarms, now.alarms = tuple(now.alarms), []
        return replace(mask, alarms=alarms, stages=stages)

    def products(self) -> RunProducts | None:
        """Return what the frames so far say together; None before the first whose size is known."""
        now = self.state
        return now.totals.products(now.background) if now.totals else None

    def _add_up(self, mask: Mask, pixels: Inspected | None) -> None:
        now, index = self.state, mask.frame.index
        if now.shape is None:
            return
        now.totals = now.totals or Totals(now.shape)
        if mask.status == "ok" and pixels is not None and mask.valid_bits is not None:
            now.totals.add(index, pixels.raw, mask.classes, mask.valid_bits, mask.quality)
        else:
            now.totals.skip(index)

    def _inspect(self, frame: Frame) -> Inspected:
        """Find the pixels that cannot be used."""
        now = self.state
        if frame.image is None:
            raise FrameError(frame.fault or "the frame could not be read")
        if frame.image.shape != now.shape:
            raise FrameError(
                f"another size: frame {frame.index} is {frame.image.shape}, the run began with "
                f"{now.shape}; change the region of interest between runs, not within one"
            )
        if now.centroids is None:
            now.centroids = self._cached(frame.shape)
        if now.centroids is None and frame.index < self._options.fit_on:
            raise FrameError(
                f"no centroids yet: they are fitted on frame {self._options.fit_on} (`node.fit_on`)"
            )
        return inspect(frame.image, self._options.prepare, now.history, self._user)

    def _cached(self, shape: tuple[int, int]) -> Centroids | None:
        """Return the centroids that there were when the run began."""
        if self.state.known is None:
            return self._store.find_centroids(shape, self._options)
        return next((k.centroids for k in self.state.known if k.shape == shape), None)

    def _begin(self, index: int, prepared: Prepared, window: Window) -> tuple[Consensus, Centroids]:
        """Return reference and centroids.

        Until a frame shows a ring, each is its own reference.
        """
        now, options = self.state, self._options
        reference = now.ladder.consensus
        if reference is not None and now.centroids is not None and now.ladder.has_ring:
            return reference, now.centroids
        centroids = now.centroids or fit_teacher(prepared, options)
        reference = now.ladder.begin(Kept(index, prepared, (0.0, 0.0)), centroids)
        if now.centroids is None:
            self._store.keep_centroids(centroids, window.shape, options)
            now.centroids = centroids
        now.window = window
        now.tracker = BeamTracker()
        now.usual = np.zeros(len(centroids.prototypes))
        now.history = now.history or PixelHistory(window.shape, options.validity)
        now.background = now.background or Background(window.shape, options.background)
        return reference, centroids

    def _follow(
        self, frame: Frame, prepared: Prepared, reference: Consensus, centroids: Centroids
    ) -> tuple[Kept, Look]:
        """Find the beam, have the monitors judge the frame, and learn from it if it is a good one.

        Raises
        ------
        FrameError
            If the beam is lost.
        """
        now, index = self.state, frame.index
        if not now.ladder.has_ring:  # nothing to compare with, to watch, or to learn
            look = look_at(prepared, (0.0, 0.0), reference, centroids)
            return Kept(index, prepared, look.shift), look
        measured, look = find_and_look(prepared, now.tracker, reference, centroids)
        readings = read(look.scaled, measured, look.labels, look.profile, look.expected, now.usual)
        alarms = now.monitors.update(index, readings, now.ladder.finished)
        now.alarms += alarms
        if not now.monitors.beam:
            text = next((a.text for a in alarms if a.action == "no beam"), "")
            raise FrameError(text or "no beam: it is still lost", "no beam")
        now.tracker.update(measured, seen=look.shift == measured)
        kept = Kept(index, prepared, look.shift)
        if any(alarm.action == "restart" for alarm in alarms):
            now.ladder.restart(kept, centroids)
            now.fusion.forget()
            now.usual[:] = 0
        if not now.monitors.doubtful:
            now.usual += look.labels.hits[0]
            self._learn(kept, centroids, may_stage=not frame.teacher_only)
        if (renewed := now.ladder.consensus) is not None and renewed is not reference:
            look = look_at(prepared, look.shift, renewed, centroids)
        return kept, look

    def _keep_in_window(self, index: int, look: Look) -> None:
        """Have the next frame choose another window if the beam leaves this one."""
        window = self.state.window
        if window is not None and not window.holds(look.geometry):
            self._leave_window(index, window.to_full(look.geometry))

    def _lose(self, index: int, reason: str, pixels: Inspected | None) -> None:
        """Tell that the beam is lost; it may have jumped out of the window."""
        now = self.state
        now.alarms += now.monitors.lost(index, reason)
        if pixels is None or now.window is None or now.centroids is None:
            return
        beam = beam_outside(now.window, pixels, self._options, now.centroids)
        if beam is not None:
            self._leave_window(index, beam)

    def _leave_window(self, index: int, beam: Geometry) -> None:
        text = (
            f"the beam moved to ({beam.y:.0f}, {beam.x:.0f}) px, out of the part of the frame that "
            "is looked at; another part is chosen, and learning begins anew there"
        )
        alarm = Alarm(index, "window", beam.y, beam.x, float("nan"), "restart", text)
        self.state.alarms.append(alarm)
        self.state.leave(self._options, index + 1)

    def _learn(self, kept: Kept, centroids: Centroids, may_stage: bool) -> None:
        """Take a frame into the mean; submit a stage if it is time for one."""
        ladder = self.state.ladder
        if may_stage and ladder.wants(kept.index):
            stage = ladder.stage(kept, centroids)
            if stage is not None:
                self.trainer.submit(stage)
                return
        ladder.add(kept)

    def _adopt(self) -> tuple[StageRecord, ...]:
        """Take over what was learned meanwhile."""
        outcomes = self.trainer.collect()
        for outcome in outcomes:
            if outcome.student is not None:
                o = self._options
                made_of = Provenance.of(outcome.record, self._uid, o.student, o.prepare)
                self._store.keep_student(StoredStudent(outcome.student, made_of))
                self.state.student = outcome.student
        return tuple(outcome.record for outcome in outcomes)

    def _answer(
        self, frame: Frame, pixels: Inspected, kept: Kept, look: Look, centroids: Centroids
    ) -> Mask:
        now = self.state
        reference, background, window = now.ladder.consensus, now.background, now.window
        if reference is None or background is None or now.history is None or window is None:
            raise LookupError("no frame has begun this run")
        now.history.update(pixels)
        student = None if frame.teacher_only else now.student
        seen = Seen(
            frame,
            pixels,
            window,
            look.scaled,
            kept.shift,
            look.geometry,
            look.labels.rings[0],
            look.profile,
            self._probability(student, kept, look, reference),
        )
        return compose(seen, reference, background, self._options, student, centroids)

    def _probability(
        self, student: Student | None, kept: Kept, look: Look, reference: Consensus
    ) -> dict[Method, FloatArray]:
        now, mean = self.state, self.state.ladder.mean
        if student is None or mean is None:
            return {}
        seen = student.predict(inputs_of(look.scaled, [look.geometry]))[0]
        if now.monitors.doubtful:
            # What was remembered may be of another beam; what is seen now is not yet known for it.
            return {"student": seen, "fused": seen}
        image = mean.image(self._options.prepare) / np.float32(reference.unit)
        steady = now.fusion.update(seen, without_broken(image, look), mean.n, kept.shift)
        return {"student": seen, "fused": steady}
