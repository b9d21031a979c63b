"""Tells sink and feed of runs: their beginning, what they say as a whole, their end."""

from collections.abc import Callable
from functools import partial

import numpy as np

from ptychoseg_stream.node.guard import Guard
from ptychoseg_stream.node.ports import Account, Feed, Labeller, Products, RunInfo, Sink
from ptychoseg_stream.science.experiment import Positions

from .open_run import OpenRun

_LIGHT = 1 << 18
"""Pixels of a frame up to which products weigh next to nothing; larger ones are sent less often."""


class Publishing:
    """Begins and ends runs, and publishes their products; what goes wrong costs those, and no mask.

    Parameters
    ----------
    labeller : Labeller
        Has what the frames say together.
    sink : Sink
        Takes it.
    feed : Feed or None
        Takes it, too.
    guard : Guard
        Logs what they raise.
    every : float
        Least time between two of a run [s], for frames up to 512x512; the last one, at its end,
        always comes.
    monotonic : callable
        Seconds of a clock that never jumps.
    """

    def __init__(
        self,
        labeller: Labeller,
        sink: Sink,
        feed: Feed | None,
        guard: Guard,
        every: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._labeller = labeller
        self._sink = sink
        self._feed = feed
        self._guard = guard
        self._every = every
        self._now = monotonic

    def begin(self, run: OpenRun, info: RunInfo) -> None:
        """Open a run; whatever the sink raises."""
        self._sink.open(info)
        if self._feed is not None:
            self._guard.call("tell the feed of a run", partial(self._feed.open, info), None)
        run.experiment, run.published = info.experiment, self._now()

    def refuse(self, info: RunInfo) -> None:
        """Say in the sink that there will be nothing of a run."""
        self._sink.open(info)
        reason = "the labeller could not begin this run"
        self._sink.close(info.uid, Account(exit_status="fail", reason=reason))

    def tick(self, run: OpenRun) -> None:
        """Publish what a run says by now, if the last time is long ago."""
        pixels = run.last.classes.size if run.last is not None else 0
        if self._now() - run.published >= self._every * max(1.0, pixels / _LIGHT):
            self._publish(run, final=False)

    def finish(self, run: OpenRun) -> None:
        """Publish what a run says in the end; its labeller still knows it."""
        self._publish(run, final=True)

    def end(self, run_uid: str, account: Account) -> None:
        """Close a run."""
        self._guard.call(
            "close a run of the sink", partial(self._sink.close, run_uid, account), None
        )
        if self._feed is not None:
            close = partial(self._feed.close, run_uid, account)
            self._guard.call("tell the feed of an end", close, None)

    def shutdown(self) -> None:
        """Release feed and sink."""
        if self._feed is not None:
            self._feed.shutdown()
        self._sink.shutdown()

    def _publish(self, run: OpenRun, final: bool) -> None:
        products = self._guard.call(
            "work out what a run says as a whole", partial(self._products, run, final), None
        )
        if products is not None:
            publish = partial(self._sink.publish, run.uid, products)
            self._guard.call("publish what a run says as a whole", publish, None)
            if self._feed is not None:
                tell = partial(self._feed.publish, run.uid, products)
                self._guard.call("tell the feed what a run says", tell, None)
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
