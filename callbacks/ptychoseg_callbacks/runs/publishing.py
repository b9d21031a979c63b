"""Tells a sink what a run says as a whole: now and then while frames come, and at its end."""

from collections.abc import Callable
from functools import partial

import numpy as np

from ptychoseg_stream.node.guard import Guard
from ptychoseg_stream.node.ports import Labeller, Products, Sink
from ptychoseg_stream.science.experiment import Positions

from .open_run import OpenRun


class Publishing:
    """Publishes the products of runs; what goes wrong costs products, and no mask.

    Parameters
    ----------
    labeller : Labeller
        Has what the frames say together.
    sink : Sink
        Takes it.
    guard : Guard
        Logs what they raise.
    every : float
        Least time between two of a run [s]; the last one, at its end, always comes.
    monotonic : callable
        Seconds of a clock that never jumps.
    """

    def __init__(
        self,
        labeller: Labeller,
        sink: Sink,
        guard: Guard,
        every: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._labeller = labeller
        self._sink = sink
        self._guard = guard
        self._every = every
        self._now = monotonic

    def tick(self, run: OpenRun) -> None:
        """Publish what a run says by now, if the last time is long ago."""
        if self._now() - run.published >= self._every:
            self._publish(run, final=False)

    def finish(self, run: OpenRun) -> None:
        """Publish what a run says in the end."""
        self._publish(run, final=True)

    def _publish(self, run: OpenRun, final: bool) -> None:
        products = self._guard.call(
            "work out what a run says as a whole", partial(self._products, run, final), None
        )
        if products is not None:
            publish = partial(self._sink.publish, run.uid, products)
            self._guard.call("publish what a run says as a whole", publish, None)
        run.published = self._now()

    def _products(self, run: OpenRun, final: bool) -> Products | None:
        of_frames = self._labeller.products(run.uid)
        if of_frames is None:
            return None
        positions = _fitted(run.finder.positions(), of_frames.frames)
        return Products(of_frames, positions, run.experiment, final)


def _fitted(positions: Positions, frames: int) -> Positions:
    """Return one row per frame: some were announced and not labelled yet, or never announced."""
    fitted = np.full((frames, 2), np.nan)
    known = positions[:frames]
    fitted[: len(known)] = known
    return fitted
