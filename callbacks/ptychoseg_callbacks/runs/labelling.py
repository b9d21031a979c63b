"""Labels the frames of a run that wait, and stores their masks; nothing that goes wrong leaves."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ptychoseg_stream.errors import PtychosegError
from ptychoseg_stream.node.guard import Guard
from ptychoseg_stream.node.ports import Clock, Feed, Labeller, Sink
from ptychoseg_stream.science.frame import Frame, Mask

from .open_run import OpenRun, refusal


class Labelling:
    """From frames to stored rows: a batch that fails is refused or lost as a whole, and counted.

    Parameters
    ----------
    labeller : Labeller
        Makes masks of frames.
    sink : Sink
        Stores masks.
    guard : Guard
        Logs what they raise.
    clock : Clock
        For the latency of masks.
    feed : Feed, optional
        Hears of frames and masks.
    """

    def __init__(
        self,
        labeller: Labeller,
        sink: Sink,
        guard: Guard,
        clock: Clock,
        feed: Feed | None = None,
    ) -> None:
        self._labeller = labeller
        self._sink = sink
        self._guard = guard
        self._clock = clock
        self._feed = feed

    def label(self, run: OpenRun) -> int:
        """Label all frames of a run that wait; return the index of the next one, 0 if none did."""
        batch, run.pending = run.pending, []
        if not batch:
            return 0
        frames = [frame for frame, _ in batch]
        masks = self._guard.call("label frames", partial(self._masks, frames), None)
        if masks is None:
            masks = [refusal(frame, self._guard.last) for frame in frames]
        now = self._clock()
        masks = [
            replace(mask, latency=now - arrived)
            for mask, (_, arrived) in zip(masks, batch, strict=True)
        ]
        stored = self._guard.call("store masks", partial(self._store, run.uid, masks), False)
        if self._feed is not None:
            send = partial(self._feed.send, run.uid, frames, masks)
            self._guard.call("tell the feed", send, None)
        run.count(masks if stored else [replace(mask, status="lost") for mask in masks])
        return frames[-1].index + 1

    def _masks(self, frames: Sequence[Frame]) -> list[Mask]:
        masks = self._labeller.process(frames)
        if [mask.frame.index for mask in masks] != [frame.index for frame in frames]:
            raise PtychosegError(
                f"the labeller answered frames {[frame.index for frame in frames]} with masks of "
                f"{[mask.frame.index for mask in masks]}; it must give one mask per frame, in order"
            )
        return masks

    def _store(self, run_uid: str, masks: Sequence[Mask]) -> bool:
        self._sink.write(run_uid, masks)
        return True
