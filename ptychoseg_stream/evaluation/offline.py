"""The node without documents: a stack of frames in, all its masks out, deterministic."""

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from ..node.node import Node
from ..node.options import NodeOptions
from ..node.store import Store
from ..node.trainer import InlineTrainer, OnStep
from ..science.frame import Frame, Mask

BATCH = 8


def label_all(
    frames: Sequence[NDArray[Any]] | NDArray[Any],
    options: NodeOptions,
    store: Store,
    on_frame: Callable[[Mask], None] | None = None,
    on_step: OnStep | None = None,
) -> list[Mask]:
    """Label a stack as if it were a run: the same node, the same masks, with inline training.

    Parameters
    ----------
    frames : sequence of ndarray
        ``(h, w)`` each; an ndarray or a `FrameStack`.
    options : NodeOptions
    store : Store
        Centroids are taken from it and kept in it.
    on_frame, on_step : callable, optional
        Told each mask, and the progress after each training step.

    Returns
    -------
    list of Mask
        One for each frame, in order.
    """
    node = Node(options, lambda: InlineTrainer(options.student, on_step, options.promotion), store)
    run = "offline"
    node.open(run)
    masks: list[Mask] = []
    for begin in range(0, len(frames), BATCH):
        block = range(begin, min(begin + BATCH, len(frames)))
        images = [frames[i] for i in block]
        batch = [Frame(run, i, x, x.shape) for i, x in zip(block, images, strict=True)]
        for mask in node.process(batch):
            masks.append(mask)
            if on_frame:
                on_frame(mask)
    node.close(run)
    return masks
